//! The ends of a link as devices: in a sandbox, and parked.

use std::net::IpAddr;

use crate::{
    device::{Alias, Configuration, Netns, WantedEnd, config_digest},
    link::{End, Endpoint, Mtu},
    names::{LinkId, SandboxId},
    resolve::Link,
};

/// An end in its pod's sandbox.
pub(super) fn in_sandbox(link: &Link, end: End, sandbox: &SandboxId, mtu: Mtu) -> WantedEnd {
    let Endpoint {
        interface,
        addresses,
        mac,
        routes,
        ..
    } = link.endpoint(end).clone();
    WantedEnd {
        netns: Netns::Sandbox(sandbox.clone()),
        name: interface.to_string(),
        mac,
        mtu,
        alias: Alias {
            link: link.id,
            end,
            sandbox: Some(sandbox.clone()),
            config: config_digest(&Configuration {
                mac,
                mtu,
                addresses: &addresses,
                routes: &routes,
            }),
        },
        addresses,
        routes,
        up: true,
    }
}

/// An end in the node's namespace, while its pod is gone.
pub fn parked(link: &Link, end: End) -> WantedEnd {
    let mac = link.endpoint(end).mac;
    WantedEnd {
        netns: Netns::Node,
        name: parked_name(link.id, end),
        mac,
        // A parked end keeps the MTU that it has.
        mtu: Mtu::within_underlay(0, IpAddr::from([0, 0, 0, 0])),
        addresses: Vec::new(),
        routes: Vec::new(),
        up: false,
        alias: Alias {
            link: link.id,
            end,
            sandbox: None,
            config: Alias::UNFINISHED,
        },
    }
}

/// The name of a parked end: `rt`, the end, and the first 12 hex digits of the link's id, 15 bytes
/// in all. If two links ever share them, the second is not parked but created again.
pub fn parked_name(link: LinkId, end: End) -> String {
    format!("rt{end}{:012x}", link.number() >> 16)
}
