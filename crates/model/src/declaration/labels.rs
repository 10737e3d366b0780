//! The 2017 form: the labels `ratchet.*`, which say at most one link a pod.
//!
//! The same keys are read as annotations, where values may hold what a label's may not: `/` and
//! `:`.

use std::collections::BTreeMap;

use super::{DeclarationError, Reader, Texts, address, no_such};
use crate::{
    link::{DeclaredEnd, DeclaredLink},
    names::{InterfaceName, NameError, PodKey},
    reason::Reason,
};

/// The key that makes a pod Ratchet's.
pub(super) const ELIGIBLE: &str = "ratchet";

const PREFIX: &str = "ratchet.";
const POD_NAME: &str = "ratchet.pod_name";
const PRIMARY: &str = "ratchet.primary";
const LOCAL_IFNAME: &str = "ratchet.local_ifname";
const LOCAL_IP: &str = "ratchet.local_ip";
const PAIR_NAME: &str = "ratchet.pair_name";
const PAIR_NAMESPACE: &str = "ratchet.pair_namespace";
const PAIR_IFNAME: &str = "ratchet.pair_ifname";
const PAIR_IP: &str = "ratchet.pair_ip";

/// All keys. `target_pod`, `target_container` and `public_ip` are of 2017, when they named the
/// Docker container; they are accepted and not used. `pair_namespace` is new.
const KNOWN: [&str; 12] = [
    ELIGIBLE,
    POD_NAME,
    PRIMARY,
    LOCAL_IFNAME,
    LOCAL_IP,
    PAIR_NAME,
    PAIR_NAMESPACE,
    PAIR_IFNAME,
    PAIR_IP,
    "ratchet.target_pod",
    "ratchet.target_container",
    "ratchet.public_ip",
];

/// A value, and the label or annotation that has it.
pub(super) struct Found<'a> {
    value: &'a str,
    key: String,
}

/// Ratchet's keys of a pod, from labels and annotations together.
pub(super) type Keys<'a> = BTreeMap<&'a str, Found<'a>>;

/// Gathers the keys from labels and annotations.
pub(super) fn gather<'a>(
    reader: Reader<'_>,
    labels: &'a Texts,
    annotations: &'a Texts,
) -> Result<Keys<'a>, DeclarationError> {
    let mut keys = Keys::new();
    let mut bytes = 0;
    for (what, texts) in [("label", labels), ("annotation", annotations)] {
        for (key, value) in texts {
            if key != ELIGIBLE && !key.starts_with(PREFIX) || key.contains('/') {
                continue;
            }
            let written = format!("{what} {key}");
            bytes += key.len() + value.len();
            if bytes > reader.quotas.bytes() {
                let limit = reader.quotas.bytes();
                return Err(reader.error(written, Reason::LabelsTooLarge { bytes, limit }));
            }
            if !KNOWN.contains(&key.as_str()) {
                return Err(reader.error(written, no_such("key", key, &KNOWN)));
            }
            if let Some(first) = keys.get(key.as_str())
                && first.value != value
                && key != ELIGIBLE
            {
                let reason = Reason::LabelAndAnnotationDiffer {
                    value: value.clone(),
                    first_key: first.key.clone(),
                    first_value: first.value.to_owned(),
                };
                return Err(reader.error(written, reason));
            }
            keys.insert(
                key,
                Found {
                    value,
                    key: written,
                },
            );
        }
    }
    Ok(keys)
}

/// The name by which links know this pod.
pub(super) fn pod_name(reader: Reader<'_>, keys: &Keys<'_>) -> Result<PodKey, DeclarationError> {
    match keys.get(POD_NAME) {
        None => Ok(reader.pod.clone()),
        Some(found) => PodKey::new(reader.pod.namespace(), found.value)
            .map_err(|e| reader.error(&found.key, e.into())),
    }
}

