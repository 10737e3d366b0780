//! Check and status: looking without touching.

use std::collections::BTreeSet;

use ratchet_kernel::Look;
use ratchet_model::{
    LinkId, SandboxId,
    device::{At, Interface, Netns, Observed, WantedEnd},
};
use ratchet_protocol::{Check, Failure, FailureKind, Reply, Settings};

use super::Engine;
use crate::{sandboxes::enter, state::SandboxState};

fn broken(text: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Broken, text)
}

impl Engine {
    /// Whether a sandbox still has what was made for it. Links that wait for their peer are well.
    pub(super) fn check(&mut self, check: &Check) -> Result<Reply, Failure> {
        let id = &check.attachment.container_id;
        let state = self
            .sandboxes
            .get(id)
            .filter(|state| !state.leaving)
            .cloned()
            .ok_or_else(|| broken(format!("sandbox {id} is not attached")))?;
        let given = self.kernel.identify(&check.netns);
        let given = given.map_err(|e| broken(e.to_string()))?;
        enter(&mut *self.kernel, &state).map_err(|e| broken(e.to_string()))?;
        if given != state.netns_identity() {
            return Err(broken(format!(
                "{} is not the namespace that sandbox {id} was attached with",
                check.netns.display()
            )));
        }
        let expected = self.expected_ends(id);
        let names: BTreeSet<String> = expected
            .iter()
            .map(|end| end.name.clone())
            .chain(check.interfaces.iter().map(|i| i.name.clone()))
            .collect();
        let netns = Netns::Sandbox(id.clone());
        let observed = self
            .kernel
            .observe(&[(netns, Look::Names(names))].into(), &|_| false);
        let observed = observed.map_err(|e| broken(e.to_string()))?;
        let find = |name: &str| observed.iter().find(|device| device.name == name);
        for end in &expected {
            let device = find(&end.name).ok_or_else(|| {
                broken(format!("interface {} of sandbox {id} is missing", end.name))
            })?;
            if !end.is_complete(device) {
                return Err(broken(format!(
                    "interface {} of sandbox {id} is not the one that Ratchet made",
                    end.name
                )));
            }
        }
        let required = self.required_interfaces(&state);
        for interface in &check.interfaces {
            let found = find(&interface.name);
            if found.is_some() || required.contains(interface.name.as_str()) {
                check_interface(interface, found, id)?;
            }
        }
        Ok(Reply::Done)
    }

    /// The interfaces that a pod itself declares. What another pod has ended since, or does not
    /// consent to any more, is not missing, and neither is anything while another has its name.
    fn required_interfaces<'s>(&self, state: &'s SandboxState) -> BTreeSet<&'s str> {
        if state.held_by.is_some() {
            return BTreeSet::new();
        }
        let barred: BTreeSet<LinkId> = self
            .wires
            .of(&state.pod)
            .filter(|tracked| tracked.link.barred.is_some())
            .map(|tracked| tracked.link.id)
            .collect();
        let links = state
            .links
            .iter()
            .filter(|link| !barred.contains(&link.id()));
        links
            .flat_map(|link| [&link.local, &link.remote])
            .filter(|end| end.pod == state.pod)
            .map(|end| end.interface.as_str())
            .collect()
    }

    /// The ends that a sandbox should have by now.
    fn expected_ends(&self, id: &SandboxId) -> Vec<WantedEnd> {
        let netns = Netns::Sandbox(id.clone());
        let Some(state) = self.sandboxes.get(id) else {
            return Vec::new();
        };
        let made = self
            .wires
            .of(&state.pod)
            .filter(|tracked| tracked.failure.is_none());
        made.flat_map(|tracked| tracked.wiring.made_ends())
            .filter(|end| end.netns == netns)
            .cloned()
            .collect()
    }

    pub(super) fn read_interfaces(
        &mut self,
        id: &SandboxId,
        devices: &[At],
    ) -> Vec<Option<Interface>> {
        let Some(state) = self.sandboxes.get(id) else {
            return Vec::new();
        };
        if enter(&mut *self.kernel, state).is_err() {
            return Vec::new();
        }
        self.kernel.interfaces(devices).unwrap_or_default()
    }

    /// Whether an ADD could succeed now. Changes nothing: settings that an ADD would take over are
    /// looked at, the store that they name is not.
    pub(super) fn status(&mut self, settings: &Settings) -> Result<Reply, Failure> {
        if !self.node.agrees(settings, &*self.kernel)? {
            return Ok(Reply::Done);
        }
        if let Some(failure) = self.node.failure() {
            return Err(failure);
        }
        self.session.ping()?;
        Ok(Reply::Done)
    }
}

fn check_interface(
    expected: &Interface,
    found: Option<&Observed>,
    id: &SandboxId,
) -> Result<(), Failure> {
    let name = &expected.name;
    let found =
        found.ok_or_else(|| broken(format!("interface {name} of sandbox {id} is missing")))?;
    if !found.is_ours() {
        return Err(broken(format!(
            "interface {name} of sandbox {id} is not the one that Ratchet made"
        )));
    }
    match (expected.mac, found.mac) {
        (Some(expected), Some(found)) if expected != found => Err(broken(format!(
            "interface {name} of sandbox {id} has the address {found}; it was made with {expected}"
        ))),
        _ => Ok(()),
    }
}
