//! What an event does to the cluster.

use std::time::Duration;

use ratchet_model::WiringKind;

use super::{Cluster, State};
use crate::{
    agent::Target,
    declaration::interface_name,
    event::{Event, Happening},
    history::Wrong,
    network::{Device, DeviceId, Knowledge, NetnsId, NodeNumber, PodNumber},
    store::Client,
};

/// How many calls to the store a fault of one lasts for.
const CALLS: u32 = 3;

impl Cluster {
    /// Lets an event happen, and the agents have their turns after it.
    ///
    /// # Errors
    /// What is wrong when everything has settled.
    pub fn apply(&mut self, event: &Event) -> Result<(), Wrong> {
        self.happen(&event.happening)?;
        for node in &event.turns {
            self.turn(node % self.nodes.len());
        }
        Ok(())
    }

    fn happen(&mut self, happening: &Happening) -> Result<(), Wrong> {
        match happening {
            Happening::Settle => return self.settle(),
            Happening::Advance { millis } => self.advance(Duration::from_millis(*millis)),
            Happening::Wipe => self.store.wipe(),
            Happening::Add {
                pod,
                node,
                declaration,
                is_expected,
            } => self.add(*pod, node % self.nodes.len(), declaration, *is_expected),
            Happening::Change { pod, declaration } => self.change(*pod, declaration),
            Happening::Del { pod, .. }
            | Happening::Abort { pod }
            | Happening::DelAgain { pod }
            | Happening::AddAgain { pod }
            | Happening::AddLate { pod }
            | Happening::Vanish { pod }
            | Happening::Check { pod }
            | Happening::Stranger { pod, .. }
            | Happening::Forge { pod, .. }
            | Happening::DeleteDevice { pod, .. } => self.happen_to_pod(*pod, happening),
            Happening::Collect(node)
            | Happening::Restart(node)
            | Happening::Rewire(node)
            | Happening::Crash { node, .. }
            | Happening::Reboot(node)
            | Happening::Offline(node)
            | Happening::CutOff(node)
            | Happening::EndSession(node)
            | Happening::LoseUnderlay(node)
            | Happening::FlushFilter(node)
            | Happening::RefuseFilter(node)
            | Happening::Online(node)
            | Happening::Slow(node)
            | Happening::Unanswered(node)
            | Happening::Stale { node, .. }
            | Happening::BreakWatch(node)
            | Happening::FillDisk(node)
            | Happening::FreeDisk(node)
            | Happening::LoseState { node, .. }
            | Happening::LoseKey(node)
            | Happening::ApiOffline(node) => {
                self.happen_to_node(node % self.nodes.len(), happening);
            }
        }
        Ok(())
    }

    fn happen_to_pod(&mut self, pod: PodNumber, happening: &Happening) {
        match happening {
            Happening::DelAgain { .. } | Happening::AddLate { .. } => {
                return self.call_of_gone(pod, happening);
            }
            Happening::Del { newest: false, .. } => {
                let is_left = |state: &State| matches!(state, State::Attached | State::Failed);
                let oldest = self
                    .sandboxes
                    .iter()
                    .position(|sandbox| sandbox.pod == pod && is_left(&sandbox.state));
                return oldest.into_iter().for_each(|at| self.del(at));
            }
            Happening::Abort { .. } => return self.abort(pod),
            _ => {}
        }
        let Some(at) = self.newest_at(pod) else {
            return;
        };
        if matches!(happening, Happening::Forge { .. }) {
            self.frames.lock().forgers.insert(pod);
        }
        match happening {
            Happening::Vanish { .. }
            | Happening::Stranger { .. }
            | Happening::Forge { .. }
            | Happening::DeleteDevice { .. } => {
                self.indexes.forget_pod(pod);
                self.happen_to_netns(self.sandboxes[at].netns, happening);
            }
            _ => self.call(at, happening),
        }
    }

