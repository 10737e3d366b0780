//! Reads the labels and annotations of one node's pods from the Kubernetes API.
//!
//! It requests metadata only, and only of this node's pods (`spec.nodeName`), so that its traffic
//! grows with the node and not with the cluster; and once for each pod that starts, what it may do
//! to the node's network. It decides nothing: the model knows what a label means.

mod events;
mod rights;
mod source;
mod watch;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;

pub use events::{Posted, Reporter};
pub use kube::Client;
pub use rights::{NetworkOwner, network_owner};
pub use source::{Source, SourceError, connect};
pub use watch::{PodFacts, PodNews, watch};

/// Why a request to the API failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The API does not answer.
    #[error("the Kubernetes API {0}")]
    Unavailable(String),
    /// The API answers, and refuses the request.
    #[error("the Kubernetes API {0}")]
    Refused(String),
    /// The API answers, and does not accept who asks: the token or certificate has expired or was
    /// renewed.
    #[error("the Kubernetes API {0}")]
    Unauthorized(String),
}

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 403 => Self::Refused(format!(
                "refuses the request: {}; the agent needs get, list and watch on pods \
                 (deploy/rbac.yaml)",
                status.message
            )),
            kube::Error::Api(status) if status.code == 401 => Self::Unauthorized(format!(
                "refuses the credentials: {}; they are read again until it accepts them (renew \
                 the token or certificate in the kubeconfig)",
                status.message
            )),
            kube::Error::Api(status) => Self::Refused(format!(
                "refuses the request: {} (HTTP {})",
                status.message, status.code
            )),
            other => Self::Unavailable(format!("cannot be reached: {}", chain(other))),
        }
    }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// Reads one pod; `None` when the API has no pod of that name. The caller bounds the time.
///
/// # Errors
/// When the API does not answer, or refuses the request.
pub async fn get(
    client: Client,
    namespace: &str,
    name: &str,
) -> Result<Option<PodFacts>, ApiError> {
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let found = pods.get_metadata_opt(name).await?;
    Ok(found.and_then(|pod| PodFacts::of(&pod.metadata)))
}

/// Returns whether the API answers; that it refuses the request is an answer. The caller bounds the
/// time.
///
/// # Errors
/// When the API does not answer, or does not accept the credentials.
pub async fn probe(client: Client) -> Result<(), ApiError> {
    match client.apiserver_version().await.map_err(ApiError::from) {
        Ok(_) | Err(ApiError::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
