//! The annotation `ratchet.dev/links`: a YAML or JSON list with one entry a link.

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::{
    ACCEPT, DeclarationError, Reader, Texts, address, no_such,
    yaml::{self, Budget, ReadError},
};
use crate::{
    WiringKind,
    link::{DeclaredEnd, DeclaredLink, Mac, Mtu, Route, Vni},
    names::{InterfaceName, PodKey},
    nearest,
    reason::Reason,
};

/// The annotation that declares links.
pub const LINKS: &str = "ratchet.dev/links";

/// The annotation with the commands that `ratchet lab` runs in the pod's place.
pub const LAB_RUN: &str = "ratchet.dev/lab-run";

/// All annotations in our domain.
const DOMAIN: &str = "ratchet.dev/";
const KNOWN: [&str; 3] = [LINKS, ACCEPT, LAB_RUN];

const FIELDS: [&str; 11] = [
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
    "wiring",
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
    wiring: Option<WiringKind>,
}

/// The links that the annotation declares.
pub(super) fn links(
    reader: Reader<'_>,
    annotations: &Texts,
) -> Result<Vec<DeclaredLink>, DeclarationError> {
    for key in annotations.keys().filter(|key| key.starts_with(DOMAIN)) {
        if !KNOWN.contains(&key.as_str()) {
            let reason = Reason::KeyMisspelled {
                what: "key",
                nearest: nearest(key, KNOWN).unwrap_or(LINKS),
            };
            return Err(reader.error(format!("annotation {key}"), reason));
        }
    }
    let Some(text) = annotations.get(LINKS) else {
        return Ok(Vec::new());
    };
    let whole = format!("annotation {LINKS}");
    let quotas = reader.quotas;
    let budget = Budget {
        bytes: quotas.bytes(),
        values: quotas.values(),
    };
    let read = |index: usize, entry| {
        if index >= quotas.links {
            let limit = quotas.links;
            return Err(reader.error(format!("{whole}[{index}]"), Reason::TooManyLinks { limit }));
        }
        entry_to_link(reader, &format!("{whole}[{index}]"), entry)
    };
    yaml::list(text, budget, read).map_err(|error| match error {
        ReadError::Text(reason) => reader.error(&whole, reason),
        ReadError::Element(error) => error,
    })
}

fn entry_to_link(
    reader: Reader<'_>,
    key: &str,
    entry: Value,
) -> Result<DeclaredLink, DeclarationError> {
    check_fields(reader, key, &entry)?;
    let entry: Entry = serde_json::from_value(entry).map_err(|e| {
        let error = e.to_string();
        reader.error(key, Reason::EntryInvalid { error })
    })?;
    let peer_key = format!("{key}.peer");
    let (peer, peer_interface) =
        peer(reader.pod, &entry.peer, &entry.interface).map_err(|e| reader.error(&peer_key, e))?;
    if peer == *reader.pod && peer_interface == entry.interface {
        return Err(reader.error(peer_key, Reason::PeerIsItself { text: entry.peer }));
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
        wiring: entry.wiring,
        since: 0,
        identity: None,
    })
}

/// Refuses an entry that is no object or has a field that does not exist.
fn check_fields(reader: Reader<'_>, key: &str, entry: &Value) -> Result<(), DeclarationError> {
    let Value::Object(fields) = entry else {
        return Err(reader.error(key, Reason::EntryNoFields {}));
    };
    for field in fields.keys() {
        if !FIELDS.contains(&field.as_str()) {
            let reason = no_such("field", field, &FIELDS);
            return Err(reader.error(format!("{key}.{field}"), reason));
        }
    }
    Ok(())
}

fn addresses(
    reader: Reader<'_>,
    key: String,
    texts: Option<Vec<String>>,
) -> Result<Option<Vec<IpNet>>, DeclarationError> {
    let count = texts.as_ref().map_or(0, Vec::len);
    at_most(reader, &key, count, reader.quotas.addresses, "addresses")?;
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
    let count = routes.as_ref().map_or(0, Vec::len);
    at_most(reader, &key, count, reader.quotas.routes, "routes")?;
    for (index, route) in routes.iter().flatten().enumerate() {
        if route
            .via
            .is_some_and(|via| via.is_ipv4() != route.dst.addr().is_ipv4())
        {
            return Err(reader.error(format!("{key}[{index}]"), Reason::RouteInvalid {}));
        }
    }
    Ok(routes)
}

/// Refuses more of something than an end may have. `what` is also the end of the setting's name.
fn at_most(
    reader: Reader<'_>,
    key: &str,
    count: usize,
    most: usize,
    what: &'static str,
) -> Result<(), DeclarationError> {
    if count <= most {
        return Ok(());
    }
    Err(reader.error(key, Reason::TooManyOfAnEnd { count, what, most }))
}

/// Reads `pod`, `pod/interface` or `namespace/pod/interface`. Two parts always are pod and
/// interface: a peer in another namespace is written with all three.
fn peer(
    own: &PodKey,
    text: &str,
    interface: &InterfaceName,
) -> Result<(PodKey, InterfaceName), Reason> {
    let parts: Vec<&str> = text.split('/').collect();
    let (namespace, pod, peer_interface) = match parts[..] {
        [pod] => (own.namespace(), pod, None),
        [pod, interface] => (own.namespace(), pod, Some(interface)),
        [namespace, pod, interface] => (namespace, pod, Some(interface)),
        _ => {
            let text = text.to_owned();
            return Err(Reason::PeerInvalid { text });
        }
    };
    let pod = PodKey::new(namespace, pod)?;
    let interface = match peer_interface {
        None => interface.clone(),
        Some(name) => name.parse()?,
    };
    Ok((pod, interface))
}

#[cfg(test)]
mod tests;
