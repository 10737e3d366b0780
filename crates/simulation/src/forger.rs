//! A forger: in every third history the root of one pod writes on its devices what it likes, in all
//! of its sandboxes. Only links of that pod may suffer.
//!
//! What it does comes between the events of a history and changes none of them. Nodes lose their
//! keys in these histories, too.

use crate::{
    event::{Event, Happening},
    network::{Forgery, NodeNumber, PodNumber, Text},
    random::Random,
};

/// The interfaces of a pod.
const INTERFACES: usize = 3;

/// Two pods, each with the number of an interface.
pub type Ends = [(PodNumber, u8); 2];

/// The forger of one history.
pub struct Forger {
    random: Random,
    pod: PodNumber,
    pods: usize,
    /// The ends of links that pods may declare.
    links: Vec<Ends>,
    nodes: usize,
    /// An end for which it has just forged another. What it forges is only looked at when the real
    /// one is missing.
    missing: Option<(PodNumber, u8)>,
    /// In how many of a hundred places it does something.
    percent: usize,
}

impl Forger {
    /// That of the history with this seed; in two of three histories it does nothing.
    pub fn new(seed: u64, nodes: usize, pods: usize, links: Vec<Ends>) -> Self {
        // Another sequence than that of the history.
        let mut random = Random::new(seed.rotate_left(32) ^ 0xf0e1);
        Self {
            pod: random.below(pods),
            random,
            pods,
            links,
            missing: None,
            nodes,
            percent: if seed % 3 == 1 { 20 } else { 0 },
        }
    }

    /// What it does now, if it does something.
    pub fn event(&mut self) -> Option<Event> {
        if !self.random.percent(self.percent) {
            return None;
        }
        let happening = if self.random.percent(4) {
            Happening::LoseKey(self.node())
        } else if let Some((pod, interface)) = self.missing.take() {
            Happening::DeleteDevice { pod, interface }
        } else {
            Happening::Forge {
                pod: self.pod,
                forgery: self.forgery(),
            }
        };
        let turns = self.random.below(3);
        Some(Event {
            happening,
            turns: (0..turns).map(|_| self.node()).collect(),
        })
    }

    fn node(&mut self) -> NodeNumber {
        self.random.below(self.nodes)
    }

    fn interface(&mut self) -> u8 {
        self.random.below(INTERFACES) as u8
    }

    fn forgery(&mut self) -> Forgery {
        let interface = self.interface();
        match self.random.below(20) {
            0..6 => Forgery::Alias {
                interface,
                text: self.text(),
            },
            6..8 => Forgery::Group {
                interface,
                is_ours: self.random.percent(50),
            },
            8..11 => Forgery::Rename {
                interface,
                to: self.interface(),
            },
            11..13 => Forgery::Delete { interface },
            13..15 => Forgery::Take { interface },
            15 => Forgery::Bring { interface },
            16 | 17 => {
                let ends = self.ends();
                self.missing = Some(ends[self.random.below(2)]);
                Forgery::Pair {
                    ends,
                    is_parked: self.random.percent(50),
                }
            }
            _ => Forgery::Make {
                interface,
                is_outside: self.random.percent(50),
                peer_index: 2 + self.random.below(12) as u32,
                text: self.text(),
            },
        }
    }

    /// Mostly those of a link that there may be.
    fn ends(&mut self) -> Ends {
        if !self.links.is_empty() && self.random.percent(80) {
            return *self.random.pick(&self.links);
        }
        [0, 1].map(|_| (self.random.below(self.pods), self.interface()))
    }

    fn text(&mut self) -> Text {
        match self.random.below(10) {
            0..3 => Text::Erased,
            3..7 => Text::Copied(self.random.below(1000)),
            _ => Text::Invented {
                ends: self.ends(),
                is_a: self.random.percent(50),
                is_parked: self.random.percent(50),
            },
        }
    }
}
