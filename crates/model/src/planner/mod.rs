//! The planner: from the wanted and the observed devices to the steps that lead from one to the
//! other.
//!
//! A pure function. It compares devices and knows nothing of wirings. What it relies on:
//! * A device's alias is written last. A device whose alias says that it is complete needs nothing
//!   more, and what its pod did to it since (addresses, MTU, down) is the pod's own affair.
//! * A device of ours without alias, or with another one, is unfinished and is finished.
//! * A device that is not ours is never touched, even when it is where one of ours is wanted.
//! * A link may have several objects, and an object one or two ends. Each device belongs to one
//!   object at most (`assign`).

mod assign;
mod built;
mod configure;
mod create;
mod hold;
mod index;
mod joints;
mod leftovers;
mod moves;
mod order;
mod passages;
mod plan;
mod settled;
mod state;
mod veth;
mod vxlan;

use crate::{
    device::{Observed, Wanted},
    leftover::Leftovers,
};

pub use built::built;
pub use moves::MOVE_LIMIT;
pub use passages::{assign_source_ports, passages};
pub use plan::{Conflict, Plan, PlanScope};
pub use settled::{WantedEnds, settled};
use state::Planner;

/// Plans the way from `observed` to `wanted`. `kept` are the leftovers of earlier plans.
///
/// `observed` must hold all devices of ours in the namespaces of `scope`, and of each of its links
/// that is not frozen every device that bears its alias and every one that is where its ends are
/// wanted. `wanted` must hold the links of the scope, and those that have ends in its namespaces,
/// each with all of its objects.
pub fn plan(
    wanted: &[Wanted],
    observed: &[Observed],
    kept: &Leftovers,
    scope: PlanScope<'_>,
) -> Plan {
    let (mut planner, assigned) = Planner::new(wanted, observed, kept);
    for (object, devices) in wanted.iter().zip(&assigned) {
        if planner.is_frozen(object.link()) {
            continue;
        }
        let devices = *devices;
        match object {
            Wanted::Veth { a, z } => planner.veth(a, z, devices),
            Wanted::Stub { pod, node, .. } => planner.veth(pod, node, devices),
            Wanted::Vxlan { end, tunnel, .. } => planner.vxlan(end, tunnel, devices),
            Wanted::Hold { parked, .. } => planner.hold(parked, devices),
            Wanted::Frozen(_) => {}
        }
    }
    planner.join(wanted, &assigned);
    planner.delete_unclaimed(scope);
    planner.finish(wanted, scope)
}
