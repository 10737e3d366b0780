//! Prepare and attach: a sandbox comes.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use ratchet_model::{
    DeclaredLink, PodKey, SandboxId,
    device::{At, Interface, Netns, WantedEnd},
};
use ratchet_protocol::{Attached, Failure, FailureKind, Prepared, Reply, Settings};
use ratchet_store::{Publish, Published};

use super::{Engine, NewSandbox, names};
use crate::{
    retry::Retry,
    sandboxes,
    state::SandboxState,
    wires::{self, Scope, Tracked},
};

fn invalid(text: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Invalid, text)
}

fn unwritten(id: &SandboxId, error: &std::io::Error) -> Failure {
    Failure::new(
        FailureKind::Io,
        format!(
            "cannot write the state of sandbox {id}: {error}; make room in, or mend, the state \
             directory"
        ),
    )
}

impl Engine {
    pub(super) fn prepare(&mut self, settings: &Settings) -> Result<Reply, Failure> {
        self.node.agrees(settings, &*self.kernel)?;
        Ok(Reply::Prepared(Prepared { ours: true }))
    }

    /// What can be done for an attach before the pod's own network is there: its state is written,
    /// which takes the disk as long as the kernel takes for a link.
    pub(super) fn expect(&mut self, attach: &NewSandbox) -> Result<Reply, Failure> {
        if self
            .sandboxes
            .get(&attach.attachment.container_id)
            .is_none()
        {
            let state = self.state_of(attach)?;
            let id = state.id.clone();
            self.sandboxes
                .expect(state)
                .map_err(|error| unwritten(&id, &error))?;
        }
        Ok(Reply::Done)
    }

    pub(super) fn attach(&mut self, attach: &NewSandbox) -> Result<Reply, Failure> {
        let id = attach.attachment.container_id.clone();
        if self.sandboxes.get(&id).is_some_and(|state| state.leaving) {
            // Its DEL was not finished, and a new ADD of it counts.
            self.undo(&[id.clone()].into());
        }
        let state = self.state_of(attach)?;
        if let Some(known) = self.sandboxes.get(&id) {
            return self.attach_again(attach, known.clone());
        }
        self.unwritten.remove(&attach.kubernetes);
        let pod = state.pod.clone();
        tracing::info!(%pod, sandbox = %id, links = state.links.len(), "attaching");
        self.save(state)?;
        let wired = self
            .publish_new(&id)
            .and_then(|()| self.wire_new(&pod, &id));
        match wired {
            Ok(attached) => Ok(Reply::Attached(attached)),
            Err(failure) => {
                tracing::warn!(%pod, sandbox = %id, %failure, "cannot attach; undoing");
                self.undo(&[id.clone()].into());
                Err(failure)
            }
        }
    }

    /// The sandbox that is asked for, if all is well with it.
    fn state_of(&mut self, attach: &NewSandbox) -> Result<SandboxState, Failure> {
        self.agree_on(&attach.attachment.network, &attach.settings)?;
        self.check_vnis(attach)?;
        let identity = self.kernel.identify(&attach.netns);
        let identity = identity.map_err(|e| invalid(e.to_string()))?;
        if identity == self.kernel.node() {
            return Err(invalid(format!(
                "{} is the node's own network namespace: a pod with hostNetwork cannot have links",
                attach.netns.display()
            )));
        }
        let id = attach.attachment.container_id.clone();
        let expected = self.sandboxes.expected(&id).map(|state| state.created);
        let created =
            expected.unwrap_or_else(|| self.sandboxes.next_created(self.clock.unix_nanos()));
        // What its sandbox that still lives has declared, it goes on to declare.
        let before = self.sandboxes.current(&attach.declaration.pod);
        let others = before.filter(|state| state.kubernetes != attach.kubernetes);
        let held_by = others.map(|state| state.kubernetes.1.clone());
        let before = before.map(|state| &state.links[..]).unwrap_or_default();
        Ok(SandboxState {
            held_by: held_by.zip(self.node.name().ok().cloned()),
            created,
            links: sandboxes::with_since(attach.declaration.links.clone(), before, created),
            accept: attach.declaration.accept.clone(),
            given: BTreeMap::new(),
            id,
            pod: attach.declaration.pod.clone(),
            netns: attach.netns.clone(),
            netns_identity: (identity.dev, identity.inode),
            boot_id: self.boot_id.clone(),
            kubernetes: attach.kubernetes.clone(),
            use_labels: attach.use_labels,
            attachments: [(
                attach.attachment.network.clone(),
                attach.attachment.interface.clone(),
            )]
            .into(),
            leaving: false,
        })
    }

    /// What a pod declares itself must be in the range for that, unless this sandbox runs with it.
    fn check_vnis(&self, attach: &NewSandbox) -> Result<(), Failure> {
        let (id, declaration) = (&attach.attachment.container_id, &attach.declaration);
        let before = self.sandboxes.get(id).map(|state| &state.links[..]);
        let before = before.unwrap_or_default();
        match self.refuse_vnis(&declaration.pod, before, &declaration.links) {
            None => Ok(()),
            Some((_, text)) => Err(invalid(text)),
        }
    }

    /// Another network of a sandbox that is wired already: its links are the pod's and are there.
    fn attach_again(
        &mut self,
        attach: &NewSandbox,
        mut state: SandboxState,
    ) -> Result<Reply, Failure> {
        let attachment = &attach.attachment;
        if state.leaving {
            let text = format!("sandbox {} is not undone yet since its last DEL", state.id);
            return Err(Failure::new(FailureKind::TryLater, text));
        }
        if !state
            .attachments
            .insert((attachment.network.clone(), attachment.interface.clone()))
        {
            return Err(Failure::new(
                FailureKind::Exists,
                format!(
                    "sandbox {} is attached to network {} with interface {} already",
                    state.id, attachment.network, attachment.interface
                ),
            ));
        }
        let (pod, id) = (state.pod.clone(), state.id.clone());
        self.save(state)?;
        // No link has the interface of one of its networks.
        self.refresh_and_reconcile([pod.clone()].into());
        Ok(Reply::Attached(self.attached(&pod, &id)))
    }

