//! A network device.

use std::net::IpAddr;

use ipnet::IpNet;
use ratchet_model::{
    Mac,
    device::{
        Alias, GROUP_DOOMED, GROUP_OURS, Kind, Netns, NewDevice, Observed, ObservedAddress,
        ObservedRoute, Part, Peer, SourcePorts, Tunnel,
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

/// The code in an alias: what it was made of. A pod's root can copy it, and not make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// The key of the node.
    pub(super) key: u64,
    /// What the alias says.
    pub(super) alias: Alias,
    /// Where the device is.
    pub(super) netns: NetnsId,
    /// Its index there.
    pub(super) index: u32,
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
    /// Its alias, if that reads like one of Ratchet's.
    pub alias: Option<Alias>,
    /// The code in its alias.
    pub seal: Option<Seal>,
    /// Its group.
    pub group: u32,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is set up.
    pub up: bool,
    /// The device to which it passes on what it receives, past the node's stack. When that has
    /// gone, the frames are dropped (net/sched/act_mirred.c, `tcf_mirred_act`).
    pub joined: Option<DeviceId>,
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
            seal: None,
            group: 0,
            mac: None,
            mtu: UNDERLAY_MTU,
            up: false,
            joined: None,
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

    /// Whether Ratchet made it, as far as can be told from it.
    pub fn is_ours(&self) -> bool {
        let is_marked = self.group == GROUP_OURS || self.group == GROUP_DOOMED;
        let has_ports = self.source.is_some_and(SourcePorts::are_assigned);
        self.form != Form::Other && (self.proven().is_some() || is_marked || has_ports)
    }

    /// What its alias says, if an agent wrote it for this device in this place.
    pub fn proven(&self) -> Option<&Alias> {
        let (alias, seal) = (self.alias.as_ref()?, self.seal.as_ref()?);
        let is_here = (seal.netns, seal.index) == (self.netns, self.index);
        (is_here && seal.alias == *alias).then_some(alias)
    }

    /// Writes an alias with the code of a key, for where the device is.
    pub(super) fn sign(&mut self, alias: &Alias, key: u64) {
        self.alias = Some(alias.clone());
        self.seal = Some(Seal {
            key,
            alias: alias.clone(),
            netns: self.netns,
            index: self.index,
        });
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

    /// What an agent with this key sees of it; `place` tells the namespaces that it knows.
    pub(super) fn observed<'d>(
        &self,
        netns: &Netns,
        key: u64,
        find: impl Fn(DeviceId) -> Option<&'d Device>,
        place: impl Fn(NetnsId) -> Option<Netns>,
    ) -> Observed {
        let (kind, carrier) = match &self.form {
            Form::Veth { peer } => {
                let peer = find(*peer);
                let known = peer.and_then(|peer| {
                    Some(Peer {
                        netns: place(peer.netns)?,
                        index: peer.index,
                    })
                });
                (Kind::Veth { peer: known }, peer.is_some_and(|peer| peer.up))
            }
            Form::Vxlan { tunnel, .. } => (Kind::from(tunnel), true),
            Form::Other => (Kind::Other, true),
        };
        let is_of_key = self.seal.as_ref().is_some_and(|seal| seal.key == key);
        let proven = self.proven().filter(|_| is_of_key && kind != Kind::Other);
        let is_joined = |alias: &&Alias| *netns == Netns::Node && alias.part != Part::Pod;
        let joined = proven.filter(is_joined).and(self.joined).and_then(&find);
        let said = self.alias.as_ref().filter(|_| kind != Kind::Other);
        Observed {
            netns: netns.clone(),
            name: self.name.clone(),
            index: self.index,
            kind,
            source: self.source,
            alias: proven.cloned(),
            unproven: said.filter(|_| proven.is_none()).cloned(),
            group: self.group,
            mac: self.mac,
            mtu: self.mtu,
            up: self.up,
            carrier: self.up && carrier,
            joined: joined.map(|target| target.index),
            addresses: Vec::new(),
            routes: Vec::new(),
        }
    }
}
