//! Histories at random.

use crate::{
    declaration::{Declaration, DeclaredLink, Form},
    event::{Event, Happening},
    forger::Forger,
    history::History,
    hostile::Hostile,
    network::{NodeNumber, PodNumber},
    random::Random,
};

/// The events of one history, unless somebody asks for another number.
pub const EVENTS: usize = 200;

/// The interfaces of one pod.
const INTERFACES: u8 = 3;

/// The MTUs that declarations insist on.
const MTUS: [u32; 2] = [1300, 1400];

/// The VNIs that declarations insist on; the first ones are also given to links that do not.
const VNIS: [u32; 4] = [11, 12, 14, 500];

/// A place for a link: two ends that no other place has.
#[derive(Clone, Copy)]
struct Slot {
    ends: [(PodNumber, u8); 2],
    /// Which of its pods declare it: the first, the second, or both.
    declarers: [bool; 2],
}

/// What is used for all events of a history.
struct Generator {
    random: Random,
    nodes: usize,
    pods: usize,
    slots: Vec<Slot>,
    faults: Faults,
}

/// The kinds of faults of a history. With all kinds in all histories, few would be met alone.
struct Faults {
    crashes: bool,
    store: bool,
    stale: bool,
    wipes: bool,
    disks: bool,
    state: bool,
    strangers: bool,
    reboots: bool,
    underlay: bool,
}

/// A history of so many events.
pub fn history(seed: u64, events: usize) -> History {
    let mut random = Random::new(seed);
    let nodes = 2 + random.below(3);
    let pods = 2 + random.below(5);
    let kubernetes = random.percent(50);
    let slots = slots(&mut random, pods);
    let wipes = random.percent(15);
    let faults = Faults {
        crashes: random.percent(60),
        store: random.percent(50),
        stale: random.percent(20),
        wipes,
        disks: random.percent(15),
        // Who has lost its own state and finds the store empty can know of nothing.
        state: !wipes && random.percent(20),
        strangers: random.percent(20),
        reboots: random.percent(15),
        underlay: random.percent(15),
    };
    let mut hostile = Hostile::new(seed, nodes, pods);
    let links = slots.iter().map(|slot| slot.ends).collect();
    let mut forger = Forger::new(seed, nodes, pods, links);
    let mut generator = Generator {
        random,
        nodes,
        pods,
        slots,
        faults,
    };
    let mut events: Vec<Event> = (0..events).map(|_| generator.event()).collect();
    disturb_filters(&mut Random::new(!seed), nodes, &mut events);
    rewire(&mut Random::new(seed.rotate_left(17)), nodes, &mut events);
    let with_others = |event| [Some(event), hostile.event(), forger.event()];
    History {
        nodes,
        kubernetes,
        events: events.into_iter().flat_map(with_others).flatten().collect(),
    }
}

/// In some histories the filters have faults. They take the places of steps of time, so that a
/// seed's other events are the same as without them.
fn disturb_filters(random: &mut Random, nodes: usize, events: &mut [Event]) {
    if !random.percent(20) {
        return;
    }
    for event in events {
        if matches!(event.happening, Happening::Advance { .. }) && random.percent(30) {
            let node = random.below(nodes);
            event.happening = if random.percent(50) {
                Happening::FlushFilter(node)
            } else {
                Happening::RefuseFilter(node)
            };
        }
    }
}

/// In half of the histories nodes wire their links in different ways, and in some of these they
/// change that meanwhile. A seed's other events are the same as without it.
fn rewire(random: &mut Random, nodes: usize, events: &mut Vec<Event>) {
    if !random.percent(50) {
        return;
    }
    if random.percent(30) {
        for event in &mut *events {
            if matches!(event.happening, Happening::Advance { .. }) && random.percent(10) {
                event.happening = Happening::Rewire(random.below(nodes));
            }
        }
    }
    let stitched: Vec<NodeNumber> = (0..nodes).filter(|_| random.percent(60)).collect();
    let first = stitched.into_iter().map(|node| Event {
        happening: Happening::Rewire(node),
        turns: Vec::new(),
    });
    events.splice(..0, first);
}

fn slots(random: &mut Random, pods: usize) -> Vec<Slot> {
    let mut ends: Vec<(PodNumber, u8)> = (0..pods)
        .flat_map(|pod| (0..INTERFACES).map(move |interface| (pod, interface)))
        .collect();
    let mut slots = Vec::new();
    while ends.len() >= 2 {
        let one = ends.swap_remove(random.below(ends.len()));
        let other = ends.swap_remove(random.below(ends.len()));
        if one.0 == other.0 && !random.percent(30) {
            continue;
        }
        let declarers = *random.pick(&[[true, false], [false, true], [true, true]]);
        slots.push(Slot {
            ends: [one, other],
            declarers,
        });
    }
    slots
}

impl Generator {
    fn event(&mut self) -> Event {
        let happening = self.happening();
        let turns = self.random.below(5);
        Event {
            happening,
            turns: (0..turns).map(|_| self.random.below(self.nodes)).collect(),
        }
    }

