//! Links follow the declarations of running pods, and warnings reach users: real engine, kernel and
//! store, in namespaces of their own; events and time are the test's.

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use ratchet_model::{
    PodKey, Reason,
    declaration::{Declaration, DeclarationError, Texts, declare},
    device::Interface,
};
use ratchet_protocol::{Attachment, Check, Reply, Settings};
use tokio::sync::oneshot;

use super::LONG;
use crate::{
    clock::{Clock, SystemClock},
    engine::{
        Declared, Engine, NewSandbox,
        testing::{Netns, Node, ip},
    },
    events::{Events, Outbox},
};

/// What users are told, if they can be.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    online: bool,
    warnings: Vec<String>,
}

impl Recorder {
    fn set_online(&self) {
        self.0.lock().unwrap().online = true;
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().warnings)
    }
}

impl Events for Recorder {
    fn is_online(&self) -> bool {
        self.0.lock().unwrap().online
    }

    fn warn(&self, namespace: &str, name: &str, reason: &Reason, text: &str) {
        let warning = format!("{namespace}/{name}: {}: {text}", reason.code());
        self.0.lock().unwrap().warnings.push(warning);
    }
}

/// A clock that a test moves.
#[derive(Debug, Clone)]
struct ManualClock(Arc<Mutex<Instant>>);

impl ManualClock {
    fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        *self.0.lock().unwrap()
    }

    fn unix_nanos(&self) -> u64 {
        1
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        SystemClock.sleep(duration)
    }
}

