//! What the node's links look like from outside.

use ratchet_model::{Reason, link::Endpoint};
use ratchet_protocol::{EndReport, LinkReport, LinkState, Links, ReasonReport};
use ratchet_store::StoreScope;

use super::{Engine, Vitals, names};
use crate::wires::Tracked;

impl Engine {
    /// Why a link is not up, if it is not.
    pub(super) fn reason(&self, tracked: &Tracked) -> Option<Reason> {
        let is_local = self.session.scope() == Some(StoreScope::Host);
        match tracked.reason()?.clone() {
            Reason::PeerUnknown { pod } if is_local => Some(Reason::PeerUnknownOnHost { pod }),
            reason => Some(reason),
        }
    }

    pub(super) fn report(&self) -> Links {
        let mut links: Vec<LinkReport> = self
            .wires
            .all()
            .map(|tracked| self.report_link(tracked))
            .chain(self.sandboxes.all().flat_map(names::report))
            .collect();
        links.sort_by(|one, other| {
            let key = |l: &LinkReport| {
                (
                    l.a.pod.clone(),
                    l.a.interface.clone(),
                    l.z.pod.clone(),
                    l.z.interface.clone(),
                )
            };
            key(one).cmp(&key(other))
        });
        let mut links = Links {
            node: self.node.name().ok().cloned(),
            links,
            ..Links::default()
        };
        let filter = self.wires.filter_trouble();
        for reason in [self.node.trouble(), self.session.trouble(), filter] {
            reason.into_iter().for_each(|reason| links.notice(reason));
        }
        links
    }

    /// How the engine is. It costs less than the links themselves: it may be asked every second.
    pub(super) fn vitals(&self) -> Vitals {
        let mut vitals = Vitals {
            resync: self.schedule.last_took(),
            has_store_trouble: self.session.trouble().is_some(),
            store: self.session.health(),
            ..Vitals::default()
        };
        for tracked in self.wires.all() {
            match state(tracked.reason()) {
                LinkState::Up => vitals.up += 1,
                LinkState::Pending => vitals.pending += 1,
                LinkState::Error | LinkState::Unknown => vitals.failed += 1,
            }
        }
        let without_name = self
            .sandboxes
            .all()
            .filter(|of| names::reason(of).is_some());
        vitals.pending += without_name.map(|of| of.links.len()).sum::<usize>();
        vitals
    }

    /// Tells a store that declares the state of this node's ends of links, if that may have changed
    /// since.
    pub(super) fn report_to_store(&mut self) {
        let progress = *self.progress.borrow();
        if !self.session.declares() || self.reported == progress {
            return;
        }
        self.reported = progress;
        let ends = self
            .wires
            .all()
            .flat_map(|tracked| self.report_ends(tracked));
        self.session.report(ends.collect());
    }

    fn report_ends(&self, tracked: &Tracked) -> impl Iterator<Item = ratchet_store::EndReport> {
        let Tracked { link, wiring, .. } = tracked;
        let reason = self.reason(tracked);
        [&link.a, &link.z].into_iter().filter_map(move |end| {
            let state = self.sandboxes.current(&end.pod)?;
            Some(ratchet_store::EndReport {
                link: link.id,
                pod: end.pod.clone(),
                sandbox: state.id.clone(),
                kind: wiring.kind(),
                mtu: wiring.mtu(),
                reason: reason.clone(),
            })
        })
    }

    fn report_link(&self, tracked: &Tracked) -> LinkReport {
        let Tracked {
            link,
            wiring,
            nodes,
            ..
        } = tracked;
        let reason = self.reason(tracked);
        let end = |endpoint: &Endpoint, node: &Option<ratchet_model::NodeName>| EndReport {
            pod: endpoint.pod.clone(),
            interface: endpoint.interface.clone(),
            addresses: endpoint.addresses.clone(),
            mac: endpoint.mac,
            node: node.clone(),
        };
        LinkReport {
            id: link.id,
            a: end(&link.a, &nodes[0]),
            z: end(&link.z, &nodes[1]),
            kind: wiring.kind().map(|kind| kind.as_str().to_owned()),
            vni: wiring.vni().map(ratchet_model::Vni::number),
            mtu: wiring.mtu().map(ratchet_model::Mtu::bytes),
            state: state(reason.as_ref()),
            reason: reason.as_ref().map(Reason::to_string),
            reason_details: reason.as_ref().map(ReasonReport::from),
            warnings: link.warnings.iter().map(Reason::to_string).collect(),
            warning_details: link.warnings.iter().map(ReasonReport::from).collect(),
            declared_by: link.declared_by.clone(),
        }
    }
}

/// The state of a link, by why it is not up, if it is not.
fn state(reason: Option<&Reason>) -> LinkState {
    match reason {
        Some(reason) if reason.is_waiting() => LinkState::Pending,
        Some(_) => LinkState::Error,
        None => LinkState::Up,
    }
}
