//! The annotation `ratchet.dev/links`: a YAML or JSON list with one entry a link.

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::{DeclarationError, Reader, Texts, address};
use crate::{
    link::{DeclaredEnd, DeclaredLink, Mac, Mtu, Route, Vni},
    names::{InterfaceName, PodKey},
    nearest,
};

/// The annotation that declares links.
pub const LINKS: &str = "ratchet.dev/links";

/// The annotation with the commands that `ratchet lab` runs in the pod's place.
pub const LAB_RUN: &str = "ratchet.dev/lab-run";

/// All annotations in our domain.
const DOMAIN: &str = "ratchet.dev/";
const KNOWN: [&str; 2] = [LINKS, LAB_RUN];

const FIELDS: [&str; 10] = [
    "interface",
    "peer",
    "addresses",
    "peerAddresses",
    "mac",
    "peerMac",
    "routes",
    "peerRoutes",
    "mtu",
    "vni",
];

/// An entry as it is written; names are checked before, for the sake of better errors than serde's.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    interface: InterfaceName,
    peer: String,
    addresses: Option<Vec<String>>,
    peer_addresses: Option<Vec<String>>,
    mac: Option<Mac>,
    peer_mac: Option<Mac>,
    routes: Option<Vec<Route>>,
    peer_routes: Option<Vec<Route>>,
    mtu: Option<Mtu>,
    vni: Option<Vni>,
}

/// The links that the annotation declares.
pub(super) fn links(
    reader: Reader<'_>,
    annotations: &Texts,
) -> Result<Vec<DeclaredLink>, DeclarationError> {
    for key in annotations.keys().filter(|key| key.starts_with(DOMAIN)) {
        if !KNOWN.contains(&key.as_str()) {
            let hint = nearest(key, KNOWN).unwrap_or(LINKS);
            return Err(reader.error(
                format!("annotation {key}"),
                format!("there is no such key; did you mean {hint}?"),
            ));
        }
    }
    let Some(text) = annotations.get(LINKS) else {
        return Ok(Vec::new());
    };
    let whole = || format!("annotation {LINKS}");
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let entries = match serde_yaml_ng::from_str::<Value>(text) {
        Ok(Value::Array(entries)) => entries,
        Ok(Value::Null) => return Ok(Vec::new()),
        Ok(_) => {
            return Err(reader.error(
                whole(),
                "expected a list with one entry a link, such as [{interface: eth1, peer: r2/eth1}]",
            ));
        }
        Err(e) => return Err(reader.error(whole(), format!("is neither YAML nor JSON: {e}"))),
    };
    entries
        .into_iter()
        .enumerate()
        .map(|(index, entry)| entry_to_link(reader, &format!("{}[{index}]", whole()), entry))
        .collect()
}

fn entry_to_link(
    reader: Reader<'_>,
    key: &str,
    entry: Value,
) -> Result<DeclaredLink, DeclarationError> {
    check_fields(reader, key, &entry)?;
    let entry: Entry = serde_json::from_value(entry).map_err(|e| reader.error(key, e))?;
    let peer_key = format!("{key}.peer");
    let (peer, peer_interface) =
        peer(reader.pod, &entry.peer, &entry.interface).map_err(|e| reader.error(&peer_key, e))?;
    if peer == *reader.pod && peer_interface == entry.interface {
        return Err(reader.error(
            peer_key,
            format!(
                "{:?} is this very interface: a link needs two ends (a link within one pod: name \
                 another interface)",
                entry.peer
            ),
        ));
    }
    let addresses = |field, texts| addresses(reader, format!("{key}.{field}"), texts);
    let routes = |field, routes| check_routes(reader, format!("{key}.{field}"), routes);
    Ok(DeclaredLink {
        local: DeclaredEnd {
            pod: reader.pod.clone(),
            interface: entry.interface,
            addresses: addresses("addresses", entry.addresses)?,
            mac: entry.mac,
            routes: routes("routes", entry.routes)?,
        },
        remote: DeclaredEnd {
            pod: peer,
            interface: peer_interface,
            addresses: addresses("peerAddresses", entry.peer_addresses)?,
            mac: entry.peer_mac,
            routes: routes("peerRoutes", entry.peer_routes)?,
        },
        mtu: entry.mtu,
        vni: entry.vni,
    })
}

/// Refuses an entry that is no object or has a field that does not exist.
fn check_fields(reader: Reader<'_>, key: &str, entry: &Value) -> Result<(), DeclarationError> {
    let Value::Object(fields) = entry else {
        return Err(reader.error(
            key,
            "expected fields such as interface: eth1, peer: r2/eth1",
        ));
    };
    for field in fields.keys() {
        if !FIELDS.contains(&field.as_str()) {
            let hint = match nearest(field, FIELDS) {
                Some(known) => format!("there is no such field; did you mean {known}?"),
                None => format!(
                    "there is no such field; the known ones are {}",
                    FIELDS.join(", ")
                ),
            };
            return Err(reader.error(format!("{key}.{field}"), hint));
        }
    }
    Ok(())
}

fn addresses(
    reader: Reader<'_>,
    key: String,
    texts: Option<Vec<String>>,
) -> Result<Option<Vec<IpNet>>, DeclarationError> {
    let read = |(index, text): (usize, &String)| {
        address(text, false).map_err(|e| reader.error(format!("{key}[{index}]"), e))
    };
    texts
        .map(|texts| texts.iter().enumerate().map(read).collect())
        .transpose()
}

