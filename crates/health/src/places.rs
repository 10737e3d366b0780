//! How many connections there may be, and whose.
//!
//! The kubelet's probes must get through while others hold as many connections as they can. On a
//! node's own network they come from the node itself, so these have places of their own.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many connections others than this host may have.
const ALL: usize = 64;

/// How many connections one client may have.
const EACH: usize = 8;

/// The places, all of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Arc<Mutex<BTreeMap<Client, usize>>>);

/// Who has connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Client {
    /// This host.
    Here,
    /// Another one. Of an IPv6 address its first 64 bits count: who has one has all of them.
    At(IpAddr),
}

impl Client {
    fn of(local: IpAddr, peer: IpAddr) -> Self {
        let (local, peer) = (local.to_canonical(), peer.to_canonical());
        match peer {
            _ if peer.is_loopback() || peer == local => Self::Here,
            IpAddr::V4(_) => Self::At(peer),
            IpAddr::V6(address) => {
                let network = address.to_bits() >> 64 << 64;
                Self::At(Ipv6Addr::from_bits(network).into())
            }
        }
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    client: Client,
}

impl Places {
    /// A place for a connection between two addresses, if there is one.
    pub fn take(&self, local: IpAddr, peer: IpAddr) -> Option<Place> {
        let client = Client::of(local, peer);
        let mut taken = self.taken();
        let others = taken.iter().filter(|(client, _)| **client != Client::Here);
        let others: usize = others.map(|(_, count)| count).sum();
        let own = taken.get(&client).copied().unwrap_or(0);
        if own >= EACH || client != Client::Here && others >= ALL {
            return None;
        }
        taken.insert(client, own + 1);
        let places = self.clone();
        Some(Place { places, client })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<Client, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        match taken.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_the_places_of_this_host_or_more_than_a_share() {
        let places = Places::default();
        let here: IpAddr = "10.0.0.1".parse().unwrap();
        let at = |n: u8| IpAddr::from([10, 1, 0, n]);
        let mut all: Vec<Place> = (0..EACH)
            .map(|_| places.take(here, at(1)).unwrap())
            .collect();
        assert!(places.take(here, at(1)).is_none(), "its share");
        for n in 2.. {
            let Some(place) = places.take(here, at(n)) else {
                break;
            };
            all.push(place);
        }
        assert_eq!(all.len(), ALL);
        let own: Vec<Place> = (0..EACH)
            .map(|_| places.take(here, here).unwrap())
            .collect();
        assert!(places.take(here, "127.0.0.1".parse().unwrap()).is_none());
        assert!(places.take(here, at(200)).is_none(), "none is left");
        all.pop();
        let _again = places.take(here, at(200)).unwrap();
        assert_eq!(own.len(), EACH);
        drop(all);
        drop(own);
        assert_eq!(places.taken().len(), 1);
    }

    #[test]
    fn one_client_has_one_share_of_all_its_addresses() {
        let at = |text: &str| Client::of(Ipv6Addr::LOCALHOST.into(), text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:0:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
        assert_eq!(at("::1"), Client::Here);
    }
}