    fn happening(&mut self) -> Happening {
        if self.random.percent(25) {
            return self.fault();
        }
        let pod = self.random.below(self.pods);
        match self.random.below(100) {
            0..30 => Happening::Add {
                pod,
                node: self.random.below(self.nodes),
                declaration: self.declaration(pod),
                is_expected: self.random.percent(50),
            },
            30..48 => Happening::Del {
                pod,
                newest: self.random.percent(50),
            },
            48..50 => Happening::Abort { pod },
            50..52 => Happening::DelAgain { pod },
            52..54 => Happening::AddAgain { pod },
            54 => Happening::AddLate { pod },
            55..59 => Happening::Vanish { pod },
            59..74 => Happening::Change {
                pod,
                declaration: self.declaration(pod),
            },
            74..77 => Happening::Check { pod },
            77..80 => Happening::Collect(self.random.below(self.nodes)),
            80..82 => Happening::Settle,
            _ => Happening::Advance {
                millis: *self.random.pick(&[1, 200, 1000, 2500, 61_000, 130_000]),
            },
        }
    }

    fn fault(&mut self) -> Happening {
        let node = self.random.below(self.nodes);
        let (pod, interface) = (
            self.random.below(self.pods),
            self.random.below(usize::from(INTERFACES)) as u8,
        );
        let is_on = &self.faults;
        let random = &mut self.random;
        let chosen = match random.below(17) {
            0..3 if is_on.crashes => Some(Happening::Crash {
                node,
                after: 1 + random.below(40) as u32,
            }),
            3 if is_on.store => Some(Happening::Offline(node)),
            4 if is_on.store => Some(Happening::Slow(node)),
            5 if is_on.store => Some(Happening::Unanswered(node)),
            6 if is_on.store => Some(Happening::BreakWatch(node)),
            7 if is_on.store => Some(Happening::EndSession(node)),
            8 if is_on.store => Some(Happening::CutOff(node)),
            9 if is_on.stale => Some(Happening::Stale {
                node,
                reads: 1 + random.below(4) as u32,
                age: 1 + random.below(5),
            }),
            10 if is_on.wipes && random.percent(30) => Some(Happening::Wipe),
            11 if is_on.disks => Some(Happening::FillDisk(node)),
            12 if is_on.state => Some(Happening::LoseState {
                node,
                all: random.percent(50),
            }),
            13 if is_on.strangers => Some(if random.percent(50) {
                Happening::Stranger { pod, interface }
            } else {
                Happening::DeleteDevice { pod, interface }
            }),
            14 if is_on.reboots => Some(Happening::Reboot(node)),
            15 if is_on.underlay => Some(Happening::LoseUnderlay(node)),
            16 => Some(Happening::ApiOffline(node)),
            _ => None,
        };
        chosen.unwrap_or_else(|| recovery(random, node))
    }

    /// Some of the links that have their places with this pod, and now and then something odd.
    fn declaration(&mut self, pod: PodNumber) -> Declaration {
        let mut links = Vec::new();
        for slot in self.slots.clone() {
            for (own, far) in [(0, 1), (1, 0)] {
                if slot.ends[own].0 == pod && slot.declarers[own] && self.random.percent(75) {
                    links.push(self.link(slot.ends[own], slot.ends[far]));
                }
            }
        }
        let mut seen = Vec::new();
        links.retain(|link| {
            let mut ends = link.ends(pod);
            ends.sort();
            let is_new = !ends.iter().any(|end| seen.contains(end));
            seen.extend(ends);
            is_new
        });
        if self.random.percent(3) {
            let odd = self.odd_link(pod);
            let ends = odd.ends(pod);
            if ends[0] != ends[1] && !ends.iter().any(|end| seen.contains(end)) {
                links.push(odd);
            }
        }
        Declaration::new(pod, self.form(), links)
    }

    /// A link between any two interfaces, which may be those of other links.
    fn odd_link(&mut self, pod: PodNumber) -> DeclaredLink {
        let far = (self.random.below(self.pods), self.random.below(3) as u8);
        let own = (pod, self.random.below(3) as u8);
        self.link(own, far)
    }

    fn form(&mut self) -> Form {
        match self.random.below(40) {
            0 => Form::Broken,
            1 => Form::Nothing,
            2..10 => Form::Labels,
            10..14 => Form::OldAnnotations,
            14..18 => Form::Mixed,
            18..24 => Form::Json,
            _ => Form::Annotation,
        }
    }

    fn link(&mut self, own: (PodNumber, u8), far: (PodNumber, u8)) -> DeclaredLink {
        let last = |(pod, interface): (PodNumber, u8)| (10 * (pod + 1)) as u8 + interface;
        let random = &mut self.random;
        let mut address = |end| {
            let odd = u8::from(random.percent(3)) * 100;
            random.percent(60).then(|| last(end) + odd)
        };
        let (address, peer_address) = (address(own), address(far));
        let vni = self.random.percent(6).then(|| *self.random.pick(&VNIS));
        let mtu = self.random.percent(6).then(|| *self.random.pick(&MTUS));
        DeclaredLink {
            interface: own.1,
            peer: far.0,
            peer_interface: far.1,
            address,
            peer_address,
            vni,
            mtu,
        }
    }
}

/// Something that ends a fault, or does no harm.
fn recovery(random: &mut Random, node: NodeNumber) -> Happening {
    match random.below(4) {
        0 => Happening::Restart(node),
        1 => Happening::FreeDisk(node),
        2 => Happening::Online(node),
        _ => Happening::Advance { millis: 700 },
    }
}
