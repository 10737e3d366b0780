//! The ends of a link as devices: in a sandbox, and parked.

use std::net::IpAddr;

use crate::{
    device::{Alias, Configuration, Netns, Part, WantedEnd, config_digest},
    link::{End, Endpoint, Mac, Mtu},
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
            part: Part::Pod,
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
            part: Part::Pod,
            sandbox: None,
            config: Alias::UNFINISHED,
        },
    }
}

/// A device of an end in the node's namespace, which pods do not see.
pub(super) fn on_node(
    link: LinkId,
    end: End,
    part: Part,
    sandbox: &SandboxId,
    mtu: Mtu,
) -> WantedEnd {
    let mac = Mac::of_part(link, end, part);
    WantedEnd {
        netns: Netns::Node,
        name: name_on_node(link, end, part),
        mac,
        mtu,
        addresses: Vec::new(),
        routes: Vec::new(),
        up: true,
        alias: Alias {
            link,
            end,
            part,
            sandbox: Some(sandbox.clone()),
            config: config_digest(&Configuration {
                mac,
                mtu,
                addresses: &[],
                routes: &[],
            }),
        },
    }
}

/// The name of a device in the node's namespace: two letters (`rt`: an interface that waits for its
/// pod, `rn`: the other end of a pod's veth, `rx`: a VXLAN device), the end, and the first 12 hex
/// digits of the link's id, 15 bytes in all. If two links ever share them, the second waits; an
/// interface of it is not parked but created again.
pub fn name_on_node(link: LinkId, end: End, part: Part) -> String {
    let letter = match part {
        Part::Pod => 't',
        Part::Node => 'n',
        Part::Tunnel => 'x',
    };
    format!("r{letter}{end}{:012x}", link.number() >> 16)
}

/// The names of all devices that a link may have in the node's namespace.
pub fn names_on_node(link: LinkId) -> impl Iterator<Item = String> {
    let parts = || Part::ALL.into_iter();
    let ends = End::BOTH.into_iter();
    ends.flat_map(move |end| parts().map(move |part| name_on_node(link, end, part)))
}

/// The name of a parked end.
pub fn parked_name(link: LinkId, end: End) -> String {
    name_on_node(link, end, Part::Pod)
}
