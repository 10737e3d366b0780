//! A network device.

use std::net::IpAddr;

use ipnet::IpNet;
use ratchet_model::{
    Mac,
    device::{
        Alias, GROUP_DOOMED, GROUP_OURS, Kind, Netns, NewDevice, Observed, ObservedAddress,
        ObservedRoute, SourcePorts, Tunnel,
    },
};

use super::{NetnsId, UNDERLAY_MTU};

/// A device, wherever it is moved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(u64);

impl DeviceId {
    pub(super) fn new(number: u64) -> Self {
        Self(number)
    }
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// A veth.
    Veth {
        /// The other end.
        peer: DeviceId,
    },
    /// A VXLAN device.
    Vxlan {
        /// Where it sends to, and what it receives.
        tunnel: Tunnel,
        /// The namespace of its UDP socket.
        home: NetnsId,
    },
    /// Anything else.
    Other,
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Where it is.
    pub netns: NetnsId,
    /// Its index there.
    pub index: u32,
    /// Its name there.
    pub name: String,
    /// What it is.
    pub form: Form,
    /// The source ports of a VXLAN device.
    pub source: Option<SourcePorts>,
    /// Its alias, if that is one of Ratchet's.
    pub alias: Option<Alias>,
    /// Its group.
    pub group: u32,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is set up.
    pub up: bool,
    /// Its addresses.
    pub addresses: Vec<ObservedAddress>,
    /// Its routes.
    pub routes: Vec<ObservedRoute>,
}

impl Device {
    /// A device that is nowhere yet.
    pub(super) fn new(name: &str, form: Form) -> Self {
        Self {
            netns: NetnsId(0),
            index: 0,
            name: name.to_owned(),
            form,
            source: None,
            alias: None,
            group: 0,
            mac: None,
            mtu: UNDERLAY_MTU,
            up: false,
            addresses: Vec::new(),
            routes: Vec::new(),
        }
    }

    /// A device as Ratchet has it made.
    pub(super) fn created(new: &NewDevice, form: Form) -> Self {
        Self {
            group: GROUP_OURS,
            mac: Some(new.mac),
            mtu: new.mtu.bytes(),
            ..Self::new(&new.at.name, form)
        }
    }

    /// Whether Ratchet made it.
    pub fn is_ours(&self) -> bool {
        self.alias.is_some() || self.group == GROUP_OURS || self.group == GROUP_DOOMED
    }

    /// Sets it up or down. Down, it loses its routes (net/ipv4/fib_frontend.c, `fib_disable_ip`)
    /// and its IPv6 addresses (net/ipv6/addrconf.c, `addrconf_ifdown`).
    pub(super) fn set_up(&mut self, up: bool) {
        if self.up && !up {
            self.routes.clear();
            self.addresses.retain(|o| o.address.addr().is_ipv4());
        }
        self.up = up;
    }

    /// Removes an address, and with the first of its subnet all others of that: net/ipv4/devinet.c,
    /// `__inet_del_ifa` without `promote_secondaries`.
    pub(super) fn remove_address(&mut self, gone: IpNet) {
        let Some(at) = self.addresses.iter().position(|o| o.address == gone) else {
            return;
        };
        let same = |o: &ObservedAddress| o.address.trunc() == gone.trunc() && gone.addr().is_ipv4();
        let is_first = !self.addresses[..at].iter().any(same);
        self.addresses.remove(at);
        if is_first {
            self.addresses.retain(|o| !same(o));
        }
    }

    /// Whether an address can be reached through this device without a router.
    pub(super) fn reaches(&self, address: IpAddr) -> bool {
        if !self.up {
            return false;
        }
        let on_link = self.routes.iter().filter(|o| o.route.via.is_none());
        let mut subnets = self
            .addresses
            .iter()
            .map(|o| o.address)
            .chain(on_link.map(|o| o.route.dst));
        subnets.any(|subnet| subnet.contains(&address))
    }

    pub(super) fn observed<'d>(
        &self,
        netns: &Netns,
        find: impl Fn(DeviceId) -> Option<&'d Device>,
    ) -> Observed {
        let (kind, carrier) = match &self.form {
            Form::Veth { peer } => {
                let peer = find(*peer);
                let index = peer.map_or(0, |peer| peer.index);
                (Kind::Veth { peer: index }, peer.is_some_and(|peer| peer.up))
            }
            Form::Vxlan { tunnel, .. } => (Kind::from(tunnel), true),
            Form::Other => (Kind::Other, true),
        };
        Observed {
            netns: netns.clone(),
            name: self.name.clone(),
            index: self.index,
            kind,
            source: self.source,
            alias: self.alias.clone(),
            group: self.group,
            mac: self.mac,
            mtu: self.mtu,
            up: self.up,
            carrier: self.up && carrier,
            addresses: Vec::new(),
            routes: Vec::new(),
        }
    }
}