    /// The runtime calls the agent about a sandbox.
    fn call(&mut self, at: usize, happening: &Happening) {
        let sandbox = &self.sandboxes[at];
        let agent = self.nodes[sandbox.node].agent.as_ref();
        let target = Target {
            id: &sandbox.id,
            netns: &sandbox.path,
        };
        match (happening, &sandbox.state) {
            (Happening::Del { .. }, State::Attached | State::Failed) => self.del(at),
            (Happening::AddAgain { .. }, State::Attached) => {
                let texts = sandbox.declaration.texts();
                drop(agent.map(|agent| agent.attach(&target, sandbox.pod, &texts, false)));
                let sandbox = &mut self.sandboxes[at];
                sandbox.is_unsure |= sandbox.is_unknown;
            }
            (Happening::Check { .. }, _) => drop(agent.map(|agent| agent.check(&target))),
            _ => {}
        }
    }

    /// Something other than the agent changes what is in a namespace.
    fn happen_to_netns(&self, netns: NetnsId, happening: &Happening) {
        let mut network = self.network.lock();
        match happening {
            Happening::Vanish { .. } => network.remove_namespace(netns),
            Happening::Stranger { interface, .. } => {
                network.add_stranger(netns, &interface_name(*interface));
            }
            Happening::DeleteDevice { interface, .. } => {
                let found = network.find(netns, &interface_name(*interface));
                let is_ours = |id: &DeviceId| network.device(*id).is_some_and(Device::is_ours);
                if let Some(id) = found.filter(is_ours) {
                    network.delete(id);
                }
            }
            Happening::Forge { forgery, .. } => {
                let knows = Knowledge {
                    name: &interface_name,
                    sandbox: &|pod| self.newest(pod).map(|sandbox| sandbox.id.clone()),
                };
                network.forge(netns, forgery, &knows);
            }
            _ => {}
        }
    }

    /// A late call about a sandbox that has gone.
    fn call_of_gone(&self, pod: PodNumber, happening: &Happening) {
        let gone = self
            .sandboxes
            .iter()
            .find(|sandbox| sandbox.pod == pod && matches!(sandbox.state, State::Gone));
        let Some(sandbox) = gone else { return };
        let Some(agent) = &self.nodes[sandbox.node].agent else {
            return;
        };
        if matches!(happening, Happening::AddLate { .. }) {
            let target = Target {
                id: &sandbox.id,
                netns: &sandbox.path,
            };
            let texts = sandbox.declaration.texts();
            drop(agent.attach(&target, pod, &texts, false));
        } else {
            drop(agent.detach(&sandbox.id, None));
        }
    }

    fn happen_to_node(&mut self, node: NodeNumber, happening: &Happening) {
        match happening {
            Happening::Collect(_) => self.collect(node),
            Happening::Restart(_) => {
                self.end_agent(node, true);
                self.start(node, None);
            }
            Happening::Rewire(_) => {
                self.end_agent(node, true);
                let wiring = &mut self.nodes[node].machine.wiring;
                *wiring = match wiring {
                    WiringKind::Direct => WiringKind::Stitched,
                    WiringKind::Stitched => WiringKind::Direct,
                };
                self.start(node, None);
            }
            Happening::Crash { after, .. } => match &self.nodes[node].agent {
                Some(agent) => agent.points().crash_after(*after),
                None => self.start(node, Some(*after)),
            },
            Happening::Reboot(_) => self.reboot(node),
            Happening::FillDisk(_) => {
                self.forget_indexes_of(node);
                self.files(node).set_full(true);
            }
            Happening::FreeDisk(_) => self.files(node).set_full(false),
            Happening::LoseState { all, .. } => self.lose_state(node, *all),
            Happening::LoseKey(_) => {
                self.end_agent(node, false);
                self.network.lock().lose_key(node);
                self.start(node, None);
            }
            Happening::ApiOffline(_) => self.nodes[node].hears = false,
            Happening::CutOff(_) => {
                self.nodes[node].hears = false;
                self.disturb(node, |faults| faults.is_offline = true);
            }
            Happening::EndSession(_) => self.store.end_session(node),
            Happening::LoseUnderlay(_) => self.network.lock().set_underlay(node, false),
            Happening::FlushFilter(_) => self.network.lock().flush_filter(node),
            Happening::RefuseFilter(_) => self.network.lock().refuse_filter(node, true),
            Happening::BreakWatch(_) => self.store.break_watches(node),
            Happening::Online(_) => self.heal(node),
            Happening::Offline(_) => self.disturb(node, |faults| faults.is_offline = true),
            Happening::Slow(_) => self.disturb(node, |faults| faults.slow = CALLS),
            Happening::Unanswered(_) => self.disturb(node, |faults| faults.unanswered = CALLS),
            Happening::Stale { reads, age, .. } => {
                self.disturb(node, |faults| faults.stale = (*reads, *age));
            }
            _ => {}
        }
    }

