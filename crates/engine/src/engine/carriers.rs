//! Carriers: the far end of a stitched link follows the near one.
//!
//! That a carrier has changed is only heard here. What follows from it, the planner says from what
//! the devices show ([`ratchet_model::planner`]).

use ratchet_kernel::CarrierNews;

use super::Engine;
use crate::wires::Scope;

impl Engine {
    pub(super) fn take_carriers(&mut self, news: CarrierNews) {
        let CarrierNews::Of(links) = news else {
            return self.begin_resync();
        };
        let reconciled = self.reconcile(&Scope::Again(links));
        self.expect_retry(reconciled);
    }
}
