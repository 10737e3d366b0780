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

/// Pods with this number and higher ones are in a namespace of their own. Its authors are hostile.
pub const HOSTILE: PodNumber = 100;

/// How a declaration is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The labels of 2017: one link at most, and none within the pod.
    Labels,
    /// The keys of 2017 as annotations.
    OldAnnotations,
    /// The annotation `ratchet.dev/links`, in YAML.
    Annotation,
    /// The same, each peer with its namespace.
    Full,
    /// The same, in JSON.
    Json,
    /// The first link by labels, the others by the annotation.
    Mixed,
    /// Nothing at all: the pod is not Ratchet's.
    Nothing,
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
    /// The MTU of both ends.
    pub mtu: Option<u32>,
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

/// The namespace of a pod.
pub fn namespace(pod: PodNumber) -> &'static str {
    if pod < HOSTILE { "default" } else { "hostile" }
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

    /// Its ends in their order.
    pub fn ends_in_order(&self, pod: PodNumber) -> [Endpoint; 2] {
        let mut ends = self.ends(pod);
        ends.sort();
        ends
    }

    /// The last byte of the address that it gives to an end, if it is the declaration of `pod`.
    pub fn address_of(&self, pod: PodNumber, end: &Endpoint) -> Option<u8> {
        if self.ends(pod)[0] == *end {
            self.address
        } else {
            self.peer_address
        }
    }

    /// Whether the keys of 2017 can say it.
    fn is_simple(&self, pod: PodNumber) -> bool {
        self.peer != pod && self.vni.is_none() && self.mtu.is_none()
    }

    /// Whether its two pods are of two namespaces. None of them ever consents to that.
    pub fn is_foreign(&self, pod: PodNumber) -> bool {
        namespace(pod) != namespace(self.peer)
    }

    /// The other end: in one of the three ways to write it, depending on the link.
    fn peer_text(&self, is_full: bool) -> String {
        let (pod, interface) = (pod_name(self.peer), interface_name(self.peer_interface));
        if is_full {
            format!("{}/{pod}/{interface}", namespace(self.peer))
        } else if self.interface == self.peer_interface {
            pod
        } else if self.peer.is_multiple_of(2) {
            format!("{}/{pod}/{interface}", namespace(self.peer))
        } else {
            format!("{pod}/{interface}")
        }
    }

    /// Its entry in the list, each field with its value.
    fn fields(&self, quote: &str, is_full: bool) -> String {
        let quoted = |text: String| format!("{quote}{text}{quote}");
        let mut fields = vec![
            ("interface", quoted(interface_name(self.interface))),
            ("peer", quoted(self.peer_text(is_full))),
        ];
        for (key, address) in [
            ("addresses", self.address),
            ("peerAddresses", self.peer_address),
        ] {
            let address = address.map(|last| format!("[{}]", quoted(address_text(last))));
            fields.extend(address.map(|address| (key, address)));
        }
        for (key, number) in [("vni", self.vni), ("mtu", self.mtu)] {
            fields.extend(number.map(|number| (key, number.to_string())));
        }
        let fields = fields
            .into_iter()
            .map(|(key, value)| format!("{quote}{key}{quote}: {value}"));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
    }

    /// What the keys of 2017 say.
    fn keys(&self) -> Vec<(&'static str, String)> {
        let mut keys = vec![
            ("ratchet.primary", "true".to_owned()),
            ("ratchet.local_ifname", interface_name(self.interface)),
            ("ratchet.pair_name", pod_name(self.peer)),
            ("ratchet.pair_ifname", interface_name(self.peer_interface)),
        ];
        for (key, address) in [
            ("ratchet.local_ip", self.address),
            ("ratchet.pair_ip", self.peer_address),
        ] {
            keys.extend(address.map(|last| (key, format!("172.16.0.{last}"))));
        }
        keys
    }
}

impl Declaration {
    /// As it is written on the pod.
    pub fn texts(&self) -> Texts {
        let mut texts = Texts::default();
        let is_full = self.form == Form::Full;
        let list = |links: &[DeclaredLink], quote: &str| {
            let entries: Vec<String> = links
                .iter()
                .map(|link| link.fields(quote, is_full))
                .collect();
            format!("[{}]", entries.join(", "))
        };
        let mut annotate = |text: String| texts.annotations.insert(LINKS.to_owned(), text);
        match self.form {
            Form::Labels | Form::OldAnnotations | Form::Nothing => None,
            Form::Annotation | Form::Full => annotate(list(&self.links, "")),
            Form::Json => annotate(list(&self.links, "\"")),
            Form::Mixed => annotate(list(self.links.get(1..).unwrap_or_default(), "")),
            Form::Broken => annotate("[{interface: e0}]".to_owned()),
        };
        let keys = || {
            let first = self.links.first().map(DeclaredLink::keys);
            let keys = first.into_iter().flatten();
            let keys = std::iter::once(("ratchet", "true".to_owned())).chain(keys);
            keys.map(|(key, value)| (key.to_owned(), value))
        };
        match self.form {
            Form::Labels | Form::Mixed => texts.labels.extend(keys()),
            Form::OldAnnotations => texts.annotations.extend(keys()),
            Form::Annotation | Form::Full | Form::Json | Form::Nothing | Form::Broken => {}
        }
        texts
    }

    /// The declaration of a pod, as far as this form can say it.
    pub fn new(pod: PodNumber, form: Form, mut links: Vec<DeclaredLink>) -> Self {
        let is_simple = |link: Option<&DeclaredLink>| link.is_none_or(|link| link.is_simple(pod));
        let form = match form {
            Form::Labels | Form::OldAnnotations => {
                links.truncate(1);
                form
            }
            Form::Nothing | Form::Broken => {
                links.clear();
                form
            }
            Form::Annotation | Form::Full | Form::Json | Form::Mixed => form,
        };
        let has_keys = matches!(form, Form::Labels | Form::OldAnnotations | Form::Mixed);
        let form = if has_keys && !is_simple(links.first()) {
            Form::Annotation
        } else {
            form
        };
        Self { form, links }
    }
}

/// The annotation that declares links.
const LINKS: &str = "ratchet.dev/links";

impl fmt::Display for Declaration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_full = self.form == Form::Full;
        let links = self.links.iter().map(|link| link.fields("", is_full));
        let links: Vec<String> = links.collect();
        let links = links.join(", ");
        match self.form {
            Form::Labels => write!(f, "by labels [{links}]"),
            Form::OldAnnotations => write!(f, "by annotations of 2017 [{links}]"),
            Form::Annotation | Form::Full => write!(f, "[{links}]"),
            Form::Json => write!(f, "in JSON [{links}]"),
            Form::Mixed => write!(f, "the first by labels [{links}]"),
            Form::Nothing => write!(f, "nothing"),
            Form::Broken => write!(f, "nonsense"),
        }
    }
}