fn check_routes(
    reader: Reader<'_>,
    key: String,
    routes: Option<Vec<Route>>,
) -> Result<Option<Vec<Route>>, DeclarationError> {
    for (index, route) in routes.iter().flatten().enumerate() {
        if route
            .via
            .is_some_and(|via| via.is_ipv4() != route.dst.addr().is_ipv4())
        {
            return Err(reader.error(
                format!("{key}[{index}]"),
                "dst and via must both be IPv4 or both IPv6",
            ));
        }
    }
    Ok(routes)
}

/// Reads `pod`, `pod/interface` or `namespace/pod/interface`. Two parts always are pod and
/// interface: a peer in another namespace is written with all three.
fn peer(
    own: &PodKey,
    text: &str,
    interface: &InterfaceName,
) -> Result<(PodKey, InterfaceName), String> {
    let parts: Vec<&str> = text.split('/').collect();
    let (namespace, pod, peer_interface) = match parts[..] {
        [pod] => (own.namespace(), pod, None),
        [pod, interface] => (own.namespace(), pod, Some(interface)),
        [namespace, pod, interface] => (namespace, pod, Some(interface)),
        _ => {
            return Err(format!(
                "{text:?}: expected pod, pod/interface or namespace/pod/interface"
            ));
        }
    };
    let pod = PodKey::new(namespace, pod).map_err(|e| e.to_string())?;
    let interface = match peer_interface {
        None => interface.clone(),
        Some(name) => name.parse().map_err(|e: crate::NameError| e.to_string())?,
    };
    Ok((pod, interface))
}

#[cfg(test)]
mod tests {
    use super::super::{declare, tests::texts};
    use super::*;

    fn read(text: &str) -> Result<Vec<DeclaredLink>, String> {
        let pod = PodKey::new("lab", "r1").unwrap();
        declare(&pod, &Texts::new(), &texts(&[(LINKS, text)]))
            .map(|d| d.unwrap().links)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn a_full_entry_in_yaml_and_a_short_one_in_json() {
        let links = read(
            "- interface: eth1\n  peer: other/r2/eth7\n  addresses: [10.0.0.1/30, 'fd00::1/64']\n  \
            peerAddresses: [10.0.0.2/30]\n  \
             mac: 02:00:00:00:00:01\n  mtu: 1400\n  vni: 77\n  routes: [{dst: 10.9.0.0/16, via: \
             10.0.0.2, metric: 5}]\n",
        )
        .unwrap();
        let link = &links[0];
        assert_eq!(link.remote.pod.to_string(), "other/r2");
        assert_eq!(link.remote.interface.as_str(), "eth7");
        assert_eq!(link.local.addresses.as_ref().unwrap().len(), 2);
        assert_eq!(
            (link.mtu.unwrap().bytes(), link.vni.unwrap().number()),
            (1400, 77)
        );
        assert_eq!(link.local.routes.as_ref().unwrap()[0].metric, Some(5));

        let links = read(r#"[{"interface":"eth1","peer":"r2"}]"#).unwrap();
        assert_eq!(links[0].remote.pod.to_string(), "lab/r2");
        assert_eq!(links[0].remote.interface.as_str(), "eth1");
        assert_eq!(links[0].local.addresses, None);
    }

    #[test]
    fn none_is_a_declaration_too() {
        for empty in ["", "[]", "~", "\n"] {
            assert_eq!(read(empty).unwrap(), [], "{empty:?}");
        }
    }

    #[test]
    fn a_pod_may_link_to_itself() {
        let links = read("[{interface: eth1, peer: r1/eth2}]").unwrap();
        assert_eq!(links[0].remote.pod, links[0].local.pod);
    }

    #[test]
    fn errors_name_the_entry_and_field() {
        for (text, expected) in [
            (
                "[{interface: eth1, peer: r1}]",
                "annotation ratchet.dev/links[0].peer: \"r1\" is this very interface",
            ),
            (
                "[{interface: eth1, pear: r2}]",
                "annotation ratchet.dev/links[0].pear: there is no such field; did you mean peer?",
            ),
            (
                "[{interface: eth1, peer: r2}, {interface: eth1, peer: r3}]",
                "is claimed by two links",
            ),
            (
                "[{interface: eth1, peer: a/b/c/d}]",
                "expected pod, pod/interface or namespace/pod/interface",
            ),
            (
                "[{interface: eth1, peer: r2, addresses: [10.0.0.1]}]",
                "ratchet.dev/links[0].addresses[0]: \"10.0.0.1\" is not an address: expected an \
                 IPv4 or IPv6 address with its prefix length",
            ),
            (
                "[{interface: eth1, peer: r2, mtu: 9}]",
                "MTU 9: expected 68 to 65535",
            ),
            (
                "[{interface: eth1, peer: r2, vni: 16777216}]",
                "VNI 16777216: expected 1 to 16777215",
            ),
            (
                "[{interface: eth1, peer: r2, mac: '01:00:00:00:00:00'}]",
                "multicast",
            ),
            ("[{interface: 'a b', peer: r2}]", "interface name \"a b\""),
            ("[{peer: r2}]", "missing field `interface`"),
            (
                "[{interface: eth1, peer: r2, routes: [{dst: 10.0.0.0/8, via: 'fd00::1'}]}]",
                "must both be IPv4 or both IPv6",
            ),
            ("{interface: eth1}", "expected a list with one entry a link"),
            ("[", "is neither YAML nor JSON"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{error}\n  lacks: {expected}");
        }
        let error = declare(
            &PodKey::new("lab", "r1").unwrap(),
            &Texts::new(),
            &texts(&[("ratchet", "true"), ("ratchet.dev/link", "[]")]),
        );
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("did you mean ratchet.dev/links?")
        );
    }
}
