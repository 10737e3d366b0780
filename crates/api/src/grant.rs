//! Grants: who may make links with the pods of another namespace.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{PodSelector, schema};

/// Whose Topologies may have links with which pods.
#[derive(
    CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "ratchet.dev",
    version = "v1alpha1",
    kind = "LinkGrant",
    plural = "linkgrants",
    namespaced,
    category = "ratchet",
    derive = "PartialEq",
    doc = "Allows links from other namespaces to pods of the namespace in which the LinkGrant is. \
           Several add up. When it is deleted, the links that need it are removed.",
    printcolumn(name = "From", type_ = "string", json_path = ".spec.from[*].namespace"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
pub struct LinkGrantSpec {
    /// The namespaces whose Topologies and pods may declare the links.
    #[schemars(schema_with = "schema::grants::<LinkGrantFrom>")]
    pub from: Vec<LinkGrantFrom>,
    /// The pods of this namespace that the links may have as an end.
    #[schemars(schema_with = "schema::grants::<LinkGrantTo>")]
    pub to: Vec<LinkGrantTo>,
}

/// A namespace that may declare links.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LinkGrantFrom {
    /// The namespace's name.
    #[schemars(schema_with = "schema::granted_namespace")]
    pub namespace: String,
}

/// Pods that links may have as an end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkGrantTo {
    /// The pods. Without it, all pods of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PodSelector")]
    pub pod_selector: Option<PodSelector>,
}

impl LinkGrantSpec {
    /// Whether a namespace may declare links with a pod that has these labels.
    pub fn allows<'a>(&self, namespace: &str, labels: impl Fn(&str) -> Option<&'a str>) -> bool {
        let is_named = self.from.iter().any(|from| from.namespace == namespace);
        is_named
            && self.to.iter().any(|to| {
                let selector = to.pod_selector.as_ref();
                selector.is_none_or(|selector| selector.matches(&labels))
            })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_grant_is_for_its_namespaces_and_pods() {
        let allows = |to, namespace: &str| {
            let spec = json!({"from": [{"namespace": "t1"}, {"namespace": "t2"}], "to": to});
            let spec: LinkGrantSpec = serde_json::from_value(spec).unwrap();
            spec.allows(namespace, |key| (key == "app").then_some("edge"))
        };
        let labels = |app: &str| json!({"podSelector": {"matchLabels": {"app": app}}});
        assert!(allows(json!([{}]), "t1"));
        assert!(allows(json!([labels("core"), labels("edge")]), "t2"));
        assert!(!allows(json!([labels("core")]), "t1"));
        assert!(!allows(json!([{}]), "t3"));
    }
}
