//! What a pod's containers may do to the node's network.

use k8s_openapi::api::core::v1::{Pod, PodSpec, SecurityContext};
use kube::{Api, Client};

use crate::{ApiError, PodFacts};

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
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let found = pods.get_opt(name).await?;
    Ok(found.and_then(|pod| {
        Some(NetworkOwner {
            container: owning_container(pod.spec.as_ref()?)?,
            pod: PodFacts::of(&pod.metadata)?,
        })
    }))
}

/// The first container with NET_ADMIN of a pod that has no user namespace of its own.
fn owning_container(spec: &PodSpec) -> Option<String> {
    if spec.host_users == Some(false) {
        return None;
    }
    let first = spec.init_containers.iter().flatten();
    let mut all = first.chain(&spec.containers);
    let owner = all.find(|container| {
        container
            .security_context
            .as_ref()
            .is_some_and(has_net_admin)
    });
    owner.map(|container| container.name.clone())
}

fn has_net_admin(context: &SecurityContext) -> bool {
    let capabilities = context.capabilities.as_ref();
    let mut added = capabilities
        .and_then(|known| known.add.as_ref())
        .into_iter()
        .flatten();
    // containerd takes the names with and without their prefix.
    let is_net_admin = |name: &String| {
        let name = name.to_ascii_uppercase();
        matches!(
            name.strip_prefix("CAP_").unwrap_or(&name),
            "NET_ADMIN" | "ALL"
        )
    };
    context.privileged == Some(true) || added.any(is_net_admin)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Capabilities, Container};

    use super::*;

    fn with(name: &str, add: &[&str], privileged: Option<bool>) -> Container {
        Container {
            name: name.to_owned(),
            security_context: Some(SecurityContext {
                capabilities: Some(Capabilities {
                    add: Some(add.iter().map(|&name| name.to_owned()).collect()),
                    drop: None,
                }),
                privileged,
                ..SecurityContext::default()
            }),
            ..Container::default()
        }
    }

    fn owner(host_users: Option<bool>, containers: [Container; 2]) -> Option<String> {
        owning_container(&PodSpec {
            host_users,
            containers: containers.into(),
            ..PodSpec::default()
        })
    }

    #[test]
    fn net_admin_without_a_user_namespace_owns_the_nodes_network() {
        let plain = || Container {
            name: "plain".to_owned(),
            ..Container::default()
        };
        for (container, owns) in [
            (with("r", &["NET_ADMIN"], None), true),
            (with("r", &["CAP_NET_ADMIN"], Some(false)), true),
            (with("r", &["NET_RAW", "ALL"], None), true),
            (with("r", &[], Some(true)), true),
            (with("r", &["NET_RAW"], Some(false)), false),
            (plain(), false),
        ] {
            let expected = owns.then(|| "r".to_owned());
            for host_users in [None, Some(true)] {
                assert_eq!(owner(host_users, [plain(), container.clone()]), expected);
            }
            assert_eq!(owner(Some(false), [plain(), container]), None);
        }
    }

    #[test]
    fn init_containers_count() {
        let spec = PodSpec {
            init_containers: Some(vec![with("init", &["NET_ADMIN"], None)]),
            ..PodSpec::default()
        };
        assert_eq!(owning_container(&spec).as_deref(), Some("init"));
    }
}
