//! Hostile authors: pods of a second namespace, which declare links with any interface of the
//! tenant's pods, at random. Nothing of that may reach the tenant's pods.
//!
//! What they do comes between the events of a history and changes none of them.

use crate::{
    declaration::{Declaration, DeclaredLink, Form, HOSTILE},
    event::{Event, Happening},
    network::PodNumber,
    random::Random,
};

/// So many hostile pods there are.
const PODS: usize = 2;

/// The interfaces of a pod that they claim, and have.
const INTERFACES: usize = 3;

/// The authors of one history.
pub struct Hostile {
    random: Random,
    nodes: usize,
    tenant_pods: usize,
    /// In how many of a hundred places they do something.
    percent: usize,
}

impl Hostile {
    /// Those of the history with this seed; in three of four histories they do nothing.
    pub fn new(seed: u64, nodes: usize, tenant_pods: usize) -> Self {
        Self {
            // Another sequence than that of the history.
            random: Random::new(!seed),
            nodes,
            tenant_pods,
            percent: if seed.is_multiple_of(4) { 15 } else { 0 },
        }
    }

    /// What they do now, if they do something.
    pub fn event(&mut self) -> Option<Event> {
        if !self.random.percent(self.percent) {
            return None;
        }
        let pod = HOSTILE + self.random.below(PODS);
        let happening = match self.random.below(10) {
            0..4 => Happening::Add {
                pod,
                node: self.random.below(self.nodes),
                declaration: self.declaration(),
                is_expected: self.random.percent(50),
            },
            4..6 => Happening::Del { pod, newest: true },
            6 => Happening::Vanish { pod },
            _ => Happening::Change {
                pod,
                declaration: self.declaration(),
            },
        };
        let turns = self.random.below(3);
        Some(Event {
            happening,
            turns: (0..turns).map(|_| self.random.below(self.nodes)).collect(),
        })
    }

    fn declaration(&mut self) -> Declaration {
        let mut links: Vec<DeclaredLink> = Vec::new();
        for interface in 0..INTERFACES {
            let link = self.link(interface as u8);
            let is_same = |other: &DeclaredLink| {
                (other.peer, other.peer_interface) == (link.peer, link.peer_interface)
            };
            if self.random.percent(75) && !links.iter().any(is_same) {
                links.push(link);
            }
        }
        Declaration {
            form: Form::Full,
            links,
        }
    }

    /// A link with any interface of any pod of the tenant.
    fn link(&mut self, interface: u8) -> DeclaredLink {
        let random = &mut self.random;
        let peer: PodNumber = random.below(self.tenant_pods);
        let peer_interface = random.below(INTERFACES) as u8;
        let mut number = |numbers: &[u32]| random.percent(30).then(|| *random.pick(numbers));
        let (vni, mtu) = (number(&[11, 12, 500]), number(&[1300, 1400]));
        let mut address = || random.percent(50).then(|| 10 + random.below(70) as u8);
        DeclaredLink {
            interface,
            peer,
            peer_interface,
            address: address(),
            peer_address: address(),
            vni,
            mtu,
        }
    }
}
