//! What a pod's containers may do to the node's network.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    core::{ApiResource, NotUsed, Object},
};
use serde::Deserialize;

use crate::{ApiError, PodFacts};

/// What is read of a pod's `spec`. The type of k8s-openapi has some hundred fields, and reading
/// them takes half a megabyte of code.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    host_users: Option<bool>,
    init_containers: Vec<Container>,
    containers: Vec<Container>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    name: String,
    security_context: SecurityContext,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct SecurityContext {
    capabilities: Capabilities,
    privileged: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Capabilities {
    add: Vec<String>,
}

/// A pod that owns the network of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkOwner {
    /// The pod.
    pub pod: PodFacts,
    /// Its first container with NET_ADMIN.
    pub container: String,
}

/// Reads whether a pod owns the network of its node: a container of it has NET_ADMIN, and it has no
/// user namespace of its own. `None` also when the API has no pod of that name. The caller bounds
/// the time.
///
/// # Errors
/// When the API does not answer, or refuses the request.
pub async fn network_owner(
    client: Client,
    namespace: &str,
    name: &str,
) -> Result<Option<NetworkOwner>, ApiError> {
    let pods = ApiResource::erase::<Pod>(&());
    let pods: Api<Object<Spec, NotUsed>> = Api::namespaced_with(client, namespace, &pods);
    let found = pods.get_opt(name).await?;
    Ok(found.and_then(|pod| {
        Some(NetworkOwner {
            container: owning_container(&pod.spec)?,
            pod: PodFacts::of(&pod.metadata)?,
        })
    }))
}

/// The first container with NET_ADMIN of a pod that has no user namespace of its own.
fn owning_container(spec: &Spec) -> Option<String> {
    if spec.host_users == Some(false) {
        return None;
    }
    let mut all = spec.init_containers.iter().chain(&spec.containers);
    let owner = all.find(|container| has_net_admin(&container.security_context));
    owner.map(|container| container.name.clone())
}

fn has_net_admin(context: &SecurityContext) -> bool {
    // containerd takes the names with and without their prefix.
    let is_net_admin = |name: &String| {
        let name = name.to_ascii_uppercase();
        matches!(
            name.strip_prefix("CAP_").unwrap_or(&name),
            "NET_ADMIN" | "ALL"
        )
    };
    context.privileged == Some(true) || context.capabilities.add.iter().any(is_net_admin)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The container that owns the network, of a pod as the API has it.
    fn owner(spec: Value) -> Option<String> {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": spec});
        let pod: Object<Spec, NotUsed> = serde_json::from_value(pod).unwrap();
        owning_container(&pod.spec)
    }

    #[test]
    fn net_admin_without_a_user_namespace_owns_the_nodes_network() {
        for (context, owns) in [
            (json!({"capabilities": {"add": ["NET_ADMIN"]}}), true),
            (
                json!({"capabilities": {"add": ["CAP_NET_ADMIN"]}, "privileged": false}),
                true,
            ),
            (
                json!({"capabilities": {"add": ["NET_RAW", "ALL"], "drop": ["X"]}}),
                true,
            ),
            (
                json!({"capabilities": {}, "privileged": true, "runAsUser": 7}),
                true,
            ),
            (
                json!({"capabilities": {"drop": ["NET_ADMIN"]}, "privileged": false}),
                false,
            ),
            (json!({}), false),
        ] {
            let container = json!({"name": "r", "image": "i", "securityContext": context});
            let containers = json!([{"name": "plain", "image": "i"}, container]);
            let expected = owns.then(|| "r".to_owned());
            assert_eq!(owner(json!({"containers": containers})), expected);
            for (host_users, expected) in [(true, expected), (false, None)] {
                let spec = json!({"hostUsers": host_users, "containers": containers});
                assert_eq!(owner(spec), expected);
            }
        }
    }

    #[test]
    fn init_containers_count() {
        let context = json!({"capabilities": {"add": ["NET_ADMIN"]}});
        let init = json!([{"name": "init", "securityContext": context}]);
        let spec = json!({"initContainers": init, "containers": [{"name": "r"}]});
        assert_eq!(owner(spec).as_deref(), Some("init"));
    }
}
