//! The underlay: the interface and address at which this node's tunnels start. Reads only.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use ratchet_model::device::{Netns, Observed};

use crate::{
    error::KernelError,
    kernel::Kernel,
    observe::main_routes,
    reply::{self, Address},
    request,
    socket::{Channel, Failure},
};

/// Where tunnels start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// The parent interface.
    pub interface: String,
    /// Its index in the node's namespace.
    pub index: u32,
    /// The parent address: this node's VTEP.
    pub address: IpAddr,
    /// The interface's MTU.
    pub mtu: u32,
    /// All of the interface's global addresses.
    pub addresses: Vec<IpNet>,
}

/// Why there is no underlay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnderlayError {
    /// There is no default route to go by.
    #[error(
        "cannot tell where tunnels are to start: the node has no default route; set \
         parent_interface"
    )]
    NoDefaultRoute,
    /// There is no such interface.
    #[error(
        "parent_interface {interface}: the node has no such interface; it has {}",
        list(has)
    )]
    NoInterface {
        /// The interface.
        interface: String,
        /// Those there are.
        has: Vec<String>,
    },
    /// The interface has no address that another node could reach.
    #[error(
        "parent interface {interface} has no global address; give it one, or set parent_interface \
         to another"
    )]
    NoAddress {
        /// The interface.
        interface: String,
    },
    /// The address is not the interface's.
    #[error(
        "parent_address {address} is not on parent interface {interface}, which has {}",
        list(has)
    )]
    AddressElsewhere {
        /// The address.
        address: IpAddr,
        /// The interface.
        interface: String,
        /// The addresses it has.
        has: Vec<IpNet>,
    },
    /// The kernel did not tell.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        "none".to_owned()
    } else {
        items
            .iter()
            .map(T::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// IFA_F_SECONDARY (for IPv6: temporary), DADFAILED, DEPRECATED and TENTATIVE,
/// include/uapi/linux/if_addr.h: an address that may not stay. Such a one is taken only when it is
/// asked for.
const FLEETING: u32 = 0x01 | 0x08 | 0x20 | 0x40;

impl Kernel {
    /// Finds the underlay. The interface is the one given, else the one that has the address given,
    /// else that of the default route: IPv4's first, then IPv6's, of several the one with the
    /// lowest metric. The address is the one given, else the interface's first global one, IPv4
    /// before IPv6.
    ///
    /// # Errors
    /// When interface or address do not exist or do not belong together, or there is no default to
    /// be found.
    pub fn underlay(
        &self,
        interface: Option<&str>,
        address: Option<IpAddr>,
    ) -> Result<Underlay, UnderlayError> {
        let read = self
            .talk(&Netns::Node, read)?
            .map_err(|failure| KernelError::Refused {
                doing: "read the node's interfaces, addresses and routes".into(),
                errno: failure.errno,
                reason: failure.reason,
            })?;
        read.choose(interface, address)
    }
}

/// What the choice is made from.
struct Node {
    devices: Vec<Observed>,
    addresses: Vec<Address>,
    /// The interfaces of the default routes, best first.
    defaults: Vec<u32>,
}

fn read(channel: &mut Channel) -> Result<Node, Failure> {
    let devices = channel.dump(request::dump_links(), |payload| {
        reply::link(&Netns::Node, payload)
    })?;
    let (mut addresses, mut defaults) = (Vec::new(), Vec::new());
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        addresses.extend(channel.dump(request::dump_addresses(family, 0), reply::address)?);
        let mut hops = main_routes(channel, family, 0)?;
        hops.retain(|hop| hop.route.dst.prefix_len() == 0);
        hops.sort_by_key(|hop| hop.route.metric);
        defaults.extend(hops.into_iter().map(|hop| hop.index));
    }
    Ok(Node {
        devices,
        addresses,
        defaults,
    })
}

impl Node {
    fn choose(
        &self,
        interface: Option<&str>,
        address: Option<IpAddr>,
    ) -> Result<Underlay, UnderlayError> {
        let parent = self.parent(interface, address)?;
        let of_parent = || {
            self.addresses
                .iter()
                .filter(|found| found.index == parent.index)
        };
        let addresses: Vec<IpNet> = of_parent()
            .filter(|found| found.global)
            .map(|found| found.net)
            .collect();
        let lasting = || {
            of_parent()
                .filter(|found| found.global && found.flags & FLEETING == 0)
                .map(|found| found.net.addr())
        };
        let address = match address {
            Some(address) if of_parent().any(|found| found.net.addr() == address) => address,
            Some(address) => {
                let interface = parent.name.clone();
                return Err(UnderlayError::AddressElsewhere {
                    address,
                    interface,
                    has: addresses,
                });
            }
            None => lasting()
                .find(IpAddr::is_ipv4)
                .or_else(|| lasting().next())
                .ok_or_else(|| UnderlayError::NoAddress {
                    interface: parent.name.clone(),
                })?,
        };
        Ok(Underlay {
            interface: parent.name.clone(),
            index: parent.index,
            address,
            mtu: parent.mtu,
            addresses,
        })
    }

    fn parent(
        &self,
        interface: Option<&str>,
        address: Option<IpAddr>,
    ) -> Result<&Observed, UnderlayError> {
        if let Some(name) = interface {
            return self
                .devices
                .iter()
                .find(|device| device.name == name)
                .ok_or_else(|| UnderlayError::NoInterface {
                    interface: name.to_owned(),
                    has: self
                        .devices
                        .iter()
                        .map(|device| device.name.clone())
                        .collect(),
                });
        }
        let holder = self
            .addresses
            .iter()
            .find(|found| Some(found.net.addr()) == address)
            .map(|found| found.index);
        let index = holder
            .or_else(|| self.defaults.first().copied())
            .ok_or(UnderlayError::NoDefaultRoute)?;
        self.devices
            .iter()
            .find(|device| device.index == index)
            .ok_or(UnderlayError::NoDefaultRoute)
    }
}
