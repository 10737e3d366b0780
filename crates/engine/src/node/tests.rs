//! What the node's settings and kernel come to, with an underlay that comes and goes.

use ratchet_kernel::UnderlayError;

use super::*;
use crate::testing::kernel::PartialKernel;

/// A kernel that is only asked for its underlay.
struct Only(Result<Underlay, UnderlayError>);

impl PartialKernel for Only {
    fn underlay(&self, _: Option<&str>, _: Option<IpAddr>) -> Result<Underlay, UnderlayError> {
        self.0.clone()
    }
}

fn with_underlay() -> Only {
    Only(Ok(Underlay {
        interface: "u0".into(),
        index: 7,
        address: "10.0.0.1".parse().unwrap(),
        mtu: 9000,
        addresses: Vec::new(),
    }))
}

fn without_underlay() -> Only {
    Only(Err(UnderlayError::NoDefaultRoute))
}

fn settings(interface: Option<&str>) -> Settings {
    Settings {
        node: Some("n1".parse().unwrap()),
        parent_interface: interface.map(str::to_owned),
        ..Settings::default()
    }
}

#[test]
fn the_underlay_that_was_known_last_counts_while_it_is_gone() {
    let mut node = ThisNode::new(settings(None), true);
    node.look(&without_underlay());
    let unknown = node.wiring().unwrap();
    assert_eq!((unknown.vtep, unknown.mtu.bytes()), (None, 1450));
    node.look(&with_underlay());
    let known = node.wiring().unwrap();
    assert_eq!((known.vtep.unwrap().parent, known.mtu.bytes()), (7, 8950));
    assert!(node.has_underlay() && node.trouble().is_none());
    node.look(&without_underlay());
    assert_eq!(node.wiring(), Ok(known));
    assert!(!node.has_underlay() && node.trouble().is_some());
    assert_eq!(node.settings().parent_interface.as_deref(), Some("u0"));
}

#[test]
fn only_an_agent_on_demand_that_never_found_its_underlay_refuses_a_config_for_that() {
    for (managed, kernels, agrees) in [
        (true, vec![without_underlay()], true),
        (false, vec![without_underlay()], false),
        (false, vec![with_underlay(), without_underlay()], true),
    ] {
        let mut node = ThisNode::new(settings(Some("u0")), managed);
        kernels.iter().for_each(|kernel| node.look(kernel));
        let last = kernels.last().unwrap();
        let agreed = node.agrees(&settings(Some("u0")), last);
        assert_eq!(agreed.is_ok(), agrees, "managed: {managed}, {agreed:?}");
    }
}

#[test]
fn a_managed_agent_refuses_other_settings_and_one_on_demand_takes_them_over() {
    let kernel = with_underlay();
    let other = Settings {
        store: Some("sqlite:/elsewhere.db".into()),
        ..settings(None)
    };
    for managed in [true, false] {
        let mut node = ThisNode::new(settings(None), managed);
        node.look(&kernel);
        let unused = |_: &str| false;
        let same = node.agree_on(("one", &settings(None)), unused, &kernel);
        assert_eq!(same, Ok(Agreement::Same));
        assert_eq!(node.agrees(&other, &kernel).is_ok(), !managed);
        assert_eq!(node.settings().store, settings(None).or_defaults().store);
        let agreed = node.agree_on(("one", &other), unused, &kernel);
        if managed {
            let text = agreed.unwrap_err().message;
            assert!(text.contains("disagree: store is"), "{text}");
        } else {
            let other_store = true;
            assert_eq!(agreed, Ok(Agreement::TakenOver { other_store }));
            assert_eq!(node.settings().store, other.store);
        }
    }
}

#[test]
fn the_config_of_a_second_network_does_not_replace_that_of_one_in_use() {
    let kernel = with_underlay();
    let other = Settings {
        store: Some("sqlite:/elsewhere.db".into()),
        ..settings(None)
    };
    let mine = Settings {
        store: Some("sqlite:/mine.db".into()),
        ..settings(None)
    };
    let mut node = ThisNode::new(mine.clone(), false);
    node.look(&kernel);
    let mut agree_on = |network, settings, one_is_used| {
        let is_used = |network: &str| one_is_used && network == "one";
        node.agree_on((network, settings), is_used, &kernel)
    };
    assert_eq!(agree_on("one", &mine, false), Ok(Agreement::Same));
    assert_eq!(agree_on("two", &mine, true), Ok(Agreement::Same));
    let refused = agree_on("two", &other, true).unwrap_err().message;
    let start = "this node's agent has the settings of the CNI config one, and the config two \
                 disagrees: store is";
    assert!(refused.starts_with(start), "{refused}");
    assert!(refused.ends_with("a node has one agent, so make the two agree"));
    assert_eq!(
        agree_on("two", &mine, true),
        Ok(Agreement::Same),
        "nothing has changed"
    );
    let taken = Ok(Agreement::TakenOver { other_store: true });
    assert_eq!(agree_on("two", &other, false), taken, "one is gone");
    assert_eq!(agree_on("one", &mine, true), taken, "two is not used");
}
