//! VNIs: who has which, and when one is free again.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use ratchet_api::{EndState, VNIBlock, VNIEntry};
use ratchet_controller::{Memory, Plan, Snapshot, plan};
use ratchet_model::Vni;
use serde_json::{Value, json};

use crate::fake::{Fake, Progress, key};

/// A Topology with links between r1 and r2, by the numbers of their interfaces.
fn links(numbers: impl IntoIterator<Item = u32>) -> Value {
    let link = |n| json!({"endpoints": [format!("r1:eth{n}"), format!("r2:eth{n}")]});
    json!({"links": numbers.into_iter().map(link).collect::<Vec<_>>()})
}

fn two_pods() -> (Fake, Memory) {
    let mut api = Fake::new();
    api.pod("lab/r1", "n1");
    api.pod("lab/r2", "n2");
    (api, Memory::default())
}

fn entry(api: &Fake, vni: u32) -> Option<VNIEntry> {
    let (block, offset) = VNIBlock::place_of(Vni::try_from(vni).unwrap());
    api.all
        .blocks
        .get(&block)?
        .spec
        .entries
        .get(&offset)
        .cloned()
}

fn vnis(api: &Fake) -> Vec<u32> {
    let mut vnis: Vec<u32> = api
        .all
        .links
        .values()
        .filter_map(|link| link.spec.vni)
        .collect();
    vnis.sort_unstable();
    vnis
}

#[test]
fn a_thousand_links_take_three_blocks_and_no_vni_twice() {
    let (mut api, mut memory) = two_pods();
    api.topology("lab/t", &links(0..1100));
    api.settle(&mut memory);
    api.check_vnis();
    assert_eq!(vnis(&api), (11..1111).collect::<Vec<u32>>());
    assert_eq!(api.all.blocks.len(), 3);
}

#[test]
fn a_vni_is_kept_when_the_pods_meet_and_when_they_part() {
    let (mut api, mut memory) = two_pods();
    api.topology("lab/t", &links([1]));
    api.settle(&mut memory);
    api.pod("lab/r2", "n1");
    api.settle(&mut memory);
    let link = api.link("lab/t-");
    assert_eq!(link.spec.vni, Some(11));
    assert_eq!(entry(&api, 11).unwrap().former, ["n2"]);
    assert_eq!(link.metadata.labels.unwrap().len(), 1);
}

#[test]
fn a_vni_is_freed_when_both_ends_are_removed() {
    let (mut api, mut memory) = two_pods();
    api.topology("lab/t", &links([1]));
    api.settle(&mut memory);
    api.agents();
    api.settle(&mut memory);
    api.topology("lab/t", &links([]));
    api.settle(&mut memory);
    // What agents said before they knew that the Link goes does not count while the pods live.
    let leaving = api.link("lab/t-");
    api.say_of(&leaving, EndState::Removed, 1);
    api.settle(&mut memory);
    assert!(entry(&api, 11).unwrap().freed.is_none());
    api.agents();
    api.settle(&mut memory);
    assert!(api.all.links.is_empty());
    assert!(entry(&api, 11).unwrap().freed.is_some());
    // Another link does not get it at once.
    api.topology("lab/t", &links([2]));
    api.settle(&mut memory);
    assert_eq!(vnis(&api), [12]);
}

#[test]
fn a_vni_is_freed_when_its_nodes_are_gone_or_after_an_hour() {
    for (nodes_go, minutes) in [(true, 10), (false, 60)] {
        let (mut api, mut memory) = two_pods();
        api.topology("lab/t", &links([1]));
        api.settle(&mut memory);
        api.topology("lab/t", &links([]));
        api.settle(&mut memory);
        if nodes_go {
            api.all.nodes.clear();
            api.settle(&mut memory);
        }
        api.pass(minutes * 60 - 1);
        api.settle(&mut memory);
        assert_eq!(api.all.links.len(), 1);
        api.pass(1);
        api.settle(&mut memory);
        assert!(api.all.links.is_empty());
    }
}

