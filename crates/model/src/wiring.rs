//! The direct wiring: the pod's interface is the veth end or the VXLAN device itself.
//!
//! A wiring turns "this link, these two places" into the kernel objects that this node wants. It
//! decides kinds, names and parameters; what is there already is not its business but the
//! planner's.

use std::{fmt, net::IpAddr};

use crate::{
    device::{Alias, Netns, Tunnel, VXLAN_PORT, Wanted, WantedEnd, config_digest},
    link::{End, Endpoint, Mtu, Vni},
    names::{LinkId, NodeName, SandboxId},
    resolve::Link,
};

/// This node, as far as wiring goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Where its tunnels end.
    pub vtep: IpAddr,
    /// Index of the parent interface.
    pub parent: u32,
    /// The greatest link MTU for which a tunnel has room.
    pub mtu: Mtu,
    /// The MTU that links get unless their declaration says otherwise (`mtu` of the config).
    pub default_mtu: Option<Mtu>,
}

/// Where one end's pod is, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a sandbox of this node.
    Here(SandboxId),
    /// On another node.
    There {
        /// That node.
        node: NodeName,
        /// Where its tunnels end.
        vtep: IpAddr,
        /// The greatest link MTU for which its underlay has room.
        mtu: Mtu,
    },
    /// The pod was there and has gone.
    Gone,
    /// Nobody has heard of the pod.
    Unknown,
    /// Its record says it is on this node, but this agent has no such sandbox.
    Lost(SandboxId),
}

/// What is known about a link's VNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VniState {
    /// None has been claimed.
    None,
    /// This is it.
    Granted(Vni),
    /// The one it insists on is another link's.
    TakenBy(Vni, LinkId),
}

/// What comes of a link on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    /// The kernel object to have; none: nothing is made and nothing kept.
    pub wanted: Option<Wanted>,
    /// What it is waiting for, or why it cannot be.
    pub obstacle: Option<Obstacle>,
}

/// Why a link is not up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// Something is yet to come.
    Waiting(String),
    /// The other pod, of which nobody has heard, is yet to come.
    Unheard(String),
    /// Somebody has to mend something.
    Error(String),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Waiting(text) | Obstacle::Unheard(text) | Obstacle::Error(text) => {
                f.write_str(text)
            }
        }
    }
}

/// Whether the link spans this node and another one, and so needs a VNI.
pub fn needs_vni(link: &Link, places: &[Place; 2]) -> bool {
    link.problem.is_none()
        && matches!(
            places,
            [Place::Here(_), Place::There { .. }] | [Place::There { .. }, Place::Here(_)]
        )
}

/// Wires one link directly.
pub fn direct(link: &Link, places: &[Place; 2], vni: VniState, node: &Node) -> Wiring {
    let [place_a, place_z] = places;
    let (here, there, sandbox, elsewhere) = match (place_a, place_z) {
        (Place::Here(a), Place::Here(z)) => return both_here(link, a, z, node),
        (Place::Here(sandbox), elsewhere) => (End::A, End::Z, sandbox, elsewhere),
        (elsewhere, Place::Here(sandbox)) => (End::Z, End::A, sandbox, elsewhere),
        _ => {
            return Wiring {
                wanted: None,
                obstacle: None,
            };
        }
    };
    let peer = &link.endpoint(there).pod;
    let hold = |obstacle: Obstacle| Wiring {
        wanted: Some(Wanted::Hold {
            survivor: end(link, here, sandbox, own_mtu(link, node)),
            parked: parked(link, there),
        }),
        obstacle: Some(obstacle),
    };
    let waiting = |reason: String| hold(Obstacle::Waiting(reason));
    if let Some(problem) = &link.problem {
        // The other pod may be about to go and take its end of a veth with it.
        return match elsewhere {
            Place::There { .. } => frozen(link, problem.clone()),
            _ => hold(Obstacle::Error(problem.clone())),
        };
    }
    match elsewhere {
        Place::There {
            node: other,
            vtep,
            mtu,
        } => {
            let limit = node.mtu.min(*mtu);
            if let Err(problem) = check_tunnel(link, node, other, *vtep, limit) {
                return frozen(link, problem);
            }
            let vni = match vni {
                VniState::Granted(vni) => vni,
                VniState::None => {
                    return waiting(format!("waiting for a VNI for the tunnel to node {other}"));
                }
                VniState::TakenBy(vni, owner) => {
                    return frozen(
                        link,
                        format!(
                            "VNI {vni} is asked for, but it is that of link {owner}: ask for \
                             another one or for none"
                        ),
                    );
                }
            };
            let tunnel = Tunnel {
                vni,
                remote: *vtep,
                local: node.vtep,
                parent: node.parent,
                port: VXLAN_PORT,
            };
            let mtu = link.mtu.or(node.default_mtu).unwrap_or(limit).min(limit);
            Wiring {
                wanted: Some(Wanted::Vxlan {
                    end: end(link, here, sandbox, mtu),
                    tunnel,
                }),
                obstacle: None,
            }
        }
        Place::Gone => waiting(format!("pod {peer} has gone; waiting for it to come back")),
        Place::Unknown => hold(Obstacle::Unheard(format!(
            "pod {peer} is not known yet; it must be started with ratchet: \"true\" or the \
             annotation ratchet.dev/links"
        ))),
        Place::Lost(lost) => waiting(format!(
            "pod {peer} was on this node in sandbox {lost}, which this agent does not know; \
             waiting for the pod to be started anew"
        )),
        Place::Here(_) => unreachable!("both ends here was dealt with above"),
    }
}

