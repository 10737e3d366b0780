use std::cell::RefCell;

use nix::errno::Errno;
use ratchet_kernel::FoundFilter;
use ratchet_model::{
    LinkId,
    device::{At, Netns, NewDevice, Operation, Tunnel},
};

use super::*;
use crate::testing::kernel::PartialKernel;

/// A kernel that has nothing but a filter.
#[derive(Default)]
struct Filter {
    passages: RefCell<BTreeSet<Passage>>,
    error: RefCell<Option<KernelError>>,
    /// How often it was asked anything.
    asked: RefCell<usize>,
}

impl Filter {
    fn ask<T>(&self, work: impl FnOnce(&mut BTreeSet<Passage>) -> T) -> Result<T, KernelError> {
        *self.asked.borrow_mut() += 1;
        match &*self.error.borrow() {
            Some(error) => Err(error.clone()),
            None => Ok(work(&mut self.passages.borrow_mut())),
        }
    }

    fn fail(&self, error: Option<KernelError>) {
        *self.error.borrow_mut() = error;
    }
}

impl PartialKernel for Filter {
    fn filter(&self) -> Result<FoundFilter, KernelError> {
        self.ask(|passages| FoundFilter {
            passages: passages.clone(),
            is_whole: true,
        })
    }

    fn set_filter(&self, passages: &BTreeSet<Passage>) -> Result<(), KernelError> {
        self.ask(|known| known.clone_from(passages))
    }

    fn change_filter(&self, permit: &[Passage], forbid: &[Passage]) -> Result<(), KernelError> {
        self.ask(|known| {
            known.retain(|passage| !forbid.contains(passage));
            known.extend(permit);
        })
    }
}

/// The steps that make a tunnel.
fn tunnel(vni: u32) -> Vec<Step> {
    let device = NewDevice {
        at: At {
            netns: Netns::Sandbox("s".parse().unwrap()),
            name: format!("e{vni}"),
        },
        mac: "02:00:00:00:00:01".parse().unwrap(),
        mtu: 1450.try_into().unwrap(),
        index: None,
    };
    let tunnel = Tunnel {
        vni: vni.try_into().unwrap(),
        remote: "10.0.0.2".parse().unwrap(),
        local: "10.0.0.1".parse().unwrap(),
        parent: 2,
        port: 4789,
    };
    let operation = Operation::CreateVxlan {
        device,
        tunnel,
        source: None,
    };
    let link = LinkId::UNKNOWN;
    vec![Step { link, operation }]
}

fn refused() -> KernelError {
    KernelError::Refused {
        doing: "change the source filter".into(),
        errno: Errno::ENOBUFS,
        reason: None,
    }
}

fn missing() -> KernelError {
    KernelError::Unsupported {
        doing: "read the source filter".into(),
        feature: "nftables",
        module: "nf_tables",
        config: "CONFIG_NF_TABLES_INET",
    }
}

fn vnis(filter: &Filter) -> Vec<u32> {
    let passages = filter.passages.borrow();
    passages
        .iter()
        .map(|passage| passage.vni.number())
        .collect()
}

#[test]
fn a_tunnel_is_let_through_before_it_is_made_and_no_more_when_it_was_not() {
    let (mut guard, kernel) = (Guard::default(), Filter::default());
    let mut steps = tunnel(11);
    guard.before(&kernel, &[], &mut steps);
    assert_eq!(vnis(&kernel), [11]);
    guard.after(&kernel, (&[], &steps), |_| false, &BTreeSet::new());
    assert!(vnis(&kernel).is_empty());
}

#[test]
fn a_refused_change_is_tried_again_with_the_next_one() {
    let (mut guard, kernel) = (Guard::default(), Filter::default());
    guard.begin_resync(&kernel);
    kernel.fail(Some(refused()));
    guard.before(&kernel, &[], &mut tunnel(11));
    assert_eq!(guard.trouble().unwrap().name(), "FilterMissing");
    kernel.fail(None);
    guard.before(&kernel, &[], &mut tunnel(12));
    assert_eq!(vnis(&kernel), [12]);
    assert!(guard.trouble().is_none());
}

#[test]
fn a_kernel_without_nftables_is_asked_again_by_resyncs_only() {
    let (mut guard, kernel) = (Guard::default(), Filter::default());
    kernel.fail(Some(missing()));
    guard.begin_resync(&kernel);
    assert_eq!(
        (*kernel.asked.borrow(), guard.trouble().is_some()),
        (1, true)
    );
    let mut steps = tunnel(11);
    guard.before(&kernel, &[], &mut steps);
    guard.after(&kernel, (&[], &steps), |_| true, &BTreeSet::new());
    guard.end_resync(&kernel);
    assert_eq!(*kernel.asked.borrow(), 1);
    kernel.fail(None);
    guard.begin_resync(&kernel);
    guard.before(&kernel, &[], &mut steps);
    assert_eq!(vnis(&kernel), [11]);
    assert!(guard.trouble().is_none());
}

/// What was let through stays so while the filter cannot be read, and what a resync did not see is
/// taken out when it can.
#[test]
fn what_no_device_needs_is_taken_out_at_the_end_of_a_resync() {
    let (mut guard, kernel) = (Guard::default(), Filter::default());
    let mut steps = tunnel(11);
    guard.before(&kernel, &[], &mut steps);
    guard.before(&kernel, &[], &mut tunnel(12));
    kernel.fail(Some(refused()));
    guard.begin_resync(&kernel);
    guard.end_resync(&kernel);
    assert_eq!(vnis(&kernel), [11, 12]);
    kernel.fail(None);
    guard.begin_resync(&kernel);
    guard.after(&kernel, (&[], &steps), |_| true, &BTreeSet::new());
    guard.end_resync(&kernel);
    assert_eq!(vnis(&kernel), [11]);
}
