//! What works while the underlay is gone, or the store hangs: real engine and kernel, in namespaces
//! of their own.

mod claims;
mod devices;
mod links;
mod vnis;

use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use ratchet_model::{
    Location, PodKey, PodRecord, Vni,
    declaration::{Accept, Texts, declare},
    device::Passage,
};
use ratchet_protocol::{
    Attached, Attachment, Detach, Failure, FailureKind, LinkReport, LinkState, Reply, Settings,
};
use ratchet_store::Publish;
use tokio::sync::oneshot;

use super::{
    Command, Declared, Engine, NewSandbox, Setup,
    testing::{Netns, Node, devices, ip},
};
use crate::{
    session::testing::{Hasty, Moody},
    store::open_store,
};

/// When a test gives up.
const DEADLINE: Duration = Duration::from_secs(30);

/// Runs a test on a node, on a thread of its own, while its runtime is driven.
fn on_a_node(test: impl FnOnce(&Node) + Send + 'static) {
    let run = || {
        let node = Node::new();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(|| node.runtime.block_on(stopped));
            test(&node);
            drop(stop);
        });
    };
    thread::spawn(run).join().unwrap();
}

/// An engine that has started.
fn start(node: &Node) -> Engine {
    start_with_news(node).0
}

/// The same with these settings.
fn start_with(node: &Node, settings: Settings) -> Engine {
    let (commands, _inbox) = mpsc::channel();
    let setup = Setup {
        settings,
        ..node.setup(&commands)
    };
    let mut engine = Engine::new(setup).unwrap();
    engine.start();
    engine
}

/// The same, with what its watch tells.
fn start_with_news(node: &Node) -> (Engine, mpsc::Receiver<Command>) {
    let (commands, inbox) = mpsc::channel();
    let mut engine = node.engine(&commands);
    engine.start();
    (engine, inbox)
}

fn attachment(pod: &str) -> Attachment {
    Attachment {
        network: "net".into(),
        container_id: pod.parse().unwrap(),
        interface: "eth0".into(),
    }
}

/// Attaches a pod with links to its peers.
fn add(engine: &mut Engine, pod: &str, netns: &Netns, peers: &[&str]) -> Result<Attached, Failure> {
    add_named(engine, pod, (pod, netns), peers)
}

/// The same for a pod that the runtime calls otherwise.
fn add_named(
    engine: &mut Engine,
    pod: &str,
    (name, netns): (&str, &Netns),
    peers: &[&str],
) -> Result<Attached, Failure> {
    let link = |peer: &&str| format!("{{interface: to-{peer}, peer: {peer}/to-{pod}}}");
    let links: Vec<String> = peers.iter().map(link).collect();
    let links = format!("[{}]", links.join(", "));
    attach(engine, pod, (attachment(name), netns), &links)
}

/// Attaches a pod with this annotation.
fn declare_and_add(
    engine: &mut Engine,
    pod: &str,
    netns: &Netns,
    links: &str,
) -> Result<Attached, Failure> {
    attach(engine, pod, (attachment(pod), netns), links)
}

fn attach(
    engine: &mut Engine,
    pod: &str,
    (attachment, netns): (Attachment, &Netns),
    links: &str,
) -> Result<Attached, Failure> {
    let name = attachment.container_id.to_string();
    let annotations = [("ratchet.dev/links".to_owned(), links.to_owned())].into();
    let declaration = declare(&key(pod), &Texts::new(), &annotations);
    let (answer, mut answered) = oneshot::channel();
    let sandbox = NewSandbox {
        attachment,
        netns: netns.path(),
        settings: Settings::default(),
        kubernetes: ("default".into(), name),
        use_labels: true,
        declaration: declaration.unwrap().unwrap(),
    };
    engine.handle(Command::Attach(Box::new(sandbox), answer));
    match answered.try_recv().expect("an answer")? {
        Reply::Attached(attached) => Ok(attached),
        other => panic!("not an answer to an attach: {other:?}"),
    }
}

