//! Asks the Kubernetes API, with the agent's kubeconfig. It changes nothing.

use std::time::Duration;

use k8s_openapi::{
    api::{
        authorization::v1::{
            ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
        },
        coordination::v1::Lease,
    },
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use ratchet_api::{GROUP, NodeUnderlay, NodeUnderlaySpec, VERSION};
use ratchet_kubernetes::{chain, connect};
use ratchet_model::NodeName;

use super::{Holder, LEASE, NAMESPACE, RIGHTS, Right, Seen};

/// How long the API may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Reads all.
///
/// # Errors
/// Why the API does not answer.
pub(super) fn read(kubeconfig: &str, node: &NodeName) -> Result<Seen, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let seen = runtime.block_on(async {
        let client = match tokio::time::timeout(TIMEOUT, connect(kubeconfig)).await {
            Ok(client) => client?,
            Err(_) => return Err(late()),
        };
        let version = in_time(client.apiserver_version()).await?;
        Ok(Seen {
            version: version.git_version,
            kinds: kinds(&client).await,
            refused: refused(&client, node).await,
            underlay: underlay(&client, node).await,
            lease: lease(&client).await,
        })
    });
    // A program that the kubeconfig names may still run.
    runtime.shutdown_background();
    seen
}

fn late() -> String {
    format!("no answer within {} s", TIMEOUT.as_secs())
}

async fn in_time<T>(answer: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(|error| chain(&error)),
        Err(_) => Err(late()),
    }
}

/// A group that the API does not know has no kinds.
async fn kinds(client: &Client) -> Result<Vec<String>, String> {
    let version = format!("{GROUP}/{VERSION}");
    let asked = client.list_api_group_resources(&version);
    let found = in_time(async {
        match asked.await {
            Ok(found) => Ok(found.resources),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    });
    Ok(found.await?.into_iter().map(|kind| kind.name).collect())
}

async fn refused(client: &Client, node: &NodeName) -> Result<Vec<Right>, String> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut refused = Vec::new();
    for right in RIGHTS {
        let attributes = ResourceAttributes {
            group: Some(GROUP.to_owned()),
            version: Some(VERSION.to_owned()),
            verb: Some(right.verb.to_owned()),
            resource: Some(right.resource.to_owned()),
            subresource: right.subresource.map(ToOwned::to_owned),
            name: right.is_own.then(|| node.to_string()),
            ..ResourceAttributes::default()
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(attributes),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let params = PostParams::default();
        let answer = in_time(reviews.create(&params, &review)).await?;
        if !answer.status.is_some_and(|status| status.allowed) {
            refused.push(right);
        }
    }
    Ok(refused)
}

async fn underlay(client: &Client, node: &NodeName) -> Result<Option<NodeUnderlaySpec>, String> {
    let underlays: Api<NodeUnderlay> = Api::all(client.clone());
    let found = in_time(underlays.get_opt(node.as_str())).await?;
    Ok(found.map(|underlay| underlay.spec))
}

async fn lease(client: &Client) -> Result<Option<Holder>, String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let Some(lease) = in_time(leases.get_opt(LEASE)).await? else {
        return Ok(None);
    };
    let spec = lease.spec.unwrap_or_default();
    let age = spec
        .renew_time
        .map(|time| Timestamp::now().duration_since(time.0));
    Ok(Some(Holder {
        name: spec.holder_identity.unwrap_or_default(),
        // Of a clock that is ahead, nothing can be said.
        age: age.and_then(|age| age.try_into().ok()).unwrap_or_default(),
    }))
}