fn both_here(link: &Link, a: &SandboxId, z: &SandboxId, node: &Node) -> Wiring {
    if let Some(problem) = &link.problem {
        return frozen(link, problem.clone());
    }
    let mtu = own_mtu(link, node);
    Wiring {
        wanted: Some(Wanted::Veth {
            a: end(link, End::A, a, mtu),
            z: end(link, End::Z, z, mtu),
        }),
        obstacle: None,
    }
}

fn frozen(link: &Link, problem: String) -> Wiring {
    Wiring {
        wanted: Some(Wanted::Frozen(link.id)),
        obstacle: Some(Obstacle::Error(problem)),
    }
}

/// The MTU of a link within the node. Without a tunnel any would do; it is a tunnel's all the same,
/// so that nothing changes for the pods when one of them moves.
fn own_mtu(link: &Link, node: &Node) -> Mtu {
    link.mtu.or(node.default_mtu).unwrap_or(node.mtu)
}

fn check_tunnel(
    link: &Link,
    node: &Node,
    other: &NodeName,
    vtep: IpAddr,
    limit: Mtu,
) -> Result<(), String> {
    if vtep == node.vtep {
        return Err(format!(
            "nodes {} and {other} have the same parent address {vtep}: give each its own \
             parent_address",
            node.name
        ));
    }
    if vtep.is_ipv4() != node.vtep.is_ipv4() {
        return Err(format!(
            "node {} has the parent address {} and node {other} has {vtep}: both must be IPv4 or \
             both IPv6",
            node.name, node.vtep
        ));
    }
    match link.mtu {
        Some(mtu) if mtu > limit => Err(format!(
            "MTU {mtu} is asked for, but the underlay between nodes {} and {other} has room for \
            {limit} in a tunnel: \
             ask for less or raise the underlay's MTU",
            node.name
        )),
        _ => Ok(()),
    }
}

fn end(link: &Link, end: End, sandbox: &SandboxId, mtu: Mtu) -> WantedEnd {
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
            config: config_digest(mac, mtu, &addresses, &routes),
        },
        addresses,
        routes,
        up: true,
        leftover: None,
    }
}

/// How an end is kept in the node's namespace while its pod is away.
pub fn parked(link: &Link, end: End) -> WantedEnd {
    let mac = link.endpoint(end).mac;
    WantedEnd {
        netns: Netns::Node,
        name: parked_name(link.id, end),
        mac,
        // Not set while parked: it is what it was.
        mtu: Mtu::within_underlay(0, IpAddr::from([0, 0, 0, 0])),
        addresses: Vec::new(),
        routes: Vec::new(),
        up: false,
        alias: Alias {
            link: link.id,
            end,
            sandbox: None,
            config: 0,
        },
        leftover: None,
    }
}

