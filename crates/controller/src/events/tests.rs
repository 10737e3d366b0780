//! Tests of when a warning is told.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ratchet_api::{LinkStatus, TopologySpec, TopologyStatus};
use serde_json::json;

use super::*;
use crate::{config::Config, snapshot::Key};

/// A clock, and what is known.
struct World {
    known: Snapshot,
    warned: Warned,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        Self {
            known: Snapshot::default(),
            warned: Warned::default(),
            now: Timestamp::from_second(1_700_000_000).unwrap(),
        }
    }

    fn derived(&self) -> Arc<Derived> {
        Derived::of(None, &self.known, &Config::default(), self.now)
    }

    fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    fn condition(&self, status: &str, reason: &str) -> Condition {
        Condition {
            type_: ACCEPTED.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: "why".to_owned(),
            observed_generation: None,
            last_transition_time: Time(self.now),
        }
    }

    fn set_link(&mut self, name: &str, status: LinkStatus) {
        let link = json!({
            "apiVersion": "ratchet.dev/v1alpha1", "kind": "Link",
            "metadata": {"namespace": "default", "name": name, "uid": format!("uid-{name}")},
            "spec": {
                "declaredBy": "Topology",
                "a": {"namespace": "default", "pod": "r1", "interface": "eth1", "podUID": "u1"},
                "b": {"namespace": "default", "pod": "r2", "interface": "eth1", "podUID": "u2"},
            },
            "status": status,
        });
        let link: Link = serde_json::from_value(link).unwrap();
        let key = Key::of(&link.metadata);
        self.known.links.insert(key, Arc::new(link));
    }

    fn refuse(&mut self, name: &str, status: &str, reason: &str) {
        let conditions = vec![self.condition(status, reason)];
        let status = LinkStatus {
            conditions,
            ..LinkStatus::default()
        };
        self.set_link(name, status);
    }

    /// The reasons of the warnings that are posted now.
    fn told(&mut self) -> Vec<String> {
        let mut plan = Plan::default();
        let derived = self.derived();
        let known = (&self.known, &*derived);
        warn(known, &mut self.warned, self.now, &mut plan);
        let warnings = plan.warnings.into_iter();
        warnings.map(|warning| warning.reason).collect()
    }
}

#[test]
fn what_is_not_accepted_for_some_seconds_is_told_once() {
    let mut world = World::new();
    world.refuse("x", "False", "PodNotFound");
    assert!(world.told().is_empty());
    world.pass(5);
    assert_eq!(world.told(), ["PodNotFound"]);
    for _minute in 0..59 {
        world.pass(60);
        assert!(world.told().is_empty());
    }
    world.pass(60);
    assert_eq!(world.told(), ["PodNotFound"], "events go after an hour");
}

#[test]
fn what_comes_and_goes_is_told_once_in_five_minutes() {
    let mut world = World::new();
    let mut told = 0;
    for _cycle in 0..60 {
        world.refuse("x", "False", "Conflict");
        world.pass(5);
        told += world.told().len();
        world.refuse("x", "True", "Resolved");
        world.pass(5);
        told += world.told().len();
    }
    assert_eq!(told, 2, "in ten minutes");
    // Another reason is another event.
    world.refuse("x", "False", "VNITaken");
    world.pass(5);
    assert_eq!(world.told(), ["VNITaken"]);
}

#[test]
fn many_are_told_one_after_another() {
    let mut world = World::new();
    for n in 0..25 {
        world.refuse(&format!("x{n}"), "False", "PodNotFound");
    }
    world.pass(5);
    let mut counts = Vec::new();
    for _round in 0..4 {
        counts.push(world.told().len());
        assert!(world.told().is_empty(), "in the same second");
        world.pass(1);
    }
    assert_eq!(counts, [10, 10, 5, 0]);
}

#[test]
fn two_ends_of_one_link_are_told_like_one() {
    let mut world = World::new();
    let said = |uid: &str, message: &str| LinkEndStatus {
        node: "n1".into(),
        pod_uid: uid.into(),
        sandbox: None,
        observed_generation: 1,
        state: EndState::Failed,
        kind: None,
        mtu: None,
        reason: Some("DeviceNameTaken".into()),
        message: Some(message.into()),
    };
    let status = |first: &str| LinkStatus {
        a: Some(said("u1", first)),
        b: Some(said("u2", "of the other end")),
        conditions: Vec::new(),
    };
    world.set_link("x", status("of this end"));
    assert_eq!(world.told(), ["DeviceNameTaken"]);
    for _minute in 0..59 {
        world.pass(60);
        assert_eq!(world.told(), [""; 0]);
    }
    world.pass(60);
    assert_eq!(world.told(), ["DeviceNameTaken"]);
    // Something else of the same reason is told after five minutes.
    world.set_link("x", status("of this end, and another thing"));
    world.pass(60);
    assert_eq!(world.told(), [""; 0]);
    world.pass(240);
    assert_eq!(world.told(), ["DeviceNameTaken"]);
}

#[test]
fn an_end_that_has_failed_is_told_of_its_pod() {
    let mut world = World::new();
    let said = |pod_uid: &str, state| LinkEndStatus {
        node: "n1".into(),
        pod_uid: pod_uid.into(),
        sandbox: None,
        observed_generation: 1,
        state,
        kind: None,
        mtu: None,
        reason: Some("InterfaceTaken".into()),
        message: Some("eth1 is there".into()),
    };
    let of = |a| LinkStatus {
        a: Some(a),
        ..LinkStatus::default()
    };
    world.set_link("x", of(said("u1", EndState::Waiting)));
    assert!(world.told().is_empty());
    world.set_link("x", of(said("former", EndState::Failed)));
    assert!(world.told().is_empty(), "of a pod that is gone");
    world.set_link("x", of(said("u1", EndState::Failed)));
    let mut plan = Plan::default();
    let derived = world.derived();
    let known = (&world.known, &*derived);
    warn(known, &mut world.warned, world.now, &mut plan);
    let [warning] = &plan.warnings[..] else {
        panic!("{plan:?}")
    };
    assert_eq!(warning.reason, "InterfaceTaken");
    assert_eq!(warning.text, "eth1 of pod r1: eth1 is there");
    let object = &warning.object;
    assert_eq!(object.kind.as_deref(), Some("Link"));
    assert_eq!(object.uid.as_deref(), Some("uid-x"));
}

#[test]
fn a_topology_is_told_too() {
    let mut world = World::new();
    let mut topology = Topology::new("t", TopologySpec::default());
    topology.metadata.namespace = Some("default".into());
    topology.status = Some(TopologyStatus {
        links: 1,
        ready: 0,
        observed_generation: 1,
        conditions: vec![world.condition("False", "Ambiguous")],
    });
    let key = Key::of(&topology.metadata);
    world.known.topologies.insert(key, Arc::new(topology));
    world.pass(5);
    assert_eq!(world.told(), ["Ambiguous"]);
}
