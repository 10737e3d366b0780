//! The sets and their elements: from passages to keys, and back.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ratchet_model::{
    device::{Passage, SourcePorts},
    link::Vni,
};

/// A set of the table. Its elements are concatenations; each part takes a multiple of 4 bytes, and
/// is in network order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Set {
    /// The tunnel ports.
    Ports,
    /// Our VNIs: port . VNI.
    Ours,
    /// What may arrive: VNI . source . destination.
    Arriving(Family),
    /// What may leave: block of source ports . VNI . destination.
    Leaving(Family),
    /// What may leave from any source port: VNI . destination.
    LeavingAnyPort(Family),
}

/// The family of the VTEPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// How many words of a key an address takes.
    pub fn address_words(self) -> u32 {
        match self {
            Self::V4 => 1,
            Self::V6 => 4,
        }
    }

    /// The length of an address in bytes.
    pub fn address_len(self) -> usize {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }
}

/// The length of a port or a VNI in a key.
const WORD: usize = 4;

impl Set {
    pub const ALL: [Self; 8] = [
        Self::Ports,
        Self::Ours,
        Self::Arriving(Family::V4),
        Self::Arriving(Family::V6),
        Self::Leaving(Family::V4),
        Self::Leaving(Family::V6),
        Self::LeavingAnyPort(Family::V4),
        Self::LeavingAnyPort(Family::V6),
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ports => "ports",
            Self::Ours => "ours",
            Self::Arriving(Family::V4) => "arriving4",
            Self::Arriving(Family::V6) => "arriving6",
            Self::Leaving(Family::V4) => "leaving4",
            Self::Leaving(Family::V6) => "leaving6",
            Self::LeavingAnyPort(Family::V4) => "anyport4",
            Self::LeavingAnyPort(Family::V6) => "anyport6",
        }
    }

    /// The length of a key in bytes.
    pub fn key_len(self) -> usize {
        match self {
            Self::Ports => 2,
            Self::Ours => 2 * WORD,
            Self::Arriving(family) => WORD + 2 * family.address_len(),
            Self::Leaving(family) => 2 * WORD + family.address_len(),
            Self::LeavingAnyPort(family) => WORD + family.address_len(),
        }
    }
}

/// An element: a set and a key.
pub type Element = (Set, Vec<u8>);

/// The elements that a passage needs.
pub fn elements(passage: &Passage) -> Vec<Element> {
    let Passage {
        port,
        vni,
        local,
        remote,
        source,
    } = *passage;
    let (local, remote) = (octets(local), octets(remote));
    let family = if local.len() == Family::V4.address_len() {
        Family::V4
    } else {
        Family::V6
    };
    let (port, vni) = (port.to_be_bytes(), vni_word(vni));
    let any_port = [&vni[..], &remote].concat();
    let mut elements = vec![
        (Set::Ports, port.to_vec()),
        (Set::Ours, [padded(&port), vni.clone()].concat()),
        (Set::Arriving(family), [&vni[..], &remote, &local].concat()),
    ];
    match source {
        None => elements.push((Set::LeavingAnyPort(family), any_port)),
        Some(source) => elements.extend(source.blocks().map(|block| {
            let key = [padded(&block.to_be_bytes()), any_port.clone()].concat();
            (Set::Leaving(family), key)
        })),
    }
    elements
}

/// The passages that elements are of. Elements that belong to none are left out; so the elements of
/// the passages may be fewer than these.
pub fn passages(elements: &BTreeSet<Element>) -> BTreeSet<Passage> {
    let mut blocks: BTreeMap<Passage, BTreeSet<u16>> = BTreeMap::new();
    let mut found = BTreeSet::new();
    let others = Others::of(elements);
    for (set, key) in elements {
        match set {
            Set::Leaving(family) => {
                let Some((block, key)) = number(key, 0).zip(key.get(WORD..)) else {
                    continue;
                };
                for passage in others.passages(*family, key) {
                    blocks.entry(passage).or_default().insert(block);
                }
            }
            Set::LeavingAnyPort(family) => found.extend(others.passages(*family, key)),
            Set::Ports | Set::Ours | Set::Arriving(_) => {}
        }
    }
    for (passage, blocks) in blocks {
        let ends = blocks.first().zip(blocks.last());
        found.extend(ends.map(|(first, last)| Passage {
            source: Some(SourcePorts {
                low: *first,
                high: last.saturating_add(SourcePorts::BLOCK),
            }),
            ..passage
        }));
    }
    found
}

/// What the keys of what may leave do not have.
struct Others<'e> {
    /// Tunnel ports by VNI.
    ports: BTreeMap<&'e [u8], Vec<u16>>,
    /// Own addresses by family and by VNI and peer's address.
    locals: BTreeMap<(Family, &'e [u8]), Vec<IpAddr>>,
}

impl<'e> Others<'e> {
    fn of(elements: &'e BTreeSet<Element>) -> Self {
        let (mut ports, mut locals) = (BTreeMap::new(), BTreeMap::new());
        for (set, key) in elements {
            match set {
                Set::Ours => {
                    if let Some((port, vni)) = number(key, 0).zip(key.get(WORD..)) {
                        ports.entry(vni).or_insert_with(Vec::new).push(port);
                    }
                }
                Set::Arriving(family) => {
                    let split = key.split_at_checked(WORD + family.address_len());
                    if let Some((peer, local)) = split
                        && let Some(local) = address(local)
                    {
                        let of_peer = locals.entry((*family, peer)).or_insert_with(Vec::new);
                        of_peer.push(local);
                    }
                }
                Set::Ports | Set::Leaving(_) | Set::LeavingAnyPort(_) => {}
            }
        }
        Self { ports, locals }
    }

    /// The passages of what may leave with this VNI to this address, without source ports.
    fn passages(&self, family: Family, key: &[u8]) -> Vec<Passage> {
        let Some((vni, remote)) = key.split_at_checked(WORD) else {
            return Vec::new();
        };
        let number = <[u8; WORD]>::try_from(vni).ok();
        let number = number.map(|[a, b, c, _]| u32::from_be_bytes([0, a, b, c]));
        let (Some(number), Some(remote)) = (
            number.and_then(|vni| Vni::try_from(vni).ok()),
            address(remote),
        ) else {
            return Vec::new();
        };
        let locals = self.locals.get(&(family, key)).into_iter().flatten();
        let ports = self.ports.get(vni).into_iter().flatten();
        let each = locals.flat_map(|local| ports.clone().map(move |port| (*local, *port)));
        let passage = |(local, port)| Passage {
            port,
            vni: number,
            local,
            remote,
            source: None,
        };
        each.map(passage).collect()
    }
}

fn number(key: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(key.get(at..at + 2)?.try_into().ok()?))
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(octets).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(octets).ok()?)),
        _ => None,
    }
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut word = bytes.to_vec();
    word.resize(WORD, 0);
    word
}

fn vni_word(vni: Vni) -> Vec<u8> {
    padded(&vni.number().to_be_bytes()[1..])
}

#[cfg(test)]
mod tests;