    fn save(&mut self, state: SandboxState) -> Result<(), Failure> {
        let id = state.id.clone();
        self.sandboxes
            .save(state)
            .map_err(|error| unwritten(&id, &error))
    }

    /// Publishes the location of a new sandbox. Without an underlay there is none yet: the pod's
    /// links within the node are made all the same, and a resync publishes it.
    fn publish_new(&mut self, id: &SandboxId) -> Result<(), Failure> {
        if !self.session.is_registered() {
            self.register_node()?;
        }
        let Some(state) = self.sandboxes.get(id).cloned() else {
            return Ok(());
        };
        if state.held_by.is_some() {
            self.warn_of_holder(&state);
            return Ok(());
        }
        let record = sandboxes::record(&state, &self.node.wiring()?, self.node.terms());
        if record.location.is_none() {
            self.session.set_record(record);
            return Ok(());
        }
        match self.session.publish(&record, Publish::New)? {
            Published::Stored { created } if created != state.created => {
                self.save(SandboxState { created, ..state })
            }
            Published::Stored { .. } | Published::Superseded => Ok(()),
            Published::Held { owner, node } => Ok(self.hold(id, Some((owner, node)))?),
        }
    }

    fn wire_new(&mut self, pod: &PodKey, id: &SandboxId) -> Result<Attached, Failure> {
        let pods: BTreeSet<PodKey> = [pod.clone()].into();
        match self.refresh_facts(&pods) {
            Err(retry @ Retry::Node(_)) => self.expect_retry(Err(retry)),
            refreshed => refreshed?,
        }
        let reconciled = self.reconcile(&Scope::Links(pods));
        self.expect_retry(reconciled);
        self.tell();
        // What a Link says is not the pod's own doing either.
        let own = self.sandboxes.get(id).filter(|_| !self.session.declares());
        let own = own.map(|state| &state.links[..]);
        let failed = self.wires.of(pod).find_map(|tracked| {
            let failure = tracked.failure.as_ref()?;
            // A VNI that another device has is no pod's doing: the link gets another one.
            let is_here = failure.sandbox.as_ref() == Some(id) && failure.taken_vni.is_none();
            (is_here && is_own_doing(tracked, own.unwrap_or_default())).then(|| failure.clone())
        });
        match failed {
            None => Ok(self.attached(pod, id)),
            Some(failure) => {
                let kind = if failure.reason.is_conflict() {
                    FailureKind::Invalid
                } else {
                    FailureKind::TryLater
                };
                Err(Failure::because(kind, &failure.reason))
            }
        }
    }

    /// What a sandbox has now.
    fn attached(&mut self, pod: &PodKey, id: &SandboxId) -> Attached {
        let mut attached = Attached::default();
        if let Some(state) = self.sandboxes.get(id)
            && let Some(reason) = names::reason(state)
        {
            let interfaces = state.links.iter().map(|link| &link.local.interface);
            attached.pending = interfaces.map(|name| format!("{name}: {reason}")).collect();
            return attached;
        }
        let netns = Netns::Sandbox(id.clone());
        let mut devices: Vec<At> = Vec::new();
        for tracked in self.wires.of(pod) {
            if tracked.failure.is_none() {
                let ends = tracked.wiring.made_ends();
                devices.extend(ends.filter(|end| end.netns == netns).map(WantedEnd::at));
            }
            if let Some(reason) = self.reason(tracked) {
                attached
                    .pending
                    .push(format!("{}: {reason}", wires::name(&tracked.link)));
            }
        }
        attached.addresses = self.declared_addresses(pod);
        let ends = self.wires.of(pod);
        let ends = ends.flat_map(|tracked| [&tracked.link.a, &tracked.link.z]);
        let ends = ends.filter(|end| end.pod == *pod && !end.addresses.is_empty());
        attached.by_interface = ends
            .map(|end| (end.interface.to_string(), end.addresses.clone()))
            .collect();
        let interfaces: Vec<Option<Interface>> = self.read_interfaces(id, &devices);
        attached.interfaces = interfaces.into_iter().flatten().collect();
        attached
    }

    /// The addresses of a pod's ends: those it declares first, in the order of its declaration.
    fn declared_addresses(&self, pod: &PodKey) -> Vec<IpNet> {
        let declared = self
            .sandboxes
            .current(pod)
            .into_iter()
            .flat_map(|state| &state.links);
        let own = declared
            .flat_map(|link| [&link.local, &link.remote])
            .filter(|end| end.pod == *pod);
        let mut addresses: Vec<IpNet> = own
            .flat_map(|end| end.addresses.iter().flatten())
            .copied()
            .collect();
        let ends = self
            .wires
            .of(pod)
            .flat_map(|tracked| [&tracked.link.a, &tracked.link.z]);
        for address in ends
            .filter(|end| end.pod == *pod)
            .flat_map(|end| &end.addresses)
        {
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        addresses
    }
}

/// Whether a link's end in a pod is as the pod itself declares it: an ADD does not fail for what
/// other pods declare.
fn is_own_doing(tracked: &Tracked, declared: &[DeclaredLink]) -> bool {
    let link = &tracked.link;
    let own = declared.iter().find(|declared| declared.id() == link.id);
    own.is_some_and(|own| link.is_as_declared(own))
}
