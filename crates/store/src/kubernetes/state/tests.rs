use futures_util::FutureExt;
use ratchet_api::Link;
use ratchet_model::{DeclaredLink, LinkId, Location, PodRecord, device::LinkKind};

use super::{
    super::{
        known::{KnownLink, LinkKey},
        testing::{across, end, key, object, pod, pods, said, sandbox},
    },
    *,
};
use crate::Publish;

fn shared() -> Shared {
    Shared::of("n1".parse().unwrap())
}

fn set(shared: &Shared, link: &Link) {
    let known = KnownLink::read(link).unwrap().unwrap();
    shared.change(|links| links.set(&key(), Some(known)));
}

fn id() -> LinkId {
    let KnownLink { ends: [a, b], .. } = KnownLink::read(&across()).unwrap().unwrap();
    DeclaredLink::new(a.declared, b.declared).id()
}

fn up() -> EndReport {
    EndReport {
        link: id(),
        pod: pod("a"),
        sandbox: sandbox("s1"),
        kind: Some(LinkKind::Vxlan),
        mtu: None,
        reason: None,
    }
}

fn outgoing(shared: &Shared) -> BTreeMap<EndKey, LinkEndStatus> {
    shared.take_outgoing().1
}

#[test]
fn a_status_is_written_once_until_it_changes() {
    let shared = shared();
    set(&shared, &across());
    assert_eq!(outgoing(&shared).len(), 0);
    shared.report(vec![up()]);
    let written = outgoing(&shared);
    assert_eq!(written.keys().collect::<Vec<_>>(), [&(key(), Side::A)]);
    // The same report, and the watch that has not shown the status yet.
    shared.report(vec![up()]);
    set(&shared, &across());
    assert_eq!(outgoing(&shared).len(), 0);
    set(&shared, &said(across(), &written));
    assert_eq!(outgoing(&shared).len(), 0);
    // Another one has written something else.
    set(&shared, &across());
    assert_eq!(outgoing(&shared), written);
}

#[test]
fn a_status_that_could_not_be_written_is_written_again_if_it_counts() {
    let shared = shared();
    set(&shared, &across());
    shared.report(vec![up()]);
    let written = outgoing(&shared);
    shared.end_status((key(), Side::A), Written::Again);
    assert_eq!(outgoing(&shared), written);
    shared.change(|links| links.set(&key(), None));
    shared.end_status((key(), Side::A), Written::Again);
    assert_eq!(outgoing(&shared).len(), 0);
}

/// Whether something will have waited for long, a minute from now.
fn is_late_soon(shared: &Shared) -> bool {
    let soon = Instant::now() + std::time::Duration::from_secs(60);
    shared.state().backlog.health(true, soon).unready.is_some()
}

#[test]
fn what_waits_to_be_written_is_in_the_backlog_until_it_is_written_or_of_no_use() {
    let shared = shared();
    let end = (key(), Side::A);
    set(&shared, &across());
    assert!(!is_late_soon(&shared));
    shared.report(vec![up()]);
    assert!(is_late_soon(&shared));
    shared.report(Vec::new());
    assert!(!is_late_soon(&shared), "nothing is to be said any more");
    shared.report(vec![up()]);
    outgoing(&shared);
    shared.end_status(end.clone(), Written::Again);
    assert!(is_late_soon(&shared));
    outgoing(&shared);
    shared.end_status(end, Written::Done);
    assert!(!is_late_soon(&shared));
    assert_eq!(
        shared.state().backlog.health(true, Instant::now()).writes,
        1
    );
}

#[test]
fn a_link_that_comes_after_its_report_is_told_of() {
    let shared = shared();
    shared.report(vec![up()]);
    assert_eq!(outgoing(&shared).len(), 0);
    set(&shared, &across());
    assert_eq!(outgoing(&shared).len(), 1);
}

