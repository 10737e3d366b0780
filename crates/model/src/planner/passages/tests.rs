use super::*;
use crate::{
    device::{GROUP_OURS, Netns, NewDevice},
    link::Vni,
    names::LinkId,
};

fn at(name: &str) -> At {
    At {
        netns: Netns::Sandbox("s".parse().unwrap()),
        name: name.into(),
    }
}

fn tunnel(vni: u32, remote: &str) -> Tunnel {
    Tunnel {
        vni: vni.try_into().unwrap(),
        remote: remote.parse().unwrap(),
        local: "10.0.0.1".parse().unwrap(),
        parent: 2,
        port: 4789,
    }
}

fn passage(vni: u32, remote: &str, source: Option<SourcePorts>) -> Passage {
    Passage::of(&tunnel(vni, remote), source)
}

const OWN: Option<SourcePorts> = Some(SourcePorts {
    low: 2048,
    high: 2052,
});

fn device(name: &str, vni: u32, group: u32) -> Observed {
    Observed {
        netns: at(name).netns,
        name: name.into(),
        index: 7,
        kind: Kind::from(&tunnel(vni, "10.0.0.2")),
        source: OWN,
        alias: None,
        unproven: None,
        group,
        mac: None,
        mtu: 1450,
        up: true,
        carrier: true,
        joined: None,
        addresses: Vec::new(),
        routes: Vec::new(),
    }
}

fn steps(operations: impl IntoIterator<Item = Operation>) -> Vec<Step> {
    let link = LinkId::UNKNOWN;
    let step = |operation| Step { link, operation };
    operations.into_iter().map(step).collect()
}

fn create(name: &str, vni: u32) -> Operation {
    Operation::CreateVxlan {
        device: NewDevice {
            at: at(name),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            mtu: 1450.try_into().unwrap(),
            index: None,
        },
        tunnel: tunnel(vni, "10.0.0.2"),
        source: None,
    }
}

#[test]
fn a_device_of_ours_has_a_passage() {
    let observed = [
        device("in1", 11, GROUP_OURS),
        Observed {
            source: None,
            ..device("foreign", 12, 0)
        },
        Observed {
            kind: Kind::Veth { peer: None },
            ..device("in2", 13, GROUP_OURS)
        },
    ];
    let found = passages(&observed, &[], |_| true);
    assert_eq!(found, [passage(11, "10.0.0.2", OWN)].into());
}

#[test]
fn passages_follow_the_steps_that_were_done() {
    let observed = [device("in1", 11, GROUP_OURS), device("in2", 12, GROUP_OURS)];
    let steps = steps([
        Operation::Delete(at("in1")),
        Operation::Retarget {
            at: at("in2"),
            tunnel: tunnel(12, "10.0.0.3"),
        },
        create("in1", 13),
    ]);
    let before = [passage(11, "10.0.0.2", OWN), passage(12, "10.0.0.2", OWN)];
    let after = [passage(12, "10.0.0.3", OWN), passage(13, "10.0.0.2", None)];
    assert_eq!(passages(&observed, &steps, |_| true), after.into());
    assert_eq!(passages(&observed, &steps, |_| false), before.into());
}

fn assigned(steps: &[Step]) -> Vec<SourcePorts> {
    let source = |step: &Step| match &step.operation {
        Operation::CreateVxlan { source, .. } => *source,
        _ => None,
    };
    steps.iter().filter_map(source).collect()
}

#[test]
fn ports_that_another_device_has_are_not_given_again() {
    let standing = BTreeSet::from([
        passage(
            11,
            "10.0.0.2",
            Some(SourcePorts {
                low: 1024,
                high: 1088,
            }),
        ),
        passage(
            12,
            "10.0.0.2",
            Some(SourcePorts {
                low: 1152,
                high: 1153,
            }),
        ),
        passage(13, "10.0.0.2", None),
    ]);
    let mut steps = steps([create("a", 20), Operation::Delete(at("x")), create("b", 21)]);
    assign_source_ports(&mut steps, &standing);
    let ports = [(1088, 1152), (1216, 1280)].map(|(low, high)| SourcePorts { low, high });
    assert_eq!(assigned(&steps), ports);
}

#[test]
fn ten_thousand_devices_have_ports_of_their_own() {
    let mut steps = steps((0..10_000).map(|number| create("a", Vni::FIRST + number)));
    assign_source_ports(&mut steps, &BTreeSet::new());
    let ports = assigned(&steps);
    assert_eq!(ports.len(), 10_000);
    let mut blocks = BTreeSet::new();
    for range in ports {
        assert!(range.low >= 1024 && range.low < range.high);
        assert_eq!((range.low % 4, range.high % 4), (0, 0));
        assert!(range.blocks().all(|block| blocks.insert(block)));
    }
}

#[test]
fn when_all_ports_are_used_a_device_has_none_of_its_own() {
    let all = SourcePorts {
        low: 1024,
        high: 65532,
    };
    let mut steps = steps([create("a", 20)]);
    assign_source_ports(&mut steps, &[passage(11, "10.0.0.2", Some(all))].into());
    assert!(assigned(&steps).is_empty());
}
