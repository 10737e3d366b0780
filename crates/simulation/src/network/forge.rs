//! What the root of a pod can do to its devices and their aliases.

use ratchet_model::{
    End, LinkId, SandboxId,
    device::{Alias, GROUP_OURS, Part},
};

use super::{Device, DeviceId, Form, Inner, NetnsId, PodNumber, Seal};

/// What a pod's root does, to a device with one of the names of the pod's interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forgery {
    /// Writes an alias.
    Alias {
        /// The interface.
        interface: u8,
        /// What it writes.
        text: Text,
    },
    /// Puts the device into Ratchet's group, or out of it.
    Group {
        /// The interface.
        interface: u8,
        /// Into it.
        is_ours: bool,
    },
    /// Gives the device another name, and the one that has it this name.
    Rename {
        /// The interface.
        interface: u8,
        /// The other name.
        to: u8,
    },
    /// Deletes the device.
    Delete {
        /// The interface.
        interface: u8,
    },
    /// Moves the device to a namespace of its own.
    Take {
        /// The interface.
        interface: u8,
    },
    /// Moves a device of that name back.
    Bring {
        /// The interface.
        interface: u8,
    },
    /// Makes a veth, in Ratchet's group. With a copied alias it gets the index that the alias was
    /// written for.
    Make {
        /// The interface.
        interface: u8,
        /// Whether its peer is in another namespace of its own.
        is_outside: bool,
        /// The index of the peer.
        peer_index: u32,
        /// Its alias.
        text: Text,
    },
    /// Makes two veths that look like one, by their indexes, and like a link of other pods by their
    /// aliases. Their real peers are in a namespace of its own.
    Pair {
        /// The ends of the link.
        ends: [(PodNumber, u8); 2],
        /// Whether the aliases say that they are parked; else that they are in the sandboxes of the
        /// pods.
        is_parked: bool,
    },
}

/// What a pod's root writes for an alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// Nothing.
    Erased,
    /// One of those that it has seen.
    Copied(usize),
    /// One without a code, of a link between any two interfaces.
    Invented {
        /// The ends of the link: pods and numbers of interfaces.
        ends: [(PodNumber, u8); 2],
        /// The end.
        is_a: bool,
        /// Whether it is parked; else it is in the sandbox of the end's pod.
        is_parked: bool,
    },
}

/// What a root knows besides what it sees.
pub struct Knowledge<'k> {
    /// The name of an interface.
    pub name: &'k dyn Fn(u8) -> String,
    /// The newest sandbox of a pod.
    pub sandbox: &'k dyn Fn(PodNumber) -> Option<SandboxId>,
}

/// So many aliases a root remembers.
const SEEN: usize = 64;

impl Inner {
    /// The root of a pod does something in a sandbox's namespace.
    pub fn forge(&mut self, netns: NetnsId, forgery: &Forgery, knows: &Knowledge<'_>) {
        let Some(pod) = self.namespaces.get(&netns).and_then(|found| found.pod) else {
            return;
        };
        self.remember_aliases(pod, netns);
        let name = knows.name;
        let own = |network: &Self, interface: u8| network.own(netns, &name(interface));
        match forgery {
            Forgery::Alias { interface, text } => {
                if let Some(id) = own(self, *interface) {
                    self.write(pod, id, text, knows);
                }
            }
            Forgery::Group { interface, is_ours } => {
                let id = own(self, *interface);
                if let Some(device) = id.and_then(|id| self.devices.get_mut(&id)) {
                    device.group = if *is_ours { GROUP_OURS } else { 0 };
                }
            }
            Forgery::Rename { interface, to } => self.swap(netns, [&name(*interface), &name(*to)]),
            Forgery::Delete { interface } => {
                if let Some(id) = own(self, *interface) {
                    self.delete(id);
                }
            }
            Forgery::Take { .. }
            | Forgery::Bring { .. }
            | Forgery::Make { .. }
            | Forgery::Pair { .. } => self.forge_with_child(pod, netns, forgery, knows),
        }
        self.stepped(&|| format!("the root of p{pod}: {forgery:?}"));
    }

    /// What needs another namespace of the root's own.
    fn forge_with_child(
        &mut self,
        pod: PodNumber,
        netns: NetnsId,
        forgery: &Forgery,
        knows: &Knowledge<'_>,
    ) {
        let child = self.child_of(netns);
        match forgery {
            Forgery::Take { interface } => self.carry(netns, child, &(knows.name)(*interface)),
            Forgery::Bring { interface } => self.carry(child, netns, &(knows.name)(*interface)),
            Forgery::Make {
                interface,
                is_outside,
                peer_index,
                text,
            } => {
                let target = if *is_outside { child } else { netns };
                let name = (knows.name)(*interface);
                if self.find(netns, &name).is_some() {
                    return;
                }
                let index = match text {
                    Text::Copied(number) => self.copied(pod, *number),
                    _ => None,
                };
                let index = index.map(|(_, seal)| seal.index);
                let made = self.make((netns, &name, index), (target, Some(*peer_index)));
                self.write(pod, made, text, knows);
            }
            Forgery::Pair { ends, is_parked } => {
                self.make_pair(pod, (netns, child), (*ends, *is_parked), knows);
            }
            _ => {}
        }
    }

