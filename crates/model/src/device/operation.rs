//! The steps of a plan.

use ipnet::IpNet;

use super::{alias::Alias, netns::At, passage::SourcePorts, tunnel::Tunnel};
use crate::{
    link::{Mac, Mtu, Route},
    names::LinkId,
};

/// A device to be created. It is created down, in [`GROUP_OURS`](super::GROUP_OURS), without alias;
/// in the node's namespace without ARP, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDevice {
    /// Its location.
    pub at: At,
    /// Ethernet address.
    pub mac: Mac,
    /// MTU.
    pub mtu: Mtu,
    /// The index that it gets if that is free: the index of the device that it replaces, by which
    /// daemons in the pod know it. So that it is free, a device that asks for one is created before
    /// those of the same namespace that take any.
    pub index: Option<u32>,
}

/// One change to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Delete the device (and with a veth its peer). All deletions of a plan are done together.
    Delete(At),
    /// Put a device into another namespace, down, under another name. The same request writes the
    /// alias, so that no crash can leave a moved device (which has lost its addresses) with the
    /// alias of a complete one.
    Move {
        /// The device as it is now.
        from: At,
        /// Its new location. `from.netns == to.netns` only renames.
        to: At,
        /// Its alias until it is committed: that of a parked device.
        alias: Alias,
    },
    /// Create a veth pair, each end in its namespace.
    CreateVeth {
        /// One end.
        a: NewDevice,
        /// The other.
        z: NewDevice,
    },
    /// Create a VXLAN device in its namespace, its socket in the node's.
    CreateVxlan {
        /// The device.
        device: NewDevice,
        /// Its parameters.
        tunnel: Tunnel,
        /// The source ports that it gets for its own, if any
        /// ([`assign_source_ports`](crate::planner::assign_source_ports)).
        source: Option<SourcePorts>,
    },
    /// Change remote and local address of a VXLAN device.
    Retarget {
        /// The device.
        at: At,
        /// Its new parameters.
        tunnel: Tunnel,
    },
    /// The first step of changing a complete device: write an alias that is not the wanted one, so
    /// that a change that fails or is cut off is found again.
    Begin(At, Alias),
    /// Set its Ethernet address.
    SetMac(At, Mac),
    /// Set its MTU.
    SetMtu(At, Mtu),
    /// Keep the node's stack off it: it gets no address of its own. A device in the node's
    /// namespace is created without ARP ([`NewDevice`]).
    Silence(At),
    /// Have every frame that one device in the node's namespace receives passed on to another one
    /// there, past the node's stack.
    Join {
        /// The device that receives.
        from: At,
        /// The device that sends.
        to: At,
    },
    /// Set it up or down.
    SetUp(At, bool),
    /// Add an address. It is no error if the device has it. Clears `disable_ipv6` for a v6 address;
    /// no duplicate address detection.
    AddAddress(At, IpNet),
    /// Remove an address. It is no error if the device does not have it.
    RemoveAddress(At, IpNet),
    /// Add a route, before others for the same destination. The device must be up. It is no error
    /// if the route exists.
    AddRoute(At, Route),
    /// Remove a route. It is no error if the route does not exist.
    RemoveRoute(At, Route),
    /// Like `AddAddress`, for an address that the pod had added to the device which this one
    /// replaces: it is not marked as ours.
    RestoreAddress(At, IpNet),
    /// Like `AddRoute`, for a route of the pod's own: it is not marked as ours.
    RestoreRoute(At, Route),
    /// Have the kernel report once more that the device has this address. FRR's zebra (8.4, Debian
    /// 12's) hears of devices and of addresses on two threads and drops an address whose device it
    /// does not know yet; of devices that are created complete it loses about one in three. The
    /// planner never asks for this. The agent does, after routers have had time.
    AnnounceAddress(At, IpNet),
    /// The last step: write the alias. Executed only if every other step of the same link and end
    /// succeeded.
    Commit(At, Alias),
}

impl Operation {
    /// The devices that it is about: both ends of a pair; of a move the old location, then the new;
    /// of a joint the receiving device, then the sending one.
    pub fn devices(&self) -> impl DoubleEndedIterator<Item = &At> {
        let (one, other) = match self {
            Operation::CreateVeth { a, z } => (&a.at, Some(&z.at)),
            Operation::Move { from, to, .. } | Operation::Join { from, to } => (from, Some(to)),
            Operation::CreateVxlan { device, .. } => (&device.at, None),
            Operation::Retarget { at, .. }
            | Operation::Delete(at)
            | Operation::SetMac(at, _)
            | Operation::SetMtu(at, _)
            | Operation::SetUp(at, _)
            | Operation::Silence(at)
            | Operation::AddAddress(at, _)
            | Operation::RemoveAddress(at, _)
            | Operation::AddRoute(at, _)
            | Operation::RemoveRoute(at, _)
            | Operation::RestoreAddress(at, _)
            | Operation::AnnounceAddress(at, _)
            | Operation::RestoreRoute(at, _)
            | Operation::Begin(at, _)
            | Operation::Commit(at, _) => (at, None),
        };
        std::iter::once(one).chain(other)
    }

    /// The devices that it creates.
    pub fn new_devices(&self) -> impl Iterator<Item = &NewDevice> {
        let devices = match self {
            Operation::CreateVeth { a, z } => [Some(a), Some(z)],
            Operation::CreateVxlan { device, .. } => [Some(device), None],
            _ => [None, None],
        };
        devices.into_iter().flatten()
    }

    /// Whether it creates a device that asks for an index.
    pub fn asks_for_index(&self) -> bool {
        self.new_devices().any(|new| new.index.is_some())
    }
}

/// An operation, and the link that it is done for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The link.
    pub link: LinkId,
    /// The operation.
    pub operation: Operation,
}
