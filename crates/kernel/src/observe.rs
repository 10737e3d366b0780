//! Reports the devices that exist. Reads only; nothing here changes the kernel.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use netlink_packet_route::AddressFamily;
use nix::errno::Errno;
use ratchet_model::device::{At, Interface, Kind, Netns, Observed, PROTOCOL_OURS};

use crate::{
    error::KernelError,
    joints,
    kernel::Kernel,
    reply::{self, Address, Hop},
    request,
    socket::{Channel, Failure},
};

/// Which devices of a namespace to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// All of them.
    All,
    /// Those with these names. While they are few, the cost does not grow with the number of other
    /// devices.
    Names(BTreeSet<String>),
}

/// Up to so many devices their addresses are asked for one by one; beyond that one dump of all is
/// cheaper.
const FEW: usize = 8;

/// More devices than this are looked up in a dump of all: a device of a dump costs half as much as
/// one that is asked for, and a namespace in which so many are looked up rarely has many others.
pub(crate) const MANY: usize = 256;

/// RTPROT_BOOT and RTPROT_STATIC (include/uapi/linux/rtnetlink.h): routes that a person or a script
/// added.
const ROUTE_PROTOCOLS: [u8; 3] = [PROTOCOL_OURS, 3, 4];

impl Kernel {
    /// Reports devices. One that is asked for by name and does not exist is left out.
    ///
    /// Addresses and routes are read only of those devices of ours that are to be `detailed`: they
    /// cost as much again.
    ///
    /// # Errors
    /// When a namespace is not registered or the kernel does not answer.
    pub fn observe(
        &self,
        scope: &BTreeMap<Netns, Look>,
        detailed: impl Fn(&Observed) -> bool,
    ) -> Result<Vec<Observed>, KernelError> {
        self.open(scope.keys())?;
        let mut found = Vec::new();
        for (netns, look) in scope {
            let failed = |what: &str, failure| refused(format!("read {what} of {netns}"), failure);
            found.extend(self.talk(netns, |channel| {
                let mut seen = look_at(channel, netns, look)
                    .and_then(|mut seen| {
                        self.prove(channel, netns, seen.iter_mut().collect())?;
                        joints::read(channel, netns, &mut seen)?;
                        Ok(seen)
                    })
                    .map_err(|failure| failed("the devices", failure))?;
                let devices = seen.iter_mut().map(|seen| &mut seen.device);
                let chosen = devices
                    .filter(|device| device.is_ours() && detailed(device))
                    .collect();
                details(channel, chosen)
                    .map_err(|failure| failed("the addresses and routes", failure))?;
                Ok::<_, KernelError>(seen)
            })??);
        }
        self.find_peers(&mut found)?;
        Ok(found.into_iter().map(|seen| seen.device).collect())
    }

    /// Reads back one device; `None` when it does not exist.
    ///
    /// # Errors
    /// When its namespace is not registered or the kernel does not answer.
    pub fn interface(&self, at: &At) -> Result<Option<Interface>, KernelError> {
        self.interfaces(std::slice::from_ref(at))
            .map(|mut found| found.pop().flatten())
    }

    /// Reads back devices, in the order asked for.
    ///
    /// # Errors
    /// When a namespace is not registered or the kernel does not answer.
    pub fn interfaces(&self, wanted: &[At]) -> Result<Vec<Option<Interface>>, KernelError> {
        let found = self.find(wanted)?;
        let read = |device: Observed| Interface {
            name: device.name,
            mac: device.mac,
            mtu: device.mtu,
        };
        Ok(found.into_iter().map(|device| device.map(read)).collect())
    }

    /// Says of the devices of a namespace what is proven.
    ///
    /// A tunnel whose socket is not in the node's namespace is none of Ratchet's tunnels, even if
    /// its alias says so: the root of a pod can make one like it, but not with a socket on the
    /// node. An alias counts if this node's key has signed it for this device in this place, and
    /// only on a device of a kind that Ratchet makes.
    fn prove(
        &self,
        channel: &mut Channel,
        netns: &Netns,
        mut found: Vec<&mut Seen>,
    ) -> Result<(), Failure> {
        let is_tunnel = |seen: &Seen| matches!(seen.device.kind, Kind::Vxlan { .. });
        if found.iter().any(|seen| is_tunnel(seen)) {
            let of_node = match netns {
                Netns::Node => None,
                // What has no number here is nobody's home.
                Netns::Sandbox(_) => Some(channel.number_of_node(self.node())?.unwrap_or(-1)),
            };
            let is_elsewhere = |seen: &&mut &mut Seen| is_tunnel(seen) && seen.home != of_node;
            for seen in found.iter_mut().filter(is_elsewhere) {
                seen.device.kind = Kind::Other;
                seen.device.source = None;
            }
        }
        for Seen { device, alias, .. } in found {
            let signed = |text: &String| self.has_signed(text, netns, device.index);
            if device.kind == Kind::Other {
                device.unproven = None;
            } else if alias.as_ref().is_some_and(signed) {
                device.alias = device.unproven.take();
            }
        }
        Ok(())
    }

