//! The contract of [`ratchet_store::Store`], as tests that every implementation must pass.
//!
//! A test file of an implementation names the groups of tests that it runs:
//!
//! ```ignore
//! ratchet_store_contract::contract_tests!(start; records, vnis, nodes, watch, threads, processes);
//! ```
//!
//! `start` makes an empty backend for one test. The group `processes` is for backends that are also
//! [`Shared`] between processes, and only works in the root of the test crate. All other groups
//! only need [`Backend`].
#![allow(
    clippy::unwrap_used,
    reason = "these are tests: a panic is how they fail"
)]
#![allow(
    missing_docs,
    reason = "the name of a test or of a helper says what it is about"
)]

pub mod helpers;
pub mod nodes;
pub mod processes;
pub mod records;
pub mod threads;
pub mod vnis;
pub mod watch;

use std::{future::Future, sync::Arc};

use async_trait::async_trait;
use ratchet_store::{Store, StoreUrl};

/// A backend under test. Dropping it ends and removes it.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Opens a store. Each call stands for another agent.
    async fn open(&self) -> Arc<dyn Store>;

    /// What [`Store::describe`] must contain.
    fn describe(&self) -> String;

    /// The number of rows, keys or objects in it.
    fn leftovers(&self) -> usize;
}

/// A backend that other processes can open, too.
pub trait Shared: Backend {
    /// The URL that the processes open.
    fn url(&self) -> StoreUrl;
}

/// Runs one test against an empty backend.
pub fn run<B: Backend, F: Future<Output = ()>>(
    start: impl FnOnce() -> B,
    test: impl FnOnce(Arc<B>) -> F,
) {
    block_on(test(Arc::new(start())));
}

/// Runs a future on a single-threaded runtime.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// One `#[test]` for each clause of the contract, in the groups that are listed.
#[macro_export]
macro_rules! contract_tests {
    ($start:expr; $($group:ident),+) => {
        $($crate::contract_tests! { @$group $start })+
    };
    (@records $start:expr) => {
        $crate::contract_tests! { @list $start; records:
            what_is_published_is_read, only_peers_and_declarers_are_read,
            vnis_of_own_links_are_read,
            a_late_removal_of_an_old_sandbox_does_nothing,
            a_new_sandbox_replaces_and_is_always_later,
            publishing_again_never_replaces_a_later_sandbox, again_after_a_departure,
            a_name_belongs_to_the_pod_that_lives,
            a_declarer_is_remembered_while_a_peer_lives,
            a_dropped_link_is_no_longer_declared, a_reopened_store_has_everything,
            what_is_on_a_node_is_found, random_histories_equal_the_model
        }
    };
    (@vnis $start:expr) => {
        $crate::contract_tests! { @list $start; vnis:
            the_lowest_free_is_given_and_kept, fixed_ones_are_honoured,
            a_freed_one_is_given_again,
            many_claims_in_one_batch, many_claims_of_as_many_declarers,
            nothing_is_taken_for_an_undeclared_link,
            a_claim_from_stale_facts_takes_nothing,
            a_vni_is_free_when_no_node_holds_it, a_link_that_comes_back_gets_the_vni_it_had,
            a_declared_vni_that_changes, a_blocked_vni_is_given_to_no_link_of_the_node
        }
    };
    (@nodes $start:expr) => {
        $crate::contract_tests! { @list $start; nodes:
            a_node_that_comes_and_goes_leaves_nothing, a_forgotten_nodes_pods_are_removed,
            a_forgotten_node_that_comes_back_has_its_links_again,
            a_lost_nodes_vnis_are_held_until_it_is_forgotten
        }
    };
    (@watch $start:expr) => {
        $crate::contract_tests! { @list $start; watch:
            the_first_change_is_everything, a_peer_that_comes_changes_and_goes,
            a_declarer_that_names_an_own_pod,
            vnis_of_own_links, unrelated_pods_are_not_reported,
            pods_new_in_the_interest_are_reported,
            a_vni_that_is_waited_for, another_vni_of_an_own_link,
            changes_pile_up, cancelling_loses_nothing, publishing_the_same_again_wakes_no_watch
        }
    };
    (@threads $start:expr) => {
        $crate::contract_tests! { @list $start; threads:
            threads_claim_unique_vnis, one_link_claimed_by_all_has_one_vni,
            two_agents_at_once, many_publish_the_same_pod, all_come_and_go_at_once,
            claims_during_removals_leave_nothing
        }
    };
    (@processes $start:expr) => {
        $crate::contract_tests! { @list $start; processes: processes_claim_unique_vnis }

        /// Not a test: the processes of `processes_claim_unique_vnis` run it.
        #[test]
        fn child_process() {
            $crate::processes::child_process();
        }
    };
    (@list $start:expr; $module:ident: $($test:ident),+) => {
        $(
            #[test]
            fn $test() {
                $crate::run($start, $crate::$module::$test);
            }
        )+
    };
}
