//! The declarations: pods and links between them.

use std::collections::BTreeSet;

use ratchet_model::{LinkId, PodKey};

use crate::{random::Random, support::Pod};

pub const PODS: usize = 60;
const LINKS: usize = 300;

/// The number of pods, from the first, that no event touches. The first link is between two of them
/// on one node, the second between two on different nodes.
pub const STILL: usize = 4;

/// A link between two ends, each a pod and an interface.
#[derive(Debug, Clone)]
pub struct Link {
    pub ends: [(usize, String); 2],
    /// Which of the ends' pods declare it.
    declared: [bool; 2],
    number: usize,
}

impl Link {
    fn new(number: usize, pods: [usize; 2], declared: [bool; 2]) -> Self {
        // A pod may be linked to itself.
        let ends = [
            (pods[0], format!("a{number}")),
            (pods[1], format!("z{number}")),
        ];
        Self {
            ends,
            declared,
            number,
        }
    }

    pub fn id(&self) -> LinkId {
        let [one, other] =
            [0, 1].map(|end| (key(self.ends[end].0), self.ends[end].1.parse().unwrap()));
        LinkId::derive((&one.0, &one.1), (&other.0, &other.1))
    }

    /// The address of an end, without prefix.
    pub fn address(&self, end: usize) -> String {
        format!(
            "10.{}.{}.{}",
            100 + self.number / 200,
            self.number % 200,
            end + 1
        )
    }

    pub fn declarers(&self) -> BTreeSet<usize> {
        [0, 1]
            .into_iter()
            .filter(|end| self.declared[*end])
            .map(|end| self.ends[end].0)
            .collect()
    }
}

pub struct Topology {
    pub links: Vec<Link>,
}

pub fn name(pod: usize) -> String {
    format!("p{pod}")
}

pub fn key(pod: usize) -> PodKey {
    PodKey::new("default", &name(pod)).unwrap()
}

impl Topology {
    pub fn new(random: &mut Random) -> Self {
        let mut links = vec![
            Link::new(0, [0, 1], [true, false]),
            Link::new(1, [2, 3], [true, false]),
        ];
        for number in 2..LINKS {
            let pods = [random.below(PODS), random.below(PODS)];
            let declared = match random.below(10) {
                0 if pods[0] != pods[1] => [true, true],
                n => [n % 2 == 0, n % 2 == 1],
            };
            links.push(Link::new(number, pods, declared));
        }
        Self { links }
    }

    pub fn of(&self, pod: usize) -> impl Iterator<Item = &Link> {
        self.links
            .iter()
            .filter(move |link| link.ends.iter().any(|(other, _)| *other == pod))
    }

    /// A pod with its declarations.
    pub fn pod(&self, pod: usize) -> Pod {
        let mut entries = Vec::new();
        for link in self.of(pod) {
            let own = link.declared[0] && link.ends[0].0 == pod;
            let (local, remote) = if own { (0, 1) } else { (1, 0) };
            if link.declared[local] && link.ends[local].0 == pod {
                let (peer, peer_interface) = (name(link.ends[remote].0), &link.ends[remote].1);
                entries.push(format!(
                    "{{interface: {}, peer: {peer}/{peer_interface}, addresses: [{}/24], \
                     peerAddresses: [{}/24]}}",
                    link.ends[local].1,
                    link.address(local),
                    link.address(remote)
                ));
            }
        }
        Pod::with_links(&name(pod), &format!("[{}]", entries.join(", ")))
    }
}