fn del(engine: &mut Engine, pod: &str) {
    let (answer, mut answered) = oneshot::channel();
    let attachment = attachment(pod);
    let detach = Detach {
        attachment,
        netns: None,
    };
    engine.handle(Command::Detach(detach, answer));
    assert_eq!(answered.try_recv().expect("an answer"), Ok(Reply::Done));
}

fn key(pod: &str) -> PodKey {
    PodKey::new("default", pod).unwrap()
}

fn resync(engine: &mut Engine) {
    engine.begin_resync();
    while engine.resync.is_some() {
        engine.continue_resync();
    }
}

fn lose_underlay() {
    ip("address del 10.0.0.1/24 dev u0");
}

fn restore_underlay() {
    ip("address add 10.0.0.1/24 dev u0");
}

/// Whether the store says that a pod is on this node.
fn is_published(node: &Node, pod: &str) -> bool {
    let (settings, own) = (node.settings.clone(), [key(pod)].into());
    let facts = node.runtime.handle().block_on(async {
        let store = open_store(settings).await.unwrap();
        store.read(&own).await.unwrap()
    });
    let record = facts.records.get(&key(pod));
    record.is_some_and(PodRecord::lives)
}

/// Says that a pod is on another node.
fn publish_far(node: &Node, pod: &str) {
    publish_far_named(node, pod, None);
}

/// The same for a pod that the runtime there calls otherwise.
fn publish_far_named(node: &Node, pod: &str, owner: Option<&str>) {
    let record = PodRecord {
        owner: owner.map(ToOwned::to_owned),
        ..far_record(pod)
    };
    publish_record(node, &record);
}

fn far_record(pod: &str) -> PodRecord {
    let location = Location {
        node: "n2".parse().unwrap(),
        vtep: "10.0.0.2".parse().unwrap(),
        sandbox: pod.parse().unwrap(),
        mtu: 1450.try_into().unwrap(),
        leaving: false,
    };
    PodRecord::new(key(pod), Some(location), 1, Vec::new())
}

fn publish_record(node: &Node, record: &PodRecord) {
    node.runtime.handle().block_on(async {
        let store = open_store(node.settings.clone()).await.unwrap();
        store.publish(record, Publish::New).await.unwrap()
    });
}

#[test]
fn a_detach_while_the_underlay_is_gone_leaves_the_survivor_its_interface() {
    for restarted in [false, true] {
        on_a_node(move |node| {
            let [a, b] = ["a", "b"].map(Netns::new);
            let mut engine = start(node);
            add(&mut engine, "a", &a, &["b"]).unwrap();
            add(&mut engine, "b", &b, &[]).unwrap();
            lose_underlay();
            if restarted {
                engine = start(node);
            } else {
                resync(&mut engine);
            }
            assert_eq!([a.devices(), b.devices()], [["to-b"], ["to-a"]]);

            del(&mut engine, "a");
            let parked = devices(&ip("-o link show"));
            assert_eq!((a.devices().len(), b.devices()), (0, vec!["to-a".into()]));
            assert_eq!(parked.len(), 1, "{parked:?}");
            drop(a);
            assert_eq!(b.devices(), ["to-a"], "restarted: {restarted}");
            assert!(!is_published(node, "a"), "the store was told");
            del(&mut engine, "b");
            assert_eq!(devices(&ip("-o link show")), [""; 0]);
        });
    }
}

#[test]
fn an_agent_that_starts_without_an_underlay_makes_links_within_the_node() {
    on_a_node(|node| {
        publish_far(node, "far");
        lose_underlay();
        let [a, b] = ["a", "b"].map(Netns::new);
        let (mut engine, news) = start_with_news(node);
        add(&mut engine, "a", &a, &["b", "far"]).unwrap();
        let attached = add(&mut engine, "b", &b, &[]).unwrap();
        assert_eq!((attached.interfaces.len(), attached.pending.len()), (1, 0));
        assert_eq!([a.devices(), b.devices()], [["to-b"], ["to-a"]]);
        let mtu = ip(&format!(
            "netns exec {} cat /sys/class/net/to-b/mtu",
            a.name()
        ));
        assert_eq!(mtu.trim(), "1450");
        assert!(!is_published(node, "a") && !is_published(node, "b"));
        // The store tells of a pod's peers once the pod is published.
        let states: Vec<LinkState> = engine.report().links.iter().map(|l| l.state).collect();
        assert_eq!(states, [LinkState::Up, LinkState::Pending]);

        restore_underlay();
        resync(&mut engine);
        assert!(is_published(node, "a") && is_published(node, "b"));
        while a.devices().len() < 2 {
            let news = news.recv_timeout(DEADLINE);
            engine.handle(news.expect("news of the pod that is published now"));
            engine.work();
        }
        let is_up = |link: &ratchet_protocol::LinkReport| link.state == LinkState::Up;
        assert!(engine.report().links.iter().all(is_up));
    });
}