/// Runs a test with an engine that has started, what users are told, and its clock.
fn with_engine(test: impl FnOnce(&mut Engine, &Recorder, &ManualClock) + Send + 'static) {
    let run = || {
        let node = Node::new();
        let (sender, _inbox) = mpsc::channel();
        let mut engine = node.engine(&sender);
        let (events, clock) = (
            Recorder::default(),
            ManualClock(Arc::new(Mutex::new(Instant::now()))),
        );
        engine.events = Outbox::new(Box::new(events.clone()));
        engine.clock = Arc::new(clock.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        thread::scope(|scope| {
            // Drives the runtime, as the server does in an agent.
            scope.spawn(|| node.runtime.block_on(stopped));
            engine.start();
            test(&mut engine, &events, &clock);
            drop(stop);
        });
    };
    thread::spawn(run).join().unwrap();
}

fn declaration(pod: &str, links: &str) -> Declaration {
    let annotations = [("ratchet.dev/links".to_owned(), links.to_owned())].into();
    let pod = PodKey::new("default", pod).unwrap();
    declare(&pod, &Texts::new(), &annotations).unwrap().unwrap()
}

fn attach(engine: &mut Engine, netns: &Netns, use_labels: bool, links: &str) {
    let sandbox = NewSandbox {
        use_labels,
        ..sandbox("p", ("p", netns), links)
    };
    engine.attach(&sandbox).unwrap();
}

/// Attaches a pod that the runtime calls so.
fn attach_as(engine: &mut Engine, pod: &str, (name, netns): (&str, &Netns), links: &str) {
    engine.attach(&sandbox(pod, (name, netns), links)).unwrap();
}

fn sandbox(pod: &str, (name, netns): (&str, &Netns), links: &str) -> NewSandbox {
    NewSandbox {
        attachment: Attachment {
            network: "net".into(),
            container_id: name.parse().unwrap(),
            interface: "eth0".into(),
        },
        netns: netns.path(),
        settings: Settings::default(),
        kubernetes: ("default".into(), name.into()),
        use_labels: true,
        declaration: declaration(pod, links),
    }
}

fn declared(
    with_labels: Result<Option<Declaration>, DeclarationError>,
    annotations_only: Result<Option<Declaration>, DeclarationError>,
) -> Declared {
    Declared {
        kubernetes: ("default".into(), "p".into()),
        with_labels,
        annotations_only,
    }
}

/// What is wrong with a declaration.
fn wrong() -> DeclarationError {
    DeclarationError::new("default/p", "links", Reason::RouteInvalid {})
}

/// The interfaces that the engine has links for.
fn links(engine: &Engine) -> Vec<String> {
    let report = engine.report().links;
    report
        .iter()
        .map(|link| link.a.interface.to_string())
        .collect()
}

const ONE: &str = "[{interface: e1, peer: q}]";
const TWO: &str = "[{interface: e1, peer: q}, {interface: e2, peer: r}]";

#[test]
fn links_follow_what_counts_for_the_pod() {
    for use_labels in [true, false] {
        with_engine(move |engine, events, _| {
            let netns = Netns::new("p");
            attach(engine, &netns, use_labels, ONE);
            let [counts, other] = [TWO, "[]"].map(|links| Ok(Some(declaration("p", links))));
            engine.declared(&if use_labels {
                declared(counts, other)
            } else {
                declared(other, counts)
            });
            assert_eq!(links(engine), ["e1", "e2"]);
            engine.declared(&declared(Ok(None), Ok(None)));
            assert_eq!(links(engine), [""; 0]);
            assert_eq!(events.take(), [""; 0]);
        });
    }
}

#[test]
fn a_declaration_that_is_wrong_or_renames_the_pod_changes_nothing_and_is_told() {
    with_engine(|engine, events, clock| {
        let netns = Netns::new("p");
        attach(engine, &netns, true, ONE);
        engine.declared(&declared(Err(wrong()), Ok(None)));
        engine.declared(&declared(Ok(Some(declaration("other", TWO))), Ok(None)));
        assert_eq!(links(engine), ["e1"]);
        assert_eq!(
            events.take(),
            [
                "default/p: route_invalid: pod default/p: links: dst and via must both be IPv4 or \
                 both IPv6"
            ]
        );
        // A pod has one event a minute.
        clock.advance(Duration::from_secs(60));
        assert!(engine.next_due() <= clock.now());
        engine.work();
        assert_eq!(
            events.take(),
            [
                "default/p: pod_renamed: a running pod cannot change its name from default/p to \
              default/other"
            ]
        );
        let mut stranger = declared(Err(wrong()), Ok(None));
        stranger.kubernetes.1 = "stranger".into();
        engine.declared(&stranger);
        assert_eq!(events.take(), [""; 0]);
    });
}

/// A VNI outside of `declared_vni_range` is refused with all of the declaration's links. What the
/// pod accepts counts all the same.
#[test]
fn links_that_are_up_stay_when_a_running_pod_declares_a_vni_that_cannot_be() {
    with_engine(|engine, events, _| {
        let [p, q] = ["p", "q"].map(Netns::new);
        attach(engine, &p, true, ONE);
        attach_as(engine, "q", ("q", &q), "[]");
        let shown = || [&p, &q].map(|pod| ip(&format!("-n {} -o link show", pod.name())));
        let before = shown();
        assert_eq!(
            (p.devices(), q.devices()),
            (vec!["e1".into()], vec!["e1".into()])
        );
        let refused = "[{interface: e1, peer: q, vni: 77}, {interface: e2, peer: q}]";
        let refused = Declaration {
            accept: Some("none".parse().unwrap()),
            ..declaration("p", refused)
        };
        engine.declared(&declared(Ok(Some(refused.clone())), Ok(None)));
        assert_eq!(shown(), before);
        let expected = "default/p: vni_not_declarable: pod default/p: link e1: VNI 77 cannot be \
                        declared, expected one of 1000000-16777215";
        let told = events.take();
        assert!(told.len() == 1 && told[0].starts_with(expected), "{told:?}");
        let own = PodKey::new("default", "p").unwrap();
        let saved = engine.sandboxes.current(&own).unwrap();
        assert_eq!(
            (saved.accept.as_ref(), saved.links.len()),
            (refused.accept.as_ref(), 1)
        );
    });
}

#[test]
fn what_a_pod_without_its_name_declares_wrongly_is_told_to_it_and_not_to_the_names_holder() {
    with_engine(|engine, events, clock| {
        let [p, second] = ["p", "second"].map(Netns::new);
        attach(engine, &p, true, "[]");
        attach_as(engine, "p", ("second", &second), ONE);
        events.take();
        clock.advance(Duration::from_secs(60));
        let second = Declared {
            kubernetes: ("default".into(), "second".into()),
            ..declared(Err(wrong()), Ok(None))
        };
        engine.declared(&second);
        let told = events.take();
        let expected = "default/second: route_invalid: ";
        assert!(told.len() == 1 && told[0].starts_with(expected), "{told:?}");
    });
}

#[test]
fn what_takes_long_is_told_once_and_not_before_it_can_be() {
    with_engine(|engine, events, clock| {
        let netns = Netns::new("p");
        attach(engine, &netns, true, ONE);
        engine.work();
        clock.advance(LONG);
        engine.work();
        assert_eq!((engine.next_warning(), events.take()), (None, vec![]));
        events.set_online();
        assert_eq!(engine.next_warning(), Some(clock.now()));
        engine.work();
        let warnings = events.take();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let expected = "default/p: peer_unknown: link default/p/e1 — default/q/e1: ";
        assert!(warnings[0].starts_with(expected), "{warnings:?}");
        clock.advance(LONG);
        engine.work();
        assert_eq!((engine.next_warning(), events.take()), (None, vec![]));
    });
}

/// What the pod default/p declares that accepts these pods.
fn accepting(accept: &str) -> Declared {
    let accept = Some(accept.parse().unwrap());
    let declaration = Declaration {
        accept,
        ..declaration("p", "[]")
    };
    declared(Ok(Some(declaration)), Ok(None))
}

/// Attaches a pod of another namespace that claims an interface of default/p.
fn claim(engine: &mut Engine, netns: &Netns) -> Attachment {
    let links = "[{interface: e1, peer: default/p/e1, peerAddresses: [10.7.0.1/24]}]";
    let annotations = [("ratchet.dev/links".to_owned(), links.to_owned())].into();
    let pod = PodKey::new("x", "x").unwrap();
    let declaration = declare(&pod, &Texts::new(), &annotations);
    let attachment = Attachment {
        network: "net".into(),
        container_id: "x".parse().unwrap(),
        interface: "eth0".into(),
    };
    let sandbox = NewSandbox {
        attachment: attachment.clone(),
        netns: netns.path(),
        settings: Settings::default(),
        kubernetes: ("x".into(), "x".into()),
        use_labels: true,
        declaration: declaration.unwrap().unwrap(),
    };
    engine.attach(&sandbox).unwrap();
    attachment
}

#[test]
fn consent_that_is_withdrawn_takes_the_link_away_at_once_and_only_the_declarer_is_told() {
    with_engine(|engine, events, clock| {
        events.set_online();
        let (p, x) = (Netns::new("p"), Netns::new("x"));
        attach(engine, &p, true, "[]");
        let attachment = claim(engine, &x);
        let both = || (p.devices(), x.devices());
        assert_eq!(both(), (vec![], vec![]));
        for _ in 0..3 {
            engine.declared(&accepting("own-namespace,x"));
            assert_eq!(both(), (vec!["e1".into()], vec!["e1".into()]));
            engine.declared(&accepting("own-namespace"));
            assert_eq!(both(), (vec![], vec![]));
        }
        // Nothing is wrong with the declarer's pod: a CHECK does not miss the end.
        let end = Interface {
            name: "e1".into(),
            mac: None,
            mtu: 1500,
        };
        let check = Check {
            attachment,
            netns: x.path(),
            interfaces: vec![end],
        };
        assert_eq!(engine.check(&check), Ok(Reply::Done));
        let report = engine.report().links;
        let codes: Vec<_> = report
            .iter()
            .filter_map(|link| link.reason_details.as_ref())
            .map(|reason| reason.code.as_str())
            .collect();
        assert_eq!(codes, ["no_consent"]);
        let own = PodKey::new("default", "p").unwrap();
        assert_eq!(engine.wires.of(&own).count(), 0, "it is none of its links");
        assert_eq!(events.take(), [""; 0]);
        clock.advance(LONG);
        engine.work();
        let told = events.take();
        assert!(
            told.len() == 1 && told[0].starts_with("x/x: no_consent: "),
            "{told:?}"
        );
        // A restarted agent knows what the pod accepts.
        engine.declared(&accepting("x"));
        let saved = engine.sandboxes.current(&own).unwrap();
        let accept = saved.accept.as_ref().map(ToString::to_string);
        assert_eq!(accept.as_deref(), Some("x"));
    });
}