#[test]
fn the_underlay_is_written_when_it_changes_and_again_when_that_failed() {
    let shared = shared();
    let underlay = |mtu| NodeUnderlaySpec {
        vtep: "192.0.2.1".to_owned(),
        mtu,
        port: 4789,
        version: "1".to_owned(),
    };
    let mut written = Vec::new();
    for mtu in [1450, 1450, 1400] {
        shared.set_underlay(underlay(mtu));
        written.extend(shared.take_outgoing().0.map(|spec| spec.mtu));
    }
    assert_eq!(written, [1450, 1400]);
    shared.end_underlay(Written::Again);
    assert_eq!(shared.take_outgoing().0, Some(underlay(1400)));
    assert_eq!(shared.take_outgoing().0, None);
}

#[tokio::test]
async fn a_watch_reports_all_first_and_then_the_pods_of_links_that_changed() {
    let shared = shared();
    let mut watch = shared.state().watch();
    assert_eq!(watch.next().await.unwrap(), Change::All);
    set(&shared, &across());
    set(&shared, &across());
    assert_eq!(watch.next().await.unwrap(), Change::Pods(pods(["a", "bb"])));
    let other = LinkKey {
        name: "other".to_owned(),
        ..key()
    };
    shared.change(|links| links.set(&other, None));
    shared.change(|links| links.set(&key(), None));
    assert_eq!(watch.next().await.unwrap(), Change::Pods(pods(["a", "bb"])));
}

#[tokio::test]
async fn that_a_pod_has_moved_is_told_when_its_sandbox_here_is_gone() {
    let shared = shared();
    let link = |node| object(end("a", Some("n1")), end("bb", Some(node)));
    set(&shared, &link("n1"));
    for (name, id) in [("a", "s1"), ("bb", "s2")] {
        let location = Location {
            node: "n1".parse().unwrap(),
            vtep: [192, 0, 2, 1].into(),
            sandbox: sandbox(id),
            mtu: 1450.try_into().unwrap(),
            leaving: false,
        };
        let record = PodRecord::new(pod(name), Some(location), 5, Vec::new());
        shared.state().links.publish(&record, Publish::New);
    }
    // A pod that was deleted by force may have started elsewhere before its DEL here.
    set(&shared, &link("node2"));
    let mut watch = shared.state().watch();
    let first = watch.next().now_or_never().unwrap().unwrap();
    assert_eq!(first, Change::All);
    let node_of = |name: &str| {
        let facts = shared.state().links.facts(&pods(["a"]));
        let location = facts.records[&pod(name)].location.clone();
        location.map(|location| location.node.to_string())
    };
    assert_eq!(node_of("bb").as_deref(), Some("n1"));
    shared.remove_pod(&pod("bb"), &sandbox("s2"));
    assert_eq!(node_of("bb").as_deref(), Some("node2"));
    let told = watch.next().await.unwrap();
    assert_eq!(told, Change::Pods(pods(["a", "bb"])));
    // The engine knows of the DELs of pods that are not elsewhere.
    shared.remove_pod(&pod("a"), &sandbox("s1"));
    let told = tokio::time::timeout(REST * 2, watch.next()).await;
    assert!(told.is_err(), "{told:?}");
}

#[tokio::test]
async fn changes_are_told_at_once_after_a_rest_and_gathered_else() {
    let shared = shared();
    let mut watch = shared.state().watch();
    assert_eq!(watch.next().await.unwrap(), Change::All);
    let rests_until = watch.rests_until;
    set(&shared, &across());
    let mut other = across();
    other.metadata.name = Some("other".to_owned());
    other.spec.b = end("c", Some("n1"));
    let other_key = LinkKey {
        name: "other".to_owned(),
        ..key()
    };
    let read = KnownLink::read(&other).unwrap();
    shared.change(|links| links.set(&other_key, read));
    let all = Change::Pods(pods(["a", "bb", "c"]));
    assert_eq!(watch.next().await.unwrap(), all);
    assert!(Instant::now() >= rests_until);
    sleep_until(watch.rests_until.into()).await;
    shared.change(|links| links.set(&key(), None));
    let told = watch.next().now_or_never().unwrap().unwrap();
    assert_eq!(told, Change::Pods(pods(["a", "bb"])));
}
