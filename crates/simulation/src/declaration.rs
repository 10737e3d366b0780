//! What a pod of a history declares, and how that is written on the pod.
//!
//! The scenario has declarations in this form, which is not the model's, so that the oracle need
//! not ask the code under test what a declaration means.

use std::{collections::BTreeMap, fmt};

use crate::network::{Endpoint, PodNumber};

/// Labels and annotations of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// How a declaration is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The labels of 2017: one link at most, and none within the pod.
    Labels,
    /// The annotation `ratchet.dev/links`.
    Annotation,
    /// So that it cannot be read.
    Broken,
}

/// A link, as a pod declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredLink {
    /// The number of the pod's own interface.
    pub interface: u8,
    /// The other pod, perhaps the same.
    pub peer: PodNumber,
    /// The number of the other pod's interface.
    pub peer_interface: u8,
    /// The last byte of the own end's address.
    pub address: Option<u8>,
    /// The last byte of the other end's address.
    pub peer_address: Option<u8>,
    /// The VNI that it insists on.
    pub vni: Option<u32>,
}

/// What a pod declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// How.
    pub form: Form,
    /// Which links.
    pub links: Vec<DeclaredLink>,
}

/// The name of a pod.
pub fn pod_name(pod: PodNumber) -> String {
    format!("p{pod}")
}

/// The name of an interface.
pub fn interface_name(interface: u8) -> String {
    format!("e{interface}")
}

/// An address, with its prefix, as it is written.
pub fn address_text(last: u8) -> String {
    format!("172.16.0.{last}/24")
}

impl DeclaredLink {
    /// Its ends, those of the declaring pod first.
    pub fn ends(&self, pod: PodNumber) -> [Endpoint; 2] {
        [
            Endpoint {
                pod,
                interface: interface_name(self.interface),
            },
            Endpoint {
                pod: self.peer,
                interface: interface_name(self.peer_interface),
            },
        ]
    }

    fn entry(&self) -> String {
        let mut entry = format!(
            "interface: {}, peer: {}/{}",
            interface_name(self.interface),
            pod_name(self.peer),
            interface_name(self.peer_interface)
        );
        for (key, address) in [
            ("addresses", self.address),
            ("peerAddresses", self.peer_address),
        ] {
            if let Some(last) = address {
                entry += &format!(", {key}: [{}]", address_text(last));
            }
        }
        if let Some(vni) = self.vni {
            entry += &format!(", vni: {vni}");
        }
        format!("{{{entry}}}")
    }
}

impl Declaration {
    /// As it is written on the pod.
    pub fn texts(&self) -> Texts {
        let mut texts = Texts::default();
        match self.form {
            Form::Labels => {
                let mut put = |key: &str, value: String| {
                    texts.labels.insert(key.to_owned(), value);
                };
                put("ratchet", "true".to_owned());
                if let Some(link) = self.links.first() {
                    put("ratchet.primary", "true".to_owned());
                    put("ratchet.local_ifname", interface_name(link.interface));
                    put("ratchet.pair_name", pod_name(link.peer));
                    put("ratchet.pair_ifname", interface_name(link.peer_interface));
                    for (key, address) in [
                        ("ratchet.local_ip", link.address),
                        ("ratchet.pair_ip", link.peer_address),
                    ] {
                        if let Some(last) = address {
                            put(key, format!("172.16.0.{last}"));
                        }
                    }
                }
            }
            Form::Annotation => {
                let entries: Vec<String> = self.links.iter().map(DeclaredLink::entry).collect();
                let list = format!("[{}]", entries.join(", "));
                texts.annotations.insert("ratchet.dev/links".into(), list);
            }
            Form::Broken => {
                let list = "[{interface: e0}]".to_owned();
                texts.annotations.insert("ratchet.dev/links".into(), list);
            }
        }
        texts
    }
}

impl fmt::Display for Declaration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let links: Vec<String> = self.links.iter().map(DeclaredLink::entry).collect();
        match self.form {
            Form::Labels => write!(f, "by labels [{}]", links.join(", ")),
            Form::Annotation => write!(f, "[{}]", links.join(", ")),
            Form::Broken => write!(f, "nonsense"),
        }
    }
}