    /// Looks devices up by place and name.
    pub(crate) fn find(&self, wanted: &[At]) -> Result<Vec<Option<Observed>>, KernelError> {
        let mut places: BTreeMap<&Netns, Vec<usize>> = BTreeMap::new();
        for (position, at) in wanted.iter().enumerate() {
            places.entry(&at.netns).or_default().push(position);
        }
        let mut found: Vec<Option<Observed>> = vec![None; wanted.len()];
        for (netns, positions) in places {
            let names = positions
                .iter()
                .map(|position| wanted[*position].name.as_str());
            let devices = self
                .talk(netns, |channel| {
                    let mut found = by_name(channel, netns, names)?;
                    self.prove(channel, netns, found.iter_mut().flatten().collect())?;
                    Ok(found)
                })?
                .map_err(|failure| refused(format!("read the devices of {netns}"), failure))?;
            for (position, device) in positions.into_iter().zip(devices) {
                found[position] = device.map(|found| found.device);
            }
        }
        Ok(found)
    }
}

pub(crate) fn refused(doing: String, failure: Failure) -> KernelError {
    KernelError::Refused {
        doing,
        errno: failure.errno,
        reason: failure.reason,
    }
}

/// A device as it was read.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) device: Observed,
    /// Where its tunnel starts, or its peer is ([`reply::home`]).
    pub(crate) home: Option<i32>,
    alias: Option<String>,
}

impl Seen {
    fn read(netns: &Netns, payload: &[u8]) -> Option<Self> {
        Some(Self {
            device: reply::link(netns, payload)?,
            home: reply::home(payload),
            alias: reply::alias(payload),
        })
    }

    /// Whether something about it says that it is Ratchet's, proven or not.
    pub(crate) fn is_marked(&self) -> bool {
        self.device.is_ours() || self.device.unproven.is_some()
    }
}

fn look_at(channel: &mut Channel, netns: &Netns, look: &Look) -> Result<Vec<Seen>, Failure> {
    match look {
        Look::All => channel.dump(request::dump_links(), |payload| Seen::read(netns, payload)),
        Look::Names(names) => {
            let found = by_name(channel, netns, names.iter().map(String::as_str))?;
            // An alternative name leads to a device whose own name may be among those asked for as
            // well.
            let mut indexes = HashSet::new();
            Ok(found
                .into_iter()
                .flatten()
                .filter(|seen| indexes.insert(seen.device.index))
                .collect())
        }
    }
}

fn by_name<'a>(
    channel: &mut Channel,
    netns: &Netns,
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<Option<Seen>>, Failure> {
    let names: Vec<&str> = names.collect();
    if names.len() > MANY {
        return by_names(channel, netns, &names);
    }
    let answers = channel.fetch(names.into_iter().map(request::get_link).collect());
    let read = |answer: Result<Vec<u8>, Failure>| match answer {
        Ok(payload) => Ok(Seen::read(netns, &payload)),
        Err(failure) if failure.errno == Errno::ENODEV => Ok(None),
        Err(failure) => Err(failure),
    };
    answers.into_iter().map(read).collect()
}

/// The same from a dump of all. Alternative names lead to a device there as they do where the
/// kernel is asked.
fn by_names(
    channel: &mut Channel,
    netns: &Netns,
    names: &[&str],
) -> Result<Vec<Option<Seen>>, Failure> {
    let read = |payload: &[u8]| {
        Some((
            Seen::read(netns, payload)?,
            reply::alternative_names(payload),
        ))
    };
    let devices = channel.dump(request::dump_links(), read)?;
    let mut by_name: HashMap<&str, &Seen> = HashMap::new();
    for (seen, alternatives) in &devices {
        by_name.extend(
            alternatives
                .iter()
                .chain([&seen.device.name])
                .map(|name| (name.as_str(), seen)),
        );
    }
    Ok(names
        .iter()
        .map(|name| by_name.get(name).map(|seen| (*seen).clone()))
        .collect())
}

/// Fills in addresses and routes.
fn details(channel: &mut Channel, devices: Vec<&mut Observed>) -> Result<(), Failure> {
    if devices.is_empty() {
        return Ok(());
    }
    let mut addresses: HashMap<u32, Vec<Address>> = HashMap::new();
    let indexes = if devices.len() <= FEW {
        devices.iter().map(|device| device.index).collect()
    } else {
        vec![0]
    };
    let mut routes: HashMap<u32, Vec<Hop>> = HashMap::new();
    // Each family by itself: a dump of all families waits for the RTNL lock, which somebody may
    // hold for tens of milliseconds; these do not (net/core/rtnetlink.c, RTNL_FLAG_DUMP_UNLOCKED).
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for index in &indexes {
            let found = match channel.dump(request::dump_addresses(family, *index), reply::address)
            {
                // The device is gone since.
                Err(failure) if failure.errno == Errno::ENODEV => continue,
                found => found?,
            };
            for address in found {
                addresses.entry(address.index).or_default().push(address);
            }
        }
        // By protocol, since a router's table may hold a million routes that it learned.
        for protocol in ROUTE_PROTOCOLS {
            for hop in main_routes(channel, family, protocol)? {
                routes.entry(hop.index).or_default().push(hop);
            }
        }
    }
    for device in devices {
        let of_device = addresses.remove(&device.index).unwrap_or_default();
        device.addresses = of_device
            .iter()
            .filter_map(|address| address.observed(device.mac))
            .collect();
        device.routes = routes
            .remove(&device.index)
            .unwrap_or_default()
            .into_iter()
            .map(Hop::observed)
            .collect();
    }
    Ok(())
}

/// The routes of the main table; a namespace in which nothing ever had an address has no such
/// table.
pub(crate) fn main_routes(
    channel: &mut Channel,
    family: AddressFamily,
    protocol: u8,
) -> Result<Vec<Hop>, Failure> {
    match channel.dump(request::dump_routes(family, protocol), reply::route) {
        Err(failure) if failure.errno == Errno::ENOENT => Ok(Vec::new()),
        found => found,
    }
}
