//! Declarations: what users write on pods, read into the model.
//!
//! One file a form; all end in [`Declaration`]. To add a form, add a file with a function that
//! returns [`DeclaredLink`]s and call it in [`declare`].

mod accept;
mod annotation;
mod labels;
mod yaml;

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    link::{DeclaredEnd, DeclaredLink},
    names::{NameError, PodKey},
    nearest,
    quotas::Quotas,
    reason::Reason,
    text::bounded,
};

pub use accept::{ACCEPT, Accept, CrossNamespace};
pub use annotation::{LAB_RUN, LINKS};

/// Labels or annotations.
pub type Texts = BTreeMap<String, String>;

/// What one pod declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declaration {
    /// The pod, under the name that links know it by: `ratchet.pod_name` where it is given.
    pub pod: PodKey,
    /// Its links, perhaps none: then it only is the other end of links that others declare.
    pub links: Vec<DeclaredLink>,
    /// Whose declarations of links with it the pod accepts; none: it does not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<Accept>,
}

impl Declaration {
    /// What a store says that a pod declares. The pod accepts everyone, since consent was asked for
    /// before these links came into the store.
    pub fn of_store(pod: PodKey, links: Vec<DeclaredLink>) -> Self {
        Self {
            pod,
            links,
            accept: Some(Accept::anyone()),
        }
    }
}

/// Something is wrong with a declaration. The text names the label or annotation, what was expected
/// and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pod {pod}: {key}: {}", bounded(reason.to_string(), PROBLEM))]
pub struct DeclarationError {
    /// The pod.
    pub pod: String,
    /// The label, or the annotation and the field in it.
    pub key: String,
    /// What is wrong with it.
    pub reason: Box<Reason>,
}

impl DeclarationError {
    /// What is wrong with this label, annotation or field of this pod.
    pub fn new(pod: impl ToString, key: impl Into<String>, reason: Reason) -> Self {
        Self {
            pod: pod.to_string(),
            key: bounded(key, KEY),
            reason: Box::new(reason),
        }
    }
}

/// The most bytes of what is wrong, and of where. With a pod's longest name, an error fits an event
/// of Kubernetes, which has 1,024.
const PROBLEM: usize = 480;
const KEY: usize = 160;

/// The pod whose declaration is read, and how much it may declare.
#[derive(Clone, Copy)]
struct Reader<'a> {
    pod: &'a PodKey,
    quotas: &'a Quotas,
}

impl Reader<'_> {
    fn error(&self, key: impl Into<String>, reason: Reason) -> DeclarationError {
        DeclarationError::new(self.pod, key, reason)
    }
}

/// Whether these labels and annotations make the pod Ratchet's: `ratchet: "true"` on either, or the
/// annotation `ratchet.dev/links`, were it empty.
pub fn is_eligible(labels: &Texts, annotations: &Texts) -> bool {
    annotations.contains_key(LINKS)
        || [labels, annotations].iter().any(|texts| {
            texts
                .get(labels::ELIGIBLE)
                .is_some_and(|value| value == "true")
        })
}

/// Reads what a pod declares, within the default quotas; `None` when it is not Ratchet's.
///
/// # Errors
/// The first thing that is wrong. A pod with an error in its declaration is not wired at all: half
/// of what the user wrote would be a surprise.
pub fn declare(
    pod: &PodKey,
    labels: &Texts,
    annotations: &Texts,
) -> Result<Option<Declaration>, DeclarationError> {
    declare_within(&Quotas::default(), pod, labels, annotations)
}

/// Reads what a pod declares, within these quotas; `None` when it is not Ratchet's.
///
/// # Errors
/// As for [`declare`].
pub fn declare_within(
    quotas: &Quotas,
    pod: &PodKey,
    labels: &Texts,
    annotations: &Texts,
) -> Result<Option<Declaration>, DeclarationError> {
    if !is_eligible(labels, annotations) {
        return Ok(None);
    }
    let reader = Reader { pod, quotas };
    let keys = labels::gather(reader, labels, annotations)?;
    let pod = labels::pod_name(reader, &keys)?;
    let reader = Reader { pod: &pod, quotas };

    let mut links = Vec::new();
    links.extend(labels::link(reader, &keys)?);
    links.extend(annotation::links(reader, annotations)?);
    one_link_an_interface(reader, &links)?;
    let accept = accept::accept(reader, annotations)?;
    Ok(Some(Declaration { pod, links, accept }))
}

