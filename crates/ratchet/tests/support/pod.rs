//! Pods and their sandboxes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Netns, unique};

/// A pod's name, labels and annotations.
#[derive(Debug, Clone, Default)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub annotations: BTreeMap<String, String>,
}

impl Pod {
    pub fn new(name: &str) -> Self {
        Self {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// A pod with the annotation `ratchet.dev/links`.
    pub fn with_links(name: &str, links: &str) -> Self {
        Self {
            annotations: [("ratchet.dev/links".to_owned(), links.to_owned())].into(),
            ..Self::new(name)
        }
    }

    /// A pod with the labels of 2017 of a primary. `local` and `remote` are `address@interface`.
    pub fn primary(name: &str, local: &str, pair: &str, remote: &str) -> Self {
        let (local_ip, local_ifname) = local.split_once('@').unwrap();
        let (pair_ip, pair_ifname) = remote.split_once('@').unwrap();
        Self::new(name)
            .label("ratchet", "true")
            .label("ratchet.pod_name", name)
            .label("ratchet.primary", "true")
            .label("ratchet.local_ip", local_ip)
            .label("ratchet.local_ifname", local_ifname)
            .label("ratchet.pair_name", pair)
            .label("ratchet.pair_ip", pair_ip)
            .label("ratchet.pair_ifname", pair_ifname)
    }

    /// A pod with the labels of 2017 that is only the other pod of a pair.
    pub fn pair(name: &str) -> Self {
        Self::new(name)
            .label("ratchet", "true")
            .label("ratchet.pod_name", name)
            .label("ratchet.primary", "false")
    }

    /// Sets a label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.retain(|(known, _)| known != key);
        self.labels.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Puts it into a namespace.
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// Sets the annotation `ratchet.dev/accept`.
    pub fn accept(mut self, text: &str) -> Self {
        let key = "ratchet.dev/accept".to_owned();
        self.annotations.insert(key, text.to_owned());
        self
    }

    /// Adds the labels and annotations to a CNI config, as a runtime does.
    pub fn configure(&self, mut config: Value) -> Value {
        let labels: Vec<Value> = self
            .labels
            .iter()
            .map(|(key, value)| json!({"key": key, "value": value}))
            .collect();
        config["args"] = json!({"cni": {"labels": labels}});
        config["runtimeConfig"] = json!({"io.kubernetes.cri.pod-annotations": self.annotations});
        config
    }

    /// A new sandbox for this pod: a namespace and a container id.
    pub fn sandbox(&self) -> Sandbox {
        let id = format!("ab12{:08x}{:08x}", std::process::id(), unique());
        Sandbox {
            netns: Netns::new(&self.name),
            id,
            pod: self.clone(),
        }
    }
}

/// A sandbox of a pod.
pub struct Sandbox {
    pub netns: Netns,
    pub id: String,
    pub pod: Pod,
}

/// The article's cloud router.
pub fn cloud_router() -> [Pod; 4] {
    [
        Pod::primary(
            "centosa",
            "192.168.2.100@in1",
            "quagga-a",
            "192.168.2.101@in2",
        ),
        Pod::primary(
            "quagga-a",
            "192.168.3.100@mid1",
            "quagga-b",
            "192.168.3.101@mid2",
        ),
        Pod::primary(
            "quagga-b",
            "192.168.4.100@out1",
            "centosb",
            "192.168.4.101@out2",
        ),
        Pod::pair("centosb"),
    ]
}
