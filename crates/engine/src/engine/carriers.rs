//! Carriers: the far end of a stitched link follows the near one.
//!
//! That a carrier has changed is only heard here. What follows from it, the planner says from what
//! the devices show ([`ratchet_model::planner`]).

use std::collections::BTreeSet;

use ratchet_kernel::CarrierNews;
use ratchet_model::LinkId;

use super::Engine;
use crate::wires::Scope;

impl Engine {
    pub(super) fn take_carriers(&mut self, news: CarrierNews) {
        let links = match news {
            CarrierNews::Of(links) => links.into_iter(),
            CarrierNews::Lost => return self.begin_resync(),
        };
        let is_known = |link: &LinkId| self.wires.link(*link).is_some();
        let links: BTreeSet<LinkId> = links.filter(is_known).collect();
        if !links.is_empty() {
            let reconciled = self.reconcile(&Scope::Again(links));
            self.expect_retry(reconciled);
        }
    }
}
