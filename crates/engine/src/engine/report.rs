//! What the node's links look like from outside.

use ratchet_model::{link::Endpoint, wiring::Obstacle};
use ratchet_protocol::{EndReport, LinkReport, LinkState, Links};
use ratchet_store::StoreScope;

use super::Engine;
use crate::wires::Tracked;

impl Engine {
    /// Why a link is not up, if it is not.
    pub(super) fn reason(&self, tracked: &Tracked) -> Option<String> {
        match (&tracked.failure, &tracked.wiring.obstacle) {
            (Some(failure), _) => Some(failure.text.clone()),
            (None, Some(Obstacle::Error(text))) => Some(text.clone()),
            (None, Some(Obstacle::Waiting(text))) => Some(text.clone()),
            (None, Some(Obstacle::Unheard(text))) => {
                let local = self.session.scope() == Some(StoreScope::Host);
                let hint =
                    "; the store is a file of this host, so pods on other machines cannot be seen";
                Some(format!("{text}{}", if local { hint } else { "" }))
            }
            (None, None) => None,
        }
    }

    pub(super) fn report(&self) -> Links {
        let mut links: Vec<LinkReport> = self
            .wires
            .all()
            .map(|tracked| self.report_link(tracked))
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
        let mut notices = Vec::new();
        if let Some(failure) = self.node.trouble() {
            notices.push(failure.message.clone());
        }
        if let Some(trouble) = self.session.trouble() {
            notices.push(format!("store: {trouble}"));
        }
        Links {
            node: self.node.name().ok().cloned(),
            links,
            notices,
        }
    }

    fn report_link(&self, tracked: &Tracked) -> LinkReport {
        let Tracked {
            link,
            wiring,
            failure,
            nodes,
            ..
        } = tracked;
        let state = match (failure, &wiring.obstacle) {
            (Some(_), _) | (None, Some(Obstacle::Error(_))) => LinkState::Error,
            (None, Some(Obstacle::Waiting(_) | Obstacle::Unheard(_))) => LinkState::Pending,
            (None, None) => LinkState::Up,
        };
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
            state,
            reason: self.reason(tracked),
            warnings: link.warnings.clone(),
            declared_by: link.declared_by.clone(),
        }
    }
}