    /// Something goes wrong between a node and the store.
    fn disturb(&self, node: NodeNumber, change: impl FnOnce(&mut Client)) {
        let mut faults = self.store.client(node);
        change(&mut faults);
        self.store.set_client(node, faults);
    }

    /// What the devices of a node leave to those that replace them may be lost.
    fn forget_indexes_of(&mut self, node: NodeNumber) {
        let network = self.network.lock();
        self.indexes.forget_namespaces(|netns| {
            let namespace = network.namespace(netns);
            namespace.is_none_or(|namespace| namespace.node == node)
        });
    }

    /// The node reaches the store and the API again, has its address, and can change its filter.
    pub(super) fn heal(&mut self, node: NodeNumber) {
        self.network.lock().set_underlay(node, true);
        self.network.lock().refuse_filter(node, false);
        self.store.set_client(node, Client::default());
        if !self.nodes[node].hears {
            self.nodes[node].hears = true;
            self.tell_of_pods(node);
        }
    }

    fn collect(&self, node: NodeNumber) {
        let known = self
            .sandboxes
            .iter()
            .filter(|sandbox| sandbox.node == node && !matches!(sandbox.state, State::Gone));
        let valid: Vec<_> = known.map(|sandbox| &sandbox.id).collect();
        if let Some(agent) = &self.nodes[node].agent {
            drop(agent.collect(&valid));
        }
    }

    fn reboot(&mut self, node: NodeNumber) {
        self.end_agent(node, false);
        self.nodes[node].machine.boots += 1;
        self.network.lock().reboot(node);
    }

    /// The agent stops, loses its state, and starts again with the store at hand. It finds a
    /// sandbox again by its record and a device of ours in it; of one without either nobody knows.
    fn lose_state(&mut self, node: NodeNumber, all: bool) {
        self.end_agent(node, false);
        self.forget_indexes_of(node);
        let damaged = if all {
            self.files(node).lose_all();
            None
        } else {
            let Some(name) = self.files(node).damage_one(0) else {
                return;
            };
            Some(name)
        };
        let contents = self.store.contents();
        let network = self.network.lock();
        for sandbox in &mut self.sandboxes {
            let file = format!("sandboxes/{}.json", sandbox.id);
            let is_lost = damaged.as_ref().is_none_or(|damaged| *damaged == file);
            let mut devices = network.devices_in(sandbox.netns);
            let has_device = devices.any(|(_, device)| {
                let alias = network.proven(sandbox.node, device);
                alias.is_some_and(|alias| alias.sandbox.as_ref() == Some(&sandbox.id))
            });
            let mut records = contents.records.values();
            let has_record = records.any(|record| record.sandbox() == Some(&sandbox.id));
            let is_known = has_device && has_record;
            sandbox.is_unknown |= sandbox.node == node && is_lost && !is_known;
        }
        drop(network);
        self.heal(node);
        self.start(node, None);
    }
}