/// The link that the pod declares as the primary of a pair, if it is one.
pub(super) fn link(
    reader: Reader<'_>,
    keys: &Keys<'_>,
) -> Result<Option<DeclaredLink>, DeclarationError> {
    if !is_primary(reader, keys)? {
        return Ok(None);
    }
    let interface = |key: &str| {
        let found = need(reader, keys, key)?;
        let parsed: Result<InterfaceName, NameError> = found.value.parse();
        parsed.map_err(|e| reader.error(&found.key, e.into()))
    };
    let addresses = |key: &str| {
        let read = |found: &Found<'_>| {
            address(found.value, true)
                .map(|net| vec![net])
                .map_err(|e| reader.error(&found.key, e))
        };
        keys.get(key).map(read).transpose()
    };
    let pair = pair(reader, keys)?;
    Ok(Some(DeclaredLink::new(
        DeclaredEnd {
            addresses: addresses(LOCAL_IP)?,
            ..DeclaredEnd::bare(reader.pod.clone(), interface(LOCAL_IFNAME)?)
        },
        DeclaredEnd {
            addresses: addresses(PAIR_IP)?,
            ..DeclaredEnd::bare(pair, interface(PAIR_IFNAME)?)
        },
    )))
}

/// Whether the pod is the one of its pair that declares the link.
fn is_primary(reader: Reader<'_>, keys: &Keys<'_>) -> Result<bool, DeclarationError> {
    let Some(primary) = keys.get(PRIMARY) else {
        return match keys.get(PAIR_NAME) {
            None => Ok(false),
            Some(found) => Err(reader.error(&found.key, Reason::PrimaryMissing {})),
        };
    };
    match primary.value {
        "true" => Ok(true),
        "false" => Ok(false),
        other => {
            let value = other.to_owned();
            Err(reader.error(&primary.key, Reason::PrimaryInvalid { value }))
        }
    }
}

/// A key that a primary must have.
fn need<'k, 'a>(
    reader: Reader<'_>,
    keys: &'k Keys<'a>,
    key: &str,
) -> Result<&'k Found<'a>, DeclarationError> {
    keys.get(key).ok_or_else(|| {
        let reason = Reason::KeyMissing {
            given: keys.keys().copied().collect::<Vec<_>>().join(", "),
        };
        reader.error(key, reason)
    })
}

/// The pod at the other end.
fn pair(reader: Reader<'_>, keys: &Keys<'_>) -> Result<PodKey, DeclarationError> {
    let found = need(reader, keys, PAIR_NAME)?;
    let (namespace, name) = match (found.value.split_once('/'), keys.get(PAIR_NAMESPACE)) {
        (Some((namespace, name)), _) => (namespace, name),
        (None, Some(namespace)) => (namespace.value, found.value),
        (None, None) => (reader.pod.namespace(), found.value),
    };
    let pair = PodKey::new(namespace, name).map_err(|e| reader.error(&found.key, e.into()))?;
    if pair == *reader.pod {
        let reason = Reason::PairIsItself {
            text: found.value.to_owned(),
        };
        return Err(reader.error(&found.key, reason));
    }
    Ok(pair)
}

#[cfg(test)]
mod tests {
    use super::super::{declare, tests::texts};
    use super::*;

    const ARTICLE: &[(&str, &str)] = &[
        ("app", "primary-pod"),
        ("ratchet", "true"),
        ("ratchet.pod_name", "primary-pod"),
        ("ratchet.target_pod", "primary-pod"),
        ("ratchet.target_container", "primary-pod"),
        ("ratchet.public_ip", "1.1.1.1"),
        ("ratchet.local_ip", "192.168.2.100"),
        ("ratchet.local_ifname", "in1"),
        ("ratchet.pair_name", "pair-pod"),
        ("ratchet.pair_ip", "192.168.2.101"),
        ("ratchet.pair_ifname", "in2"),
        ("ratchet.primary", "true"),
    ];

    fn pod() -> PodKey {
        PodKey::new("default", "primary-pod").unwrap()
    }

