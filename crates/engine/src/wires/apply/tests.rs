//! What is noted of links.

use std::time::Duration;

use ratchet_model::{PodKey, Reason, WiringKind, wiring::Wiring};

use super::*;
use crate::{state::StateDir, testing::link};

fn with_wires(test: impl FnOnce(&mut Wires)) {
    let dir = tempfile::tempdir().unwrap();
    test(&mut Wires::load(StateDir::open(dir.path()).unwrap()));
}

fn fresh(pod: &str, obstacle: Option<Box<Reason>>) -> Fresh {
    let link = link(pod, None);
    Fresh {
        wiring: Wiring {
            wanted: vec![Wanted::Frozen(link.id)],
            obstacle,
        },
        link,
        kind: WiringKind::Direct,
        asked: WiringKind::Direct,
        nodes: [None, None],
    }
}

fn waiting(pod: &str) -> Option<Box<Reason>> {
    let pod = PodKey::new("default", pod).unwrap();
    Some(Box::new(Reason::PeerGone { pod }))
}

fn error(interface: &str) -> Option<Box<Reason>> {
    Some(Box::new(Reason::InterfaceExists {
        interface: interface.to_owned(),
        netns: String::new(),
    }))
}

#[test]
fn users_are_warned_of_an_error_once_and_again_when_it_is_another() {
    with_wires(|wires| {
        let now = Instant::now();
        let mut note = |obstacle| {
            let warnings = wires.note_all(vec![fresh("a", obstacle)], &[].into(), now);
            let reasons = warnings.into_iter().map(|(_, reason)| reason);
            reasons.collect::<Vec<_>>()
        };
        assert_eq!(note(waiting("b")), []);
        assert_eq!(note(error("wrong")), [error("wrong").unwrap()]);
        assert_eq!(note(error("wrong")), []);
        assert_eq!(note(error("worse")), [error("worse").unwrap()]);
        assert_eq!(note(None), []);
    });
}

#[test]
fn a_link_waits_since_it_began_to_wait_for_the_same_thing_and_is_told_of_once() {
    with_wires(|wires| {
        let begun = Instant::now();
        let later = begun + Duration::from_secs(5);
        wires.note_all(vec![fresh("a", waiting("b"))], &[].into(), begun);
        wires.note_all(vec![fresh("a", waiting("b"))], &[].into(), later);
        assert_eq!(wires.waiting_since(), Some(begun));
        let (told, reason) = wires.take_longest_waiting().unwrap();
        assert_eq!(
            (told.a.pod.name(), Some(Box::new(reason))),
            ("a", waiting("b"))
        );
        wires.note_all(vec![fresh("a", waiting("b"))], &[].into(), later);
        assert_eq!(wires.waiting_since(), None);
        wires.note_all(vec![fresh("a", waiting("c"))], &[].into(), later);
        assert_eq!(wires.waiting_since(), Some(later));
    });
}

#[test]
fn when_the_kernel_cannot_be_looked_at_only_what_is_new_has_failed() {
    with_wires(|wires| {
        let (now, link) = (Instant::now(), link("a", None));
        wires.note_all(vec![fresh("a", None)], &[].into(), now);
        let made = fresh("a", None).wiring;
        assert!(wires.has_made(link.id, &made));

        let gone = || KernelError::Unregistered("s1".parse().unwrap());
        let both = vec![fresh("a", None), fresh("b", None)];
        let applied = wires.take_blindness(both, gone(), now);
        assert!(applied.tried.is_err());
        assert!(wires.has_made(link.id, &made), "it is as it was");
        let failure = |wires: &Wires, pod| {
            let pod = PodKey::new("default", pod).unwrap();
            wires.of(&pod).find_map(|tracked| tracked.failure.clone())
        };
        assert_eq!(failure(wires, "b"), Some(LinkFailure::unseen(&gone())));

        let changed = fresh("a", waiting("b"));
        wires.take_blindness(vec![changed], gone(), now);
        assert_eq!(failure(wires, "a"), Some(LinkFailure::unseen(&gone())));
        assert!(!wires.has_made(link.id, &made));
    });
}