#[test]
fn tunnels_stay_while_the_underlay_is_gone_and_new_ones_wait() {
    on_a_node(|node| {
        publish_far(node, "far");
        let [a, b] = ["a", "b"].map(Netns::new);
        let mut engine = start(node);
        add(&mut engine, "a", &a, &["far"]).unwrap();
        lose_underlay();
        resync(&mut engine);
        let attached = add(&mut engine, "b", &b, &["far"]).unwrap();
        assert_eq!((attached.interfaces.len(), attached.pending.len()), (0, 1));
        let states = |engine: &Engine| {
            let links = engine.report().links;
            links.iter().map(|link| link.state).collect::<Vec<_>>()
        };
        assert_eq!(states(&engine), [LinkState::Up, LinkState::Pending]);
        assert_eq!((a.devices(), b.devices().len()), (vec!["to-far".into()], 0));

        restore_underlay();
        resync(&mut engine);
        assert_eq!(states(&engine), [LinkState::Up; 2]);
    });
}

#[test]
fn a_store_that_hangs_holds_up_one_call_and_no_detach() {
    on_a_node(|node| {
        let moody = Arc::new(Moody::default());
        let (commands, _inbox) = mpsc::channel();
        let mut setup = node.setup(&commands);
        setup.open_store = moody.opener();
        setup.clock = Arc::new(Hasty::default());
        let mut engine = Engine::new(setup).unwrap();
        engine.start();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(Netns::new);
        add(&mut engine, "a", &a, &["b"]).unwrap();
        add(&mut engine, "b", &b, &[]).unwrap();
        assert_eq!([a.devices(), b.devices()], [["to-b"], ["to-a"]]);

        moody.set_hanging(true);
        let failure = add(&mut engine, "c", &c, &["a"]).unwrap_err();
        assert_eq!(failure.kind, FailureKind::TryLater);
        assert!(failure.message.contains("no answer for"), "{failure}");
        let calls = moody.calls();
        del(&mut engine, "a");
        assert_eq!((a.devices().len(), b.devices()), (0, vec!["to-a".into()]));
        assert_eq!(add(&mut engine, "d", &d, &["b"]).unwrap_err(), failure);
        assert_eq!(moody.calls(), calls, "no call waits again");

        moody.set_hanging(false);
        engine.handle(Command::StoreBack);
        resync(&mut engine);
        assert!(!engine.sandboxes.has(&key("a")), "the store was told");
        add(&mut engine, "d", &d, &["b"]).unwrap();
        assert_eq!([d.devices(), b.devices()], [["to-b"], ["to-d"]]);
    });
}

/// The links of this node with their states and reason codes, by the pods that declare them.
fn links(engine: &Engine) -> Vec<(LinkState, String)> {
    let links = engine.report().links.into_iter();
    let code = |link: &LinkReport| {
        link.reason_details
            .as_ref()
            .map(|reason| reason.code.clone())
    };
    links
        .map(|link| (link.state, code(&link).unwrap_or_default()))
        .collect()
}

