//! Histories that went wrong once, each shrunk to what it needs.

use ratchet_simulation::{
    declaration::{Declaration, DeclaredLink, Form},
    event::{Event, Happening},
    history::History,
};

/// A link from interface `own` of a pod to interface `far.1` of pod `far.0`.
fn link(own: u8, far: (usize, u8)) -> DeclaredLink {
    DeclaredLink {
        interface: own,
        peer: far.0,
        peer_interface: far.1,
        address: None,
        peer_address: None,
        vni: None,
        mtu: None,
    }
}

fn annotation(links: &[DeclaredLink]) -> Declaration {
    Declaration {
        form: Form::Annotation,
        links: links.to_vec(),
    }
}

fn labels(link: DeclaredLink) -> Declaration {
    Declaration {
        form: Form::Labels,
        links: vec![link],
    }
}

fn add(pod: usize, node: usize, declaration: Declaration) -> Happening {
    Happening::Add {
        pod,
        node,
        declaration,
        is_expected: false,
    }
}

/// What happens, and whose turn it is then.
fn then(happening: Happening, turns: &[usize]) -> Event {
    Event {
        happening,
        turns: turns.to_vec(),
    }
}

fn goes_well(nodes: usize, kubernetes: bool, events: Vec<Event>) {
    let history = History {
        nodes,
        kubernetes,
        events,
    };
    if let Err(violation) = history.run() {
        panic!("event {}: {}", violation.event, violation.wrong.text);
    }
}

/// Another program removes the filter, and nothing else happens: a resync puts it back. What could
/// not be written while the kernel refused is written later.
#[test]
fn a_filter_that_was_removed_or_refused_is_made_again() {
    let tunnel = |own| annotation(&[link(own, (1, own))]);
    for fault in [Happening::FlushFilter(0), Happening::RefuseFilter(0)] {
        goes_well(
            2,
            false,
            vec![
                then(add(0, 0, tunnel(0)), &[0, 1]),
                then(add(1, 1, annotation(&[])), &[0, 1, 0, 1]),
                then(Happening::Settle, &[]),
                then(fault, &[]),
                then(add(2, 0, tunnel(1)), &[0, 1, 0, 1]),
                then(Happening::Settle, &[]),
            ],
        );
    }
    goes_well(
        2,
        false,
        vec![
            then(add(0, 0, tunnel(0)), &[0, 1]),
            then(add(1, 1, annotation(&[])), &[0, 1, 0, 1]),
            then(Happening::Settle, &[]),
            then(Happening::FlushFilter(0), &[]),
            then(Happening::Settle, &[]),
        ],
    );
}

/// The agent said that the links stay, and never tried again.
#[test]
fn a_change_of_declaration_that_could_not_be_written_down_is_tried_again() {
    let change = Happening::Change {
        pod: 0,
        declaration: annotation(&[link(0, (1, 0)), link(1, (1, 1))]),
    };
    let events = vec![
        then(add(0, 0, annotation(&[link(0, (1, 0))])), &[0, 0, 0]),
        then(add(1, 1, annotation(&[])), &[1, 1, 1]),
        then(Happening::FillDisk(0), &[0, 0, 0]),
        then(change, &[0, 0, 0]),
        then(Happening::Settle, &[]),
    ];
    goes_well(2, false, events);
}

/// The agent then took such a pod for one whose labels do not count.
#[test]
fn a_pod_that_declares_by_labels_keeps_its_links_when_the_state_is_lost() {
    let events = vec![
        then(add(0, 0, labels(link(0, (1, 0)))), &[0, 0, 0]),
        then(add(1, 1, annotation(&[])), &[1, 1, 1, 0, 0]),
        then(Happening::LoseState { node: 0, all: true }, &[0, 0, 0]),
        then(Happening::Settle, &[]),
    ];
    goes_well(2, true, events);
}

/// The record of a pod that lives here and elsewhere changed without being asked for; its new peers
/// were not watched.
#[test]
fn the_peers_of_a_pod_that_moved_away_are_watched_as_they_are_now() {
    let first = annotation(&[link(0, (5, 2)), link(1, (2, 0))]);
    let second = annotation(&[link(1, (3, 0)), link(0, (4, 2))]);
    let events = vec![
        then(add(1, 1, first), &[1, 1, 1]),
        then(Happening::Advance { millis: 700 }, &[1, 1]),
        then(add(1, 0, second), &[0, 0]),
        then(add(2, 1, annotation(&[link(1, (4, 0))])), &[1, 1]),
        then(Happening::Settle, &[]),
    ];
    goes_well(3, true, events);
}

