//! Plans of the planner, whole or cut off: what links want changes from one batch to the next.

use std::collections::BTreeSet;

use ratchet_model::{
    End, LinkId,
    device::{Alias, Netns, Part, Tunnel, VXLAN_PORT, Wanted, WantedEnd},
    leftover::Leftovers,
    planner::{PlanScope, plan},
};
use ratchet_simulation::random::Random;

use crate::{
    case::Batch,
    compare::{Pair, SANDBOXES, VTEP, places, sandbox},
};

const LINKS: usize = 4;

/// The next batch.
pub fn next(random: &mut Random, pair: &Pair) -> Batch {
    if random.percent(6) {
        let name = format!("e{}", random.below(LINKS));
        return Batch::Stranger(Some(random.below(SANDBOXES)), name);
    }
    let wanted: Vec<Wanted> = (0..LINKS).filter_map(|link| wanted(random, link)).collect();
    let (links, namespaces) = (BTreeSet::new(), places().collect());
    let scope = PlanScope {
        links: &links,
        namespaces: &namespaces,
    };
    let mut steps = plan(&wanted, &pair.observe(), &Leftovers::default(), scope).steps;
    if random.percent(25) {
        steps.truncate(random.below(steps.len() + 1));
    }
    Batch::Steps(steps)
}

/// What a link wants now, if anything.
fn wanted(random: &mut Random, link: usize) -> Option<Wanted> {
    // The pods of a link are always the same two, which have their sandboxes here or elsewhere.
    let (one, other) = (link % SANDBOXES, (link + 1) % SANDBOXES);
    let a = end(random, link, End::A, Some(one));
    let z = end(random, link, End::Z, Some(other));
    match random.below(10) {
        0 => None,
        1..5 => Some(Wanted::Veth { a, z }),
        5..7 => Some(Wanted::Hold {
            survivor: a,
            parked: end(random, link, End::Z, None),
        }),
        7 => Some(Wanted::Frozen(id(link))),
        _ => Some(Wanted::Vxlan {
            end: a,
            joined: None,
            tunnel: Tunnel {
                vni: (11 + link as u32).try_into().unwrap(),
                remote: format!("10.0.0.{}", 2 + random.below(2)).parse().unwrap(),
                local: VTEP.parse().unwrap(),
                parent: 2,
                port: VXLAN_PORT,
            },
        }),
    }
}

fn id(link: usize) -> LinkId {
    format!("{:016x}", link + 1).parse().unwrap()
}

fn end(random: &mut Random, link: usize, end: End, at: Option<usize>) -> WantedEnd {
    let variant = random.below(2);
    let address = format!("172.16.{link}.{}/24", 1 + end as u8 + 2 * variant as u8);
    let is_parked = at.is_none();
    WantedEnd {
        netns: at.map_or(Netns::Node, |number| Netns::Sandbox(sandbox(number))),
        name: at.map_or_else(|| format!("rt-{link}"), |_| format!("e{link}")),
        mac: format!("02:00:00:00:{link:02x}:{:02x}", end as u8)
            .parse()
            .unwrap(),
        mtu: [1400, 1450][variant].try_into().unwrap(),
        addresses: if is_parked {
            vec![]
        } else {
            vec![address.parse().unwrap()]
        },
        routes: vec![],
        up: !is_parked,
        alias: Alias {
            link: id(link),
            end,
            part: Part::Pod,
            sandbox: at.map(sandbox),
            config: if is_parked {
                Alias::UNFINISHED
            } else {
                1 + variant as u32
            },
        },
    }
}
