//! What every store must do, whatever it is made of. A backend's test file says
//!
//! ```ignore
//! mod contract;
//! contract_tests!(start);
//! ```
//!
//! where `start` makes an empty store of its own for each test.
#![allow(
    clippy::unwrap_used,
    reason = "these are tests: a panic is how they fail"
)]
// Each test binary uses its own part of the helpers.
#![allow(dead_code)]

pub mod concurrency;
pub mod helpers;
pub mod nodes;
pub mod records;
pub mod vnis;
pub mod watch;

use std::{future::Future, sync::Arc};

use ratchet_store::{Store, StoreUrl};

/// A backend under test; dropping it ends and removes it.
pub trait Backend: Send + Sync {
    /// Where it is: several stores are opened on it, in other processes too.
    fn url(&self) -> StoreUrl;

    /// How many rows, keys or objects it holds.
    fn leftovers(&self) -> usize;
}

/// An empty backend and a way to open stores on it.
pub struct Bench {
    pub backend: Box<dyn Backend>,
}

impl Bench {
    /// Opens it as one more agent would.
    pub async fn open(&self) -> Arc<dyn Store> {
        ratchet_store::open(&self.backend.url()).await.unwrap()
    }
}

/// Runs one test against an empty backend.
pub fn run<B: Backend + 'static, F: Future<Output = ()>>(
    start: impl FnOnce() -> B,
    test: impl FnOnce(Arc<Bench>) -> F,
) {
    let bench = Arc::new(Bench {
        backend: Box::new(start()),
    });
    block_on(test(bench));
}

/// Runs a future on a runtime of this thread alone.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// One `#[test]` for each clause of the contract.
#[macro_export]
macro_rules! contract_tests {
    ($start:expr) => {
        $crate::contract_tests! { @list $start;
            records: what_is_published_is_read, peers_and_declarers_are_read_and_nobody_else,
                vnis_of_own_links_are_read,
                a_late_departure_of_an_old_sandbox_does_nothing,
                a_new_sandbox_replaces_and_is_always_later,
                again_never_replaces_a_later_sandbox, again_after_a_departure,
                a_declarer_is_remembered_while_a_peer_lives,
                a_dropped_link_is_no_longer_declared, a_reopened_store_has_everything,
                what_is_on_a_node_is_found, random_histories_equal_the_model;
            vnis: the_lowest_free_is_given_and_kept, fixed_ones_are_honoured,
                a_freed_one_is_given_again,
                many_claims_in_one_batch, many_claims_of_as_many_declarers,
                nothing_is_taken_for_a_link_that_nobody_declares,
                a_claim_from_stale_facts_takes_nothing,
                claims_that_meet_departures_leave_nothing;
            nodes: a_node_that_comes_and_goes_leaves_nothing, a_forgotten_nodes_pods_depart,
                a_forgotten_node_that_comes_back_has_its_links_again;
            concurrency: threads_claim_unique_vnis, processes_claim_unique_vnis,
                one_link_claimed_by_all_has_one_vni,
                two_agents_at_once, many_publish_the_same_pod, all_come_and_go_at_once;
            watch: the_first_change_is_everything, a_peer_that_comes_changes_and_goes,
                a_declarer_that_names_an_own_pod,
                vnis_of_own_links, unrelated_pods_are_not_heard,
                pods_new_in_the_interest_are_reported,
                changes_pile_up, cancelling_loses_nothing, saying_the_same_again_wakes_nobody;
        }

        /// Not a test of its own: what the processes of `processes_claim_unique_vnis` run.
        #[test]
        fn child_process() {
            contract::concurrency::child_process();
        }
    };
    (@list $start:expr; $($module:ident: $($test:ident),+;)+) => {
        $($(
            #[test]
            fn $test() {
                contract::run($start, contract::$module::$test);
            }
        )+)+
    };
}