/// The name of a parked end: `rt`, the end, and the first 12 hex digits of the link's id, 15 bytes
/// in all. Should two links ever share them, the second is not parked but born anew.
pub fn parked_name(link: LinkId, end: End) -> String {
    format!("rt{end}{:012x}", link.number() >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        link::{Mac, Route},
        names::{InterfaceName, PodKey},
    };

    fn link(mtu: Option<u32>) -> Link {
        let pods = ["r1", "r2"].map(|name| PodKey::new("default", name).unwrap());
        let eth1: InterfaceName = "eth1".parse().unwrap();
        let id = LinkId::derive((&pods[0], &eth1), (&pods[1], &eth1));
        let [a, z] = [End::A, End::Z].map(|end| Endpoint {
            pod: pods[end as usize].clone(),
            interface: eth1.clone(),
            addresses: Vec::new(),
            mac: Mac::derive(id, end),
            routes: Vec::<Route>::new(),
        });
        let mtu = mtu.map(|mtu| Mtu::try_from(mtu).unwrap());
        Link {
            id,
            a,
            z,
            mtu,
            vni: None,
            declared_by: Vec::new(),
            problem: None,
            warnings: Vec::new(),
        }
    }

    fn node() -> Node {
        Node {
            name: "n1".parse().unwrap(),
            vtep: "10.0.0.1".parse().unwrap(),
            parent: 2,
            mtu: Mtu::try_from(1450).unwrap(),
            default_mtu: None,
        }
    }

    fn there(vtep: &str, mtu: u32) -> Place {
        Place::There {
            node: "n2".parse().unwrap(),
            vtep: vtep.parse().unwrap(),
            mtu: Mtu::try_from(mtu).unwrap(),
        }
    }

    fn here(id: &str) -> Place {
        Place::Here(id.parse().unwrap())
    }

    #[test]
    fn a_node_of_its_own_means_veth_and_two_mean_vxlan() {
        let granted = VniState::Granted(Vni::try_from(11).unwrap());
        let wiring = direct(
            &link(None),
            &[here("s1"), here("s2")],
            VniState::None,
            &node(),
        );
        assert!(matches!(wiring.wanted, Some(Wanted::Veth { ref a, .. }) if a.mtu.bytes() == 1450));
        let wiring = direct(
            &link(None),
            &[there("10.0.0.2", 1400), here("s2")],
            granted,
            &node(),
        );
        let Some(Wanted::Vxlan { end, tunnel }) = wiring.wanted else {
            panic!("{wiring:?}")
        };
        assert_eq!(
            (end.alias.end, end.mtu.bytes(), tunnel.port),
            (End::Z, 1400, 4789)
        );
    }

    #[test]
    fn what_cannot_be_is_said_and_nothing_is_made() {
        let granted = VniState::Granted(Vni::try_from(11).unwrap());
        let taken = VniState::TakenBy(Vni::try_from(77).unwrap(), link(None).id);
        for (link, place, vni, expected) in [
            (
                link(Some(9000)),
                there("10.0.0.2", 1450),
                granted,
                "MTU 9000 is asked for, but the underlay between nodes n1 and n2 has room for 1450",
            ),
            (
                link(None),
                there("10.0.0.1", 1450),
                granted,
                "same parent address 10.0.0.1",
            ),
            (
                link(None),
                there("fd00::2", 1450),
                granted,
                "both must be IPv4 or both IPv6",
            ),
            (
                link(None),
                there("10.0.0.2", 1450),
                taken,
                "VNI 77 is asked for, but it is that of link",
            ),
            (
                Link {
                    problem: Some("at odds".into()),
                    ..link(None)
                },
                here("s2"),
                granted,
                "at odds",
            ),
            (
                Link {
                    problem: Some("at odds".into()),
                    ..link(None)
                },
                there("10.0.0.2", 1450),
                granted,
                "at odds",
            ),
        ] {
            let wiring = direct(&link, &[here("s1"), place], vni, &node());
            assert_eq!(wiring.wanted, Some(Wanted::Frozen(link.id)));
            let Some(Obstacle::Error(text)) = wiring.obstacle else {
                panic!("no error: {expected}")
            };
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_missing_peer_is_waited_for() {
        for (place, expected) in [
            (Place::Unknown, "pod default/r2 is not known yet"),
            (Place::Gone, "pod default/r2 has gone"),
            (
                Place::Lost("old".parse().unwrap()),
                "sandbox old, which this agent does not know",
            ),
            (there("10.0.0.2", 1450), "waiting for a VNI"),
        ] {
            let wiring = direct(&link(None), &[here("s1"), place], VniState::None, &node());
            assert!(matches!(wiring.wanted, Some(Wanted::Hold { .. })));
            let Some(Obstacle::Waiting(text) | Obstacle::Unheard(text)) = wiring.obstacle else {
                panic!("not waiting: {expected}")
            };
            assert!(text.contains(expected), "{text}");
        }
    }
}