#[test]
fn the_longest_freed_vni_is_given_first_when_all_were_given() {
    let (mut api, mut memory) = two_pods();
    api.config.automatic_vnis = "20-22".parse().unwrap();
    api.topology("lab/t", &links([1, 2, 3, 4]));
    api.settle(&mut memory);
    api.pass(2);
    api.settle(&mut memory);
    assert_eq!(vnis(&api), [20, 21, 22]);
    let exhausted = |api: &Fake| {
        let links = api
            .all
            .links
            .values()
            .filter(|link| link.spec.vni.is_none());
        let reasons = links.map(|link| link.status.clone().unwrap().conditions[0].reason.clone());
        reasons.collect::<Vec<_>>()
    };
    assert_eq!(exhausted(&api), ["VNIExhausted"]);
    for number in [2, 3, 4] {
        api.topology("lab/t", &links([1].into_iter().chain(number + 1..5)));
        api.settle(&mut memory);
        api.agents();
        api.settle(&mut memory);
        api.pass(10);
    }
    assert_eq!(api.all.links.len(), 1);
    let freed = |vni| entry(&api, vni).unwrap().freed;
    let mut expected: Vec<_> = (20..23)
        .filter_map(|vni| Some((freed(vni)?.0, vni)))
        .collect();
    expected.sort_unstable();
    api.pass(600);
    api.topology("lab/t", &links([1, 9]));
    api.settle(&mut memory);
    let given = vnis(&api);
    assert!(given.contains(&expected[0].1), "{given:?} {expected:?}");
}

#[test]
fn a_declared_vni_is_given_or_taken() {
    let (mut api, mut memory) = two_pods();
    let mut spec = links([1]);
    spec["links"][0]["vni"] = json!(2_000_000);
    api.topology("lab/one", &spec);
    api.settle(&mut memory);
    assert_eq!(vnis(&api), [2_000_000]);
    let mut other = links([2]);
    other["links"][0]["vni"] = json!(2_000_000);
    api.topology("lab/two", &other);
    api.settle(&mut memory);
    api.pass(2);
    api.settle(&mut memory);
    let text = api.accepted("lab/two-");
    assert!(
        text.starts_with("VNITaken: VNI 2000000 is asked for, but Link lab/one-"),
        "{text}"
    );
    // Another number is another Link of the same name.
    spec["links"][0]["vni"] = json!(2_000_001);
    let before = api.link("lab/one-").metadata.uid;
    api.topology("lab/one", &spec);
    api.settle(&mut memory);
    api.agents();
    api.settle(&mut memory);
    let after = api.link("lab/one-");
    assert_ne!(after.metadata.uid, before);
    assert_eq!(after.spec.vni, Some(2_000_001));
}

#[test]
fn an_entry_without_a_link_is_dropped_after_three_looks() {
    let (mut api, mut memory) = two_pods();
    api.topology("lab/t", &links([1]));
    let plan = plan(&api.all, &api.config, &mut memory, api.now);
    api.write(&plan, 1);
    assert!(api.all.links.is_empty() && entry(&api, 11).is_some());
    api.topology("lab/t", &links([]));
    for _ in 0..2 {
        api.settle(&mut memory);
        assert!(entry(&api, 11).unwrap().freed.is_none());
        api.pass(20);
    }
    api.settle(&mut memory);
    assert!(entry(&api, 11).unwrap().freed.is_some());
}

#[test]
fn a_controller_that_was_stopped_between_block_and_link_finds_its_vni_unused() {
    let (mut api, mut memory) = two_pods();
    api.config.automatic_vnis = "20-20".parse().unwrap();
    api.topology("lab/t", &links([1]));
    let stopped = plan(&api.all, &api.config, &mut Memory::default(), api.now);
    let mut progress = Progress::default();
    api.go_on(&stopped, &mut progress, 1);
    api.topology("lab/t", &links([2]));
    for _ in 0..4 {
        api.settle(&mut memory);
        api.pass(20);
    }
    assert!(entry(&api, 20).unwrap().freed.is_some());
    api.pass(200);
    api.settle(&mut memory);
    assert!(vnis(&api).is_empty());
    api.go_on(&stopped, &mut progress, usize::MAX);
    assert_eq!(vnis(&api), [20]);
    // The Link that nobody wants goes, and its VNI is free some time later.
    for _ in 0..2 {
        api.settle(&mut memory);
        api.check_vnis();
        api.agents();
        api.pass(301);
    }
    api.settle(&mut memory);
    assert_eq!(vnis(&api), [20]);
}

#[test]
fn a_lost_block_is_written_again_from_the_links() {
    let (mut api, mut memory) = two_pods();
    api.topology("lab/t", &links(1..4));
    api.settle(&mut memory);
    let before = vnis(&api);
    api.all.blocks.clear();
    api.topology("lab/t", &links(1..5));
    api.settle(&mut memory);
    api.check_vnis();
    assert_eq!(vnis(&api)[..3], before);
    assert!(entry(&api, 11).is_some());
}

