//! A session with a store that does not answer.

use std::sync::mpsc;

use ratchet_model::{Location, NodeName};

use super::{
    doubts::SETTLED,
    testing::{Hasty, Moody},
    *,
};
use crate::state::StateDir;

fn with_session(test: impl FnOnce(Session, &Moody, &Hasty, &Sandboxes)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (moody, clock) = (Arc::new(Moody::default()), Hasty::default());
    let (commands, _inbox) = mpsc::channel();
    let surroundings = Surroundings {
        open_store: moody.opener(),
        runtime: runtime.handle().clone(),
        commands,
        clock: Arc::new(clock.clone()),
    };
    let dir = tempfile::tempdir().unwrap();
    let sandboxes = Sandboxes::load(StateDir::open(dir.path()).unwrap()).unwrap();
    let session = Session::new(surroundings, Settings::default());
    test(session, &moody, &clock, &sandboxes);
}

fn record() -> PodRecord {
    let location = Location {
        node: "n1".parse().unwrap(),
        vtep: "10.0.0.1".parse().unwrap(),
        sandbox: "s1".parse().unwrap(),
        mtu: 1450.try_into().unwrap(),
        leaving: false,
    };
    let pod = PodKey::new("default", "p").unwrap();
    PodRecord::new(pod, Some(location), 1, Vec::new())
}

#[test]
fn after_one_call_without_an_answer_all_fail_at_once_until_the_store_is_back() {
    with_session(|mut session, moody, _, _| {
        assert_eq!(session.ping(), Ok(()));
        moody.set_hanging(true);
        let Err(Retry::Store(failure)) = session.ping() else {
            panic!("a call without an answer succeeded");
        };
        assert!(failure.message.contains("no answer for 2s"), "{failure}");
        let calls = moody.calls();
        assert_eq!(session.ping(), Err(Retry::Store(failure.clone())));
        assert_eq!(session.lost_nodes(), Err(Retry::Store(failure)));
        assert_eq!((moody.calls(), session.offline().is_some()), (calls, true));

        moody.set_hanging(false);
        assert!(session.is_back());
        assert_eq!(session.ping(), Ok(()));
        assert_eq!((session.offline(), session.trouble()), (None, None));
    });
}

#[test]
fn a_pod_whose_publish_was_abandoned_is_removed_twice() {
    with_session(|mut session, moody, clock, _| {
        let record = record();
        let (pod, sandbox) = (record.pod.clone(), record.sandbox().unwrap().clone());
        session.publish(&record, Publish::New).unwrap();
        assert_eq!(session.remove_pod(&pod, &sandbox), Ok(()));

        moody.set_hanging(true);
        session.publish(&record, Publish::New).unwrap_err();
        moody.set_hanging(false);
        session.is_back();
        let unsettled = Err(Retry::Unsettled(sandbox.clone()));
        assert_eq!(session.remove_pod(&pod, &sandbox), unsettled);
        clock.advance(SETTLED);
        let calls = moody.calls();
        assert_eq!(session.remove_pod(&pod, &sandbox), Ok(()));
        assert_eq!(moody.calls(), calls + 1, "the store was told again");
    });
}

#[test]
fn a_node_is_registered_for_as_long_as_the_store_knows_of_it() {
    with_session(|mut session, moody, _, sandboxes| {
        let name: NodeName = "n1".parse().unwrap();
        session.register_node(&name, None, None, sandboxes).unwrap();
        let calls = moody.calls();
        session.register_node(&name, None, None, sandboxes).unwrap();
        assert_eq!(
            moody.calls(),
            calls,
            "a node without sandboxes is said to be so once"
        );
        assert!(!session.is_registered());
    });
}

#[test]
fn what_a_node_holds_is_asked_again_when_the_watch_has_missed_something() {
    for is_broken in [false, true] {
        with_session(|mut session, _, _, _| {
            let name: NodeName = "n1".parse().unwrap();
            session.read_held(&name).unwrap();
            if is_broken {
                session.watch_broke("reset".to_owned());
                assert!(!session.knows_held());
                session.read_held(&name).unwrap();
            }
            session.all_changed();
            assert_eq!(session.knows_held(), !is_broken, "a watch begins with this");
            session.read_held(&name).unwrap();
            session.all_changed();
            assert!(!session.knows_held());
        });
    }
}