/// An interface can be the end of one link only.
fn one_link_an_interface(
    reader: Reader<'_>,
    links: &[DeclaredLink],
) -> Result<(), DeclarationError> {
    let mut claimed: BTreeMap<(&PodKey, &str), &DeclaredLink> = BTreeMap::new();
    for link in links {
        for (end, far) in [(&link.local, &link.remote), (&link.remote, &link.local)] {
            if let Some(first) = claimed.insert((&end.pod, end.interface.as_str()), link) {
                return Err(reader.error(
                    format!("interface {} of pod {}", end.interface, end.pod),
                    Reason::InterfaceClaimedTwice {
                        one: end_text(&first.local),
                        first: end_text(&first.remote),
                        second: end_text(far),
                    },
                ));
            }
        }
    }
    Ok(())
}

fn end_text(end: &DeclaredEnd) -> String {
    format!("{}/{}", end.pod, end.interface)
}

/// A key or field that does not exist.
fn no_such(what: &'static str, text: &str, known: &[&'static str]) -> Reason {
    match nearest(text, known.iter().copied()) {
        Some(nearest) => Reason::KeyMisspelled { what, nearest },
        None => Reason::KeyUnknown {
            what,
            known: known.join(", "),
        },
    }
}

impl From<NameError> for Reason {
    fn from(error: NameError) -> Self {
        Reason::NameInvalid {
            error: error.to_string(),
        }
    }
}

/// An address as users write it. Without a prefix length, `default_prefix` decides.
fn address(text: &str, default_prefix: bool) -> Result<IpNet, Reason> {
    let refuse = || {
        let text = text.to_owned();
        match default_prefix {
            true => Reason::AddressInvalid { text },
            false => Reason::AddressWithPrefixInvalid { text },
        }
    };
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) if default_prefix => {
            let address: std::net::IpAddr = text.parse().map_err(|_| refuse())?;
            // /24 as in 2017; /64 is what an IPv6 subnet has (RFC 4291, section 2.5.4).
            let prefix = if address.is_ipv4() { 24 } else { 64 };
            IpNet::new(address, prefix).map_err(|_| refuse())?
        }
        Err(_) => return Err(refuse()),
    };
    let ip = net.addr();
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
        return Err(Reason::AddressUnusable {
            text: text.to_owned(),
        });
    }
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn texts(pairs: &[(&str, &str)]) -> Texts {
        pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect()
    }

    #[test]
    fn only_true_makes_a_pod_ours() {
        for (labels, annotations, ours) in [
            (texts(&[]), texts(&[]), false),
            (texts(&[("ratchet", "true")]), texts(&[]), true),
            (texts(&[("ratchet", "True")]), texts(&[]), false),
            (
                texts(&[("ratchet", "yes"), ("ratchet.local_ip", "bad")]),
                texts(&[]),
                false,
            ),
            (texts(&[]), texts(&[("ratchet", "true")]), true),
            (texts(&[]), texts(&[(LINKS, "[]")]), true),
        ] {
            assert_eq!(
                is_eligible(&labels, &annotations),
                ours,
                "{labels:?} {annotations:?}"
            );
            let pod = PodKey::new("default", "p").unwrap();
            assert_eq!(
                declare(&pod, &labels, &annotations).unwrap().is_some(),
                ours
            );
        }
    }

    #[test]
    fn two_forms_may_not_claim_one_interface() {
        let pod = PodKey::new("default", "p").unwrap();
        let labels = texts(&[
            ("ratchet", "true"),
            ("ratchet.primary", "true"),
            ("ratchet.local_ifname", "in1"),
            ("ratchet.pair_name", "q"),
            ("ratchet.pair_ifname", "in2"),
        ]);
        let annotations = texts(&[(LINKS, "[{interface: in1, peer: r/in9}]")]);
        let error = declare(&pod, &labels, &annotations)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "pod default/p: interface in1 of pod default/p: is claimed by two links, the one \
            between default/p/in1 \
             and default/q/in2 and the one to default/r/in9: give each link an interface of its own"
        );
    }

    #[test]
    fn addresses_have_a_prefix_or_get_that_of_2017() {
        assert_eq!(
            address("192.168.2.100", true).unwrap().to_string(),
            "192.168.2.100/24"
        );
        assert_eq!(address("fd00::1", true).unwrap().to_string(), "fd00::1/64");
        assert_eq!(
            address("10.0.0.1/30", true).unwrap().to_string(),
            "10.0.0.1/30"
        );
        for (bad, default_prefix) in [
            ("10.0.0.1", false),
            ("10.0.0.256/24", true),
            ("10.0.0.1/33", true),
            ("", true),
            ("224.0.0.1/4", true),
            ("::/0", true),
            ("127.0.0.1/8", true),
        ] {
            assert!(address(bad, default_prefix).is_err(), "{bad}");
        }
    }
}