    /// The error of the article's labels with some changed (`""` removes).
    fn error(changes: &[(&str, &str)]) -> String {
        let mut labels = texts(ARTICLE);
        for (key, value) in changes {
            labels.remove(*key);
            if !value.is_empty() {
                labels.insert(key.to_string(), value.to_string());
            }
        }
        declare(&pod(), &labels, &Texts::new())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn the_articles_labels() {
        let declared = declare(&pod(), &texts(ARTICLE), &Texts::new())
            .unwrap()
            .unwrap();
        let link = &declared.links[0];
        assert_eq!(declared.pod, pod());
        assert_eq!(link.local.interface.as_str(), "in1");
        assert_eq!(
            link.local.addresses.as_ref().unwrap()[0].to_string(),
            "192.168.2.100/24"
        );
        assert_eq!(link.remote.pod.to_string(), "default/pair-pod");
        assert_eq!(link.remote.interface.as_str(), "in2");
        assert_eq!(
            link.remote.addresses.as_ref().unwrap()[0].to_string(),
            "192.168.2.101/24"
        );
    }

    #[test]
    fn the_pair_declares_nothing() {
        let labels = texts(&[
            ("ratchet", "true"),
            ("ratchet.pod_name", "pair-pod"),
            ("ratchet.primary", "false"),
        ]);
        let declared = declare(
            &PodKey::new("default", "x").unwrap(),
            &labels,
            &Texts::new(),
        )
        .unwrap()
        .unwrap();
        assert_eq!(
            (declared.pod.to_string().as_str(), declared.links.len()),
            ("default/pair-pod", 0)
        );
    }

    #[test]
    fn annotations_hold_what_labels_cannot() {
        let mut annotations = texts(ARTICLE);
        annotations.insert("ratchet.local_ip".into(), "fd00::1/127".into());
        annotations.insert("ratchet.pair_name".into(), "lab/pair-pod".into());
        let declared = declare(&pod(), &Texts::new(), &annotations)
            .unwrap()
            .unwrap();
        assert_eq!(
            declared.links[0].local.addresses.as_ref().unwrap()[0].to_string(),
            "fd00::1/127"
        );
        assert_eq!(declared.links[0].remote.pod.to_string(), "lab/pair-pod");
    }

    #[test]
    fn errors_name_the_label_and_what_to_do() {
        for (changes, expected) in [
            (
                &[("ratchet.local_ip", "192.168.2.300")][..],
                "label ratchet.local_ip: \"192.168.2.300\" is not an address: expected an IPv4 or \
                 IPv6 address",
            ),
            (
                &[("ratchet.local_ifname", "a-name-of-sixteen")],
                "label ratchet.local_ifname: interface name \"a-name-of-sixteen\": expected 1 to \
                 15 bytes",
            ),
            (
                &[("ratchet.local_ifname", "in%d")],
                "interface name \"in%d\": expected no '/', ':', '%'",
            ),
            (
                &[("ratchet.pair_ifname", "in/2")],
                "label ratchet.pair_ifname: interface name \"in/2\"",
            ),
            (
                &[("ratchet.pair_name", "primary-pod")],
                "label ratchet.pair_name: \"primary-pod\" is this pod itself",
            ),
            (
                &[("ratchet.local_ifnam", "in1")],
                "label ratchet.local_ifnam: there is no such key: did you mean \
                 ratchet.local_ifname?",
            ),
            (
                &[("ratchet.pair_ifname", "")],
                "ratchet.pair_ifname: is missing",
            ),
            (
                &[("ratchet.primary", "yes")],
                "label ratchet.primary: is \"yes\": expected \"true\"",
            ),
            (
                &[("ratchet.primary", "")],
                "label ratchet.pair_name: is given without ratchet.primary",
            ),
            (
                &[("ratchet.pod_name", "a b")],
                "label ratchet.pod_name: pod name \"a b\"",
            ),
        ] {
            let error = error(changes);
            assert!(error.contains(expected), "{error}\n  lacks: {expected}");
            assert!(error.starts_with("pod default/"), "{error}");
        }
    }

    #[test]
    fn a_label_and_an_annotation_must_agree() {
        let annotations = texts(&[("ratchet.local_ip", "10.9.9.9")]);
        let error = declare(&pod(), &texts(ARTICLE), &annotations)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(
                "annotation ratchet.local_ip: is \"10.9.9.9\", but the label ratchet.local_ip is \
                 \"192.168.2.100\""
            ),
            "{error}"
        );
    }
}