#[test]
fn of_two_pods_with_one_name_the_first_has_it_until_it_has_gone() {
    on_a_node(|node| {
        let mut engine = start(node);
        let [peer, old, new] = ["peer", "old", "new"].map(Netns::new);
        add(&mut engine, "peer", &peer, &[]).unwrap();
        add_named(&mut engine, "r", ("r-old", &old), &["peer"]).unwrap();
        let index = ip(&format!("-n {} -o link show to-r", peer.name()));
        let attached = add_named(&mut engine, "r", ("r-new", &new), &["peer"]).unwrap();
        let [pending] = &attached.pending[..] else {
            panic!("{attached:?}")
        };
        let expected = "to-peer: the name default/r belongs to pod r-old on node n1: end that pod";
        assert!(pending.starts_with(expected), "{pending}");

        for is_restarted in [false, true] {
            if is_restarted {
                engine = start(node);
            }
            resync(&mut engine);
            assert_eq!(old.devices(), ["to-peer"], "restarted: {is_restarted}");
            assert_eq!(new.devices(), [""; 0]);
            let both = [
                (LinkState::Up, String::new()),
                (LinkState::Pending, "name_held".to_owned()),
            ];
            assert_eq!(links(&engine), both);
        }

        del(&mut engine, "r-old");
        resync(&mut engine);
        assert_eq!(new.devices(), ["to-peer"]);
        assert_eq!(links(&engine), [(LinkState::Up, String::new())]);
        let now = ip(&format!("-n {} -o link show to-r", peer.name()));
        assert_eq!(number(&now), number(&index), "the peer's interface stays");

        // One that waits changes nothing when it goes.
        let third = Netns::new("third");
        add_named(&mut engine, "r", ("r-third", &third), &["peer"]).unwrap();
        del(&mut engine, "r-third");
        resync(&mut engine);
        assert_eq!(new.devices(), ["to-peer"]);
        del(&mut engine, "r-new");
        assert!(!is_published(node, "r"));
        assert_eq!(new.devices(), [""; 0]);
    });
}

/// The index at the start of a line of `ip -o link`.
fn number(line: &str) -> &str {
    line.split(':').next().unwrap()
}

#[test]
fn a_name_that_a_pod_of_another_node_has_is_waited_for() {
    on_a_node(|node| {
        publish_far_named(node, "r", Some("r-far"));
        let mut engine = start(node);
        let [peer, here] = ["peer", "here"].map(Netns::new);
        add(&mut engine, "peer", &peer, &[]).unwrap();
        let attached = add_named(&mut engine, "r", ("r-here", &here), &["peer"]).unwrap();
        assert!(
            attached.pending[0].contains("belongs to pod r-far on node n2"),
            "{attached:?}"
        );
        resync(&mut engine);
        assert_eq!(here.devices(), [""; 0]);

        node.runtime.handle().block_on(async {
            let store = open_store(node.settings.clone()).await.unwrap();
            let sandbox = "r".parse().unwrap();
            store.remove_pod(&key("r"), &sandbox).await.unwrap();
        });
        resync(&mut engine);
        assert_eq!(here.devices(), ["to-peer"]);
        assert!(is_published(node, "r"));
    });
}

#[test]
fn a_link_that_cannot_be_made_keeps_no_passage_of_another_open() {
    on_a_node(|node| {
        publish_far(node, "far");
        let [a, b] = ["a", "b"].map(Netns::new);
        let mut engine = start(node);
        let kernel = ratchet_kernel::Kernel::new().unwrap();
        add(&mut engine, "a", &a, &["b", "far"]).unwrap();
        ip(&format!("-n {} link add to-b type bridge", a.name()));
        add(&mut engine, "b", &b, &[]).unwrap();
        resync(&mut engine);
        let needed = kernel.filter().unwrap().passages;
        assert_eq!(needed.len(), 1);
        let states: Vec<LinkState> = engine.report().links.iter().map(|l| l.state).collect();
        assert_eq!(states, [LinkState::Error, LinkState::Up]);

        // An agent died between deleting a tunnel and closing its passage.
        let left = needed.iter().map(|passage| Passage {
            vni: 77.try_into().unwrap(),
            ..*passage
        });
        let left: Vec<Passage> = left.collect();
        kernel.change_filter(&left, &[]).unwrap();
        let mut engine = start(node);
        resync(&mut engine);
        assert_eq!(kernel.filter().unwrap().passages, needed);
    });
}