    /// A device that is no stranger's, by its name.
    fn own(&self, netns: NetnsId, name: &str) -> Option<DeviceId> {
        let found = self.find(netns, name);
        found.filter(|id| !self.strangers.contains_key(id))
    }

    /// The namespace that a pod's root has made in a sandbox. It ends with the sandbox's.
    fn child_of(&mut self, netns: NetnsId) -> NetnsId {
        if let Some(child) = self.children.get(&netns) {
            return *child;
        }
        let of = &self.namespaces[&netns];
        let path = of.path.join("child");
        let child = self.add_namespace(of.node, of.pod, path);
        self.children.insert(netns, child);
        child
    }

    fn remember_aliases(&mut self, pod: PodNumber, netns: NetnsId) {
        let devices = self.devices_in(netns);
        let seen: Vec<(Alias, Seal)> = devices
            .filter_map(|(_, device)| Some((device.alias.clone()?, device.seal.clone()?)))
            .collect();
        let known = self.seen.entry(pod).or_default();
        for alias in seen {
            if known.len() < SEEN && !known.contains(&alias) {
                known.push(alias);
            }
        }
    }

    fn copied(&self, pod: PodNumber, number: usize) -> Option<(Alias, Seal)> {
        let seen = self.seen.get(&pod).filter(|seen| !seen.is_empty())?;
        Some(seen[number % seen.len()].clone())
    }

    fn write(&mut self, pod: PodNumber, id: DeviceId, text: &Text, knows: &Knowledge<'_>) {
        let written = match text {
            Text::Erased => None,
            Text::Copied(number) => self.copied(pod, *number),
            Text::Invented { .. } => None,
        };
        let Some(device) = self.devices.get_mut(&id) else {
            return;
        };
        (device.alias, device.seal) = written.unzip();
        if let Text::Invented { .. } = text {
            device.alias = invented(text, knows);
        }
    }

    fn swap(&mut self, netns: NetnsId, names: [&str; 2]) {
        let is_taken = self.find(netns, names[1]).is_some();
        let [one, other] = names.map(|name| self.own(netns, name));
        if is_taken && other.is_none() {
            return;
        }
        for (id, name) in [(one, names[1]), (other, names[0])] {
            let Some(device) = id.and_then(|id| self.devices.get_mut(&id)) else {
                continue;
            };
            // A device must be down for that.
            device.set_up(false);
            device.set_up(true);
            name.clone_into(&mut device.name);
            self.has_changed = true;
        }
    }

    /// Moves a device, which keeps its index if that is free.
    fn carry(&mut self, from: NetnsId, to: NetnsId, name: &str) {
        let Some(id) = self.own(from, name) else {
            return;
        };
        if self.find(to, name).is_some() || self.devices[&id].form == Form::Other {
            return;
        }
        if let Some(mut device) = self.take(id) {
            device.addresses.clear();
            device.routes.clear();
            let index = device.index;
            self.place(to, id, device, Some(index));
        }
    }

    fn make_pair(
        &mut self,
        pod: PodNumber,
        (netns, child): (NetnsId, NetnsId),
        (ends, is_parked): ([(PodNumber, u8); 2], bool),
        knows: &Knowledge<'_>,
    ) {
        let base = u32::try_from(self.number()).unwrap_or_default() * 2 + 1000;
        for (own, other) in [(0, 1), (1, 0)] {
            let (index, peer_index) = (base + own, base + other);
            let name = format!("f{index}");
            let made = self.make((netns, &name, Some(index)), (child, Some(peer_index)));
            let text = Text::Invented {
                ends,
                is_a: own == 0,
                is_parked,
            };
            self.write(pod, made, &text, knows);
        }
    }

    /// Makes a veth in Ratchet's group; returns its first end.
    fn make(
        &mut self,
        (netns, name, index): (NetnsId, &str, Option<u32>),
        (target, peer_index): (NetnsId, Option<u32>),
    ) -> DeviceId {
        let number = self.number();
        let veth = |name: &str| Device {
            group: GROUP_OURS,
            up: true,
            ..Device::new(
                name,
                Form::Veth {
                    peer: DeviceId::new(0),
                },
            )
        };
        let peer = self.insert(target, veth(&format!("x{number}")), peer_index);
        let made = self.insert(netns, veth(name), index);
        for (id, peer) in [(made, peer), (peer, made)] {
            if let Some(device) = self.devices.get_mut(&id) {
                device.form = Form::Veth { peer };
            }
        }
        made
    }
}

fn invented(text: &Text, knows: &Knowledge<'_>) -> Option<Alias> {
    let Text::Invented {
        ends,
        is_a,
        is_parked,
    } = text
    else {
        return None;
    };
    let key = |pod: PodNumber| crate::oracle::expected::key(pod);
    let [(one, first), (other, second)] = *ends;
    let (first, second) = ((knows.name)(first), (knows.name)(second));
    let [a, z] = {
        let mut sorted = [(key(one), first, one), (key(other), second, other)];
        sorted.sort();
        sorted
    };
    let owner = if *is_a { a.2 } else { z.2 };
    Some(Alias {
        link: LinkId::derive((&a.0, &a.1.parse().ok()?), (&z.0, &z.1.parse().ok()?)),
        end: if *is_a { End::A } else { End::Z },
        part: Part::Pod,
        sandbox: (knows.sandbox)(owner).filter(|_| !is_parked),
        config: u32::from(!is_parked),
    })
}