/// The agent dropped a declaration that it could not write down when it heard of one that is wrong,
/// which it then passed over: the links stayed as they were before both.
#[test]
fn a_declaration_that_is_wrong_does_not_undo_the_one_before_it() {
    let change = |declaration| Happening::Change {
        pod: 0,
        declaration,
    };
    let wrong = Declaration::new(0, Form::Broken, Vec::new());
    let events = vec![
        then(add(0, 0, annotation(&[])), &[0, 0, 0]),
        then(add(1, 1, annotation(&[])), &[1, 1, 1]),
        then(Happening::FillDisk(0), &[]),
        then(change(annotation(&[link(0, (1, 0))])), &[0, 0]),
        then(change(wrong), &[0, 0]),
        then(Happening::Settle, &[]),
    ];
    goes_well(2, true, events);
}

/// An agent that crashed in its probe of the store, while time passed, worked on without the probe:
/// a mistake of the simulation. The store was offline to it for ever.
#[test]
fn an_agent_that_crashes_in_a_task_is_started_again() {
    let events = vec![
        then(Happening::Unanswered(0), &[]),
        then(add(0, 0, annotation(&[link(0, (1, 0))])), &[0]),
        then(Happening::Advance { millis: 61_000 }, &[0, 0, 0]),
        then(Happening::Advance { millis: 2500 }, &[]),
        then(Happening::Crash { node: 0, after: 2 }, &[]),
        then(Happening::Advance { millis: 1000 }, &[]),
        then(Happening::Settle, &[]),
        then(Happening::CutOff(0), &[]),
        then(Happening::Advance { millis: 130_000 }, &[]),
    ];
    goes_well(1, false, events);
}

/// The sandbox had no device of ours when the state was lost, so nobody knew of it; then it was
/// known again. A mistake of the oracle, which took its pod for gone.
#[test]
fn a_sandbox_that_was_forgotten_may_be_added_again() {
    let events = vec![
        then(add(0, 0, annotation(&[link(0, (1, 0))])), &[0, 0]),
        then(Happening::LoseState { node: 0, all: true }, &[]),
        then(Happening::AddAgain { pod: 0 }, &[]),
        then(Happening::Settle, &[]),
    ];
    goes_well(1, false, events);
}

/// The record of a sandbox that had departed was later than that of one which lived on, and hid it:
/// its links were down for good.
#[test]
fn a_sandbox_that_has_departed_does_not_hide_an_earlier_one_that_lives() {
    let declared = annotation(&[link(0, (1, 0))]);
    let newest = Happening::Del {
        pod: 0,
        newest: true,
    };
    let events = vec![
        then(add(1, 2, annotation(&[])), &[2, 2]),
        then(add(0, 0, declared.clone()), &[0, 0, 2]),
        then(add(0, 1, declared), &[1, 1, 0, 2]),
        then(newest, &[1, 1]),
        then(Happening::Settle, &[]),
    ];
    goes_well(3, false, events);
}

/// The oracle wanted the survivor's index to stay. A store that has lost the declarer's record and
/// has the survivor's is not noticed by an agent that starts: its end is made again.
#[test]
fn an_agent_that_starts_before_the_declarer_is_known_again_makes_the_link_again() {
    let events = vec![
        then(add(3, 0, annotation(&[])), &[0, 0]),
        then(add(0, 1, annotation(&[link(0, (3, 1))])), &[1, 1, 0]),
        then(Happening::Settle, &[]),
        then(Happening::Wipe, &[0]),
        then(Happening::Restart(0), &[]),
        then(Happening::Settle, &[]),
    ];
    goes_well(2, true, events);
}

/// Two links declare one VNI, and the store loses which of them has it. The node on which the
/// other one's tunnel is took that for a foreign device, and said so of both links for good.
#[test]
fn of_two_links_with_one_vni_that_a_store_has_lost_the_first_stays() {
    let with_vni = |own, far| DeclaredLink {
        vni: Some(14),
        ..link(own, far)
    };
    let events = vec![
        then(
            add(
                3,
                0,
                annotation(&[with_vni(2, (2, 1)), with_vni(0, (0, 1))]),
            ),
            &[0, 0],
        ),
        then(add(2, 1, annotation(&[link(1, (3, 2))])), &[1, 0, 1, 0]),
        then(Happening::Settle, &[]),
        then(add(0, 1, annotation(&[link(1, (3, 0))])), &[]),
        then(Happening::Wipe, &[1]),
        then(Happening::Settle, &[]),
    ];
    goes_well(2, true, events);
}