/// What happens in a story of two controllers.
#[derive(Debug, Clone)]
enum Event {
    /// A Topology gets these links.
    Declare(u8, Vec<u32>),
    /// A pod starts again, on this node.
    Move(u8, u8),
    /// A pod goes.
    Delete(u8),
    /// The agents do their work.
    Agents,
    /// Time passes, in seconds.
    Pass(i64),
    /// A controller reads the API.
    Read(usize),
    /// A controller plans from what it has read, and writes so many steps.
    Write(usize, usize),
    /// A controller that was stopped in the middle of a plan goes on with it.
    GoOn(usize),
    /// A controller starts again.
    Restart(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let numbers = proptest::collection::vec(0..12_u32, 0..6);
    let numbers = numbers.prop_map(|mut numbers| {
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    });
    prop_oneof![
        4 => (0..2_u8, numbers).prop_map(|(t, numbers)| Event::Declare(t, numbers)),
        1 => (1..3_u8, 1..4_u8).prop_map(|(pod, node)| Event::Move(pod, node)),
        1 => (1..3_u8).prop_map(Event::Delete),
        3 => Just(Event::Agents),
        2 => prop_oneof![0..40_i64, 0..299_i64].prop_map(Event::Pass),
        4 => (0..2_usize).prop_map(Event::Read),
        3 => (0..2_usize, 0..6_usize).prop_map(|(who, steps)| Event::Write(who, steps)),
        3 => (0..2_usize).prop_map(|who| Event::Write(who, usize::MAX)),
        2 => (0..2_usize).prop_map(Event::GoOn),
        1 => (0..2_usize).prop_map(Event::Restart),
    ]
}

#[derive(Default)]
struct Controller {
    read: Snapshot,
    memory: Memory,
    /// What it writes, how far it is, and since when.
    writes: Option<(Plan, Progress, Timestamp)>,
}

impl Controller {
    fn write(&mut self, api: &mut Fake, steps: usize) {
        let plan = plan(&self.read, &api.config, &mut self.memory, api.now);
        for (vni, link) in &plan.orphans {
            let present = api.all.links.get(&key(link));
            if present.is_none_or(|link| link.spec.vni != Some(vni.number())) {
                self.memory.confirm((*vni, link.clone()));
            }
        }
        let mut progress = Progress::default();
        api.go_on(&plan, &mut progress, steps);
        self.writes = Some((plan, progress, api.now));
    }

    /// Goes on with the last plan, unless it was stopped for longer than a freed VNI rests.
    fn go_on(&mut self, api: &mut Fake) {
        let Some((plan, mut progress, since)) = self.writes.take() else {
            return;
        };
        if api.now.duration_since(since) < SignedDuration::from_mins(5) {
            api.go_on(&plan, &mut progress, usize::MAX);
        }
    }
}

fn happens(api: &mut Fake, controllers: &mut [Controller; 2], event: Event) {
    match event {
        Event::Declare(topology, numbers) => {
            let numbers = numbers.into_iter().filter(|n| n % 2 == u32::from(topology));
            api.topology(&format!("lab/t{topology}"), &links(numbers));
        }
        Event::Move(pod, node) => api.pod(&format!("lab/r{pod}"), &format!("n{node}")),
        Event::Delete(pod) => api.delete_pod(&format!("lab/r{pod}")),
        Event::Agents => api.agents(),
        Event::Pass(seconds) => api.now += SignedDuration::from_secs(seconds),
        Event::Read(who) => controllers[who].read = api.all.clone(),
        Event::Write(who, steps) => controllers[who].write(api, steps),
        Event::GoOn(who) => controllers[who].go_on(api),
        Event::Restart(who) => controllers[who] = Controller::default(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Two controllers that read when they like, write parts of their plans, and start again.
    #[test]
    fn two_controllers_give_no_vni_twice(events in proptest::collection::vec(event(), 1..60)) {
        let (mut api, _) = two_pods();
        let mut controllers = [Controller::default(), Controller::default()];
        for event in events {
            happens(&mut api, &mut controllers, event);
            api.check_vnis();
        }
        // One of them is left.
        let mut memory = Memory::default();
        for pod in ["lab/r1", "lab/r2"] {
            api.pod(pod, if pod == "lab/r1" { "n1" } else { "n2" });
        }
        for _ in 0..6 {
            api.settle(&mut memory);
            api.agents();
            api.check_vnis();
            api.pass(20);
        }
        api.settle(&mut memory);
        let declared: usize = api.all.topologies.values().map(|t| t.spec.links.len()).sum();
        let here = api.all.links.values();
        let here = here.filter(|link| link.metadata.deletion_timestamp.is_none());
        prop_assert_eq!(here.count(), declared);
        for link in api.all.links.values() {
            let vni = link.spec.vni.unwrap();
            let entry = entry(&api, vni).unwrap();
            prop_assert!(link.metadata.name.as_ref().is_some_and(|n| entry.link.ends_with(n)));
        }
        // Nothing is left over.
        for block in api.all.blocks.values() {
            for entry in block.spec.entries.values().filter(|entry| entry.freed.is_none()) {
                prop_assert!(api.all.links.contains_key(&key(&entry.link)), "{:?}", entry);
            }
        }
    }
}
