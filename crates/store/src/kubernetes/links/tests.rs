use ratchet_api::{Link, LinkEnd};

use super::{
    super::testing::{VNI, across, end, ending, key, object, pod, pods, said, sandbox},
    *,
};

/// The agent of the node n1.
fn links() -> Links {
    Links::of("n1".parse().unwrap())
}

fn set(links: &mut Links, link: &Link) -> BTreeSet<PodKey> {
    let known = KnownLink::read(link).unwrap().unwrap();
    links.set(&known.key.clone(), Some(known))
}

/// Publishes a sandbox of a pod on n1, and returns `created`.
fn publish(links: &mut Links, name: &str, id: &str, created: u64, how: Publish) -> Published {
    let location = Location {
        node: "n1".parse().unwrap(),
        vtep: "192.0.2.2".parse().unwrap(),
        sandbox: sandbox(id),
        mtu: 1450.try_into().unwrap(),
        leaving: false,
    };
    let record = PodRecord::new(pod(name), Some(location), created, Vec::new());
    links.publish(&record, how)
}

fn report(links: &Links, name: &str, id: &str, reason: Option<Reason>) -> Reports {
    let link = links.by_key[&key()].id;
    let report = EndReport {
        link,
        pod: pod(name),
        sandbox: sandbox(id),
        kind: Some(LinkKind::Vxlan),
        mtu: Some(1450.try_into().unwrap()),
        reason,
    };
    [((link, pod(name)), report)].into()
}

/// What is to be written.
fn unsaid(links: &Links, reports: &Reports) -> BTreeMap<EndKey, LinkEndStatus> {
    let ends = Side::BOTH.map(|side| (key(), side));
    let unsaid = ends.map(|end| Some((end.clone(), links.unsaid(&end, reports)?)));
    unsaid.into_iter().flatten().collect()
}

fn states(statuses: &BTreeMap<EndKey, LinkEndStatus>) -> Vec<(Side, EndState, &str)> {
    let states = statuses.iter().map(|((_, side), status)| {
        let reason = status.reason.as_deref().unwrap_or_default();
        (*side, status.state, reason)
    });
    states.collect()
}

#[test]
fn each_pod_declares_its_own_end_and_a_peer_is_where_its_link_says() {
    let mut links = links();
    assert_eq!(set(&mut links, &across()), pods(["a", "bb"]));
    publish(&mut links, "a", "s1", 5, Publish::New);
    let facts = links.facts(&pods(["a"]));
    let declared = &facts.declared.as_ref().unwrap()[&pod("a")];
    assert_eq!(declared.links.len(), 1);
    assert_eq!(declared.links[0].local.pod, pod("a"));
    assert_eq!(declared.links[0].local.addresses.as_ref().unwrap().len(), 1);
    assert_eq!(declared.links[0].remote.addresses, None);
    let peer = &facts.records[&pod("bb")];
    let location = peer.location.as_ref().unwrap();
    assert_eq!(
        (location.node.as_str(), location.vtep.to_string()),
        ("node2", "192.0.2.5".into())
    );
    assert_eq!(peer.links[0].local.pod, pod("bb"));
    let vni = facts.vnis[&declared.links[0].id()];
    assert_eq!(vni.number(), VNI);
}

#[test]
fn a_pod_of_this_node_is_there_once_its_agent_has_published_it() {
    let mut links = links();
    set(
        &mut links,
        &object(end("a", Some("n1")), end("bb", Some("n1"))),
    );
    publish(&mut links, "a", "s1", 5, Publish::New);
    let sandbox_of = |links: &Links| {
        let facts = links.facts(&pods(["a"]));
        facts.records[&pod("bb")].sandbox().cloned()
    };
    assert_eq!(sandbox_of(&links), None);
    publish(&mut links, "bb", "s2", 6, Publish::New);
    assert_eq!(sandbox_of(&links), Some(sandbox("s2")));
}

#[test]
fn a_pod_that_has_moved_declares_nothing_here() {
    let mut links = links();
    set(
        &mut links,
        &object(end("a", Some("node2")), end("bb", Some("n1"))),
    );
    publish(&mut links, "a", "s1", 5, Publish::New);
    let facts = links.facts(&pods(["a"]));
    assert_eq!(facts.declared.unwrap()[&pod("a")].links, []);
}

#[test]
fn of_a_pod_without_links_it_is_known_that_it_declares_none() {
    let mut links = links();
    set(&mut links, &across());
    links.set(&key(), None);
    let facts = links.facts(&pods(["a", "bb"]));
    assert!(facts.records.values().all(|record| record.links.is_empty()));
    assert_eq!(facts.records.len(), 2);
    assert_eq!(facts.vnis, BTreeMap::new());
}

#[test]
fn a_link_that_is_deleted_is_wanted_no_longer() {
    let mut links = links();
    set(&mut links, &across());
    assert_eq!(set(&mut links, &ending(across())), pods(["a", "bb"]));
    publish(&mut links, "a", "s1", 5, Publish::New);
    let facts = links.facts(&pods(["a"]));
    assert_eq!(facts.declared.unwrap()[&pod("a")].links, []);
}

#[test]
fn statuses_are_no_news_for_pods() {
    let mut links = links();
    set(&mut links, &across());
    let statuses = unsaid(&links, &report(&links, "a", "s1", None));
    assert_eq!(set(&mut links, &said(across(), &statuses)), BTreeSet::new());
    let mut moved = across();
    moved.spec.b.vtep = Some("192.0.2.77".to_owned());
    assert_eq!(set(&mut links, &moved), pods(["a", "bb"]));
}

#[test]
fn an_end_is_written_when_it_has_changed_and_only_then() {
    let mut links = links();
    set(&mut links, &across());
    assert_eq!(states(&unsaid(&links, &Reports::new())), []);
    let missing = Reason::PeerUnknown { pod: pod("bb") };
    let waits = unsaid(&links, &report(&links, "a", "s1", Some(missing)));
    assert_eq!(
        states(&waits),
        [(Side::A, EndState::Waiting, "PeerUnknown")]
    );
    let up = unsaid(&links, &report(&links, "a", "s1", None));
    assert_eq!(states(&up), [(Side::A, EndState::Up, "Wired")]);
    set(&mut links, &said(across(), &up));
    assert_eq!(
        states(&unsaid(&links, &report(&links, "a", "s1", None))),
        []
    );
}

#[test]
fn an_end_is_removed_when_no_device_of_it_can_be_there() {
    let mut links = links();
    set(&mut links, &across());
    publish(&mut links, "a", "s1", 5, Publish::New);
    let claim = |links: &mut Links| {
        let link = &links.by_key[&key()];
        let declared = link.declared(&link.ends[0], &link.ends[1]);
        links.claim(&[VniClaim::new(&declared)])
    };
    assert!(
        claim(&mut links)
            .values()
            .all(|grant| matches!(grant, VniGrant::Granted(_)))
    );
    let reports = report(&links, "a", "s1", None);
    let up = said(across(), &unsaid(&links, &reports));
    set(&mut links, &ending(up));
    assert_eq!(
        claim(&mut links).into_values().next(),
        Some(VniGrant::NotDeclared)
    );
    // Its VNI may still be that of a device.
    assert_eq!(states(&unsaid(&links, &Reports::new())), []);
    links.release(&[VNI.try_into().unwrap()].into());
    // The engine has not said yet that it is gone.
    assert_eq!(states(&unsaid(&links, &reports)), []);
    let removed = unsaid(&links, &Reports::new());
    assert_eq!(states(&removed), [(Side::A, EndState::Removed, "Removed")]);
    set(&mut links, &ending(said(across(), &removed)));
    assert_eq!(states(&unsaid(&links, &Reports::new())), []);
}

#[test]
fn the_end_of_a_pod_that_is_gone_is_removed_though_the_link_stays() {
    let mut links = links();
    set(&mut links, &across());
    publish(&mut links, "a", "s1", 5, Publish::New);
    let up = said(across(), &unsaid(&links, &report(&links, "a", "s1", None)));
    set(&mut links, &up);
    // An agent that has just started has not looked yet.
    assert_eq!(states(&unsaid(&links, &Reports::new())), []);
    assert!(!links.remove_pod(&pod("a"), &sandbox("s0")));
    assert!(links.remove_pod(&pod("a"), &sandbox("s1")));
    let removed = unsaid(&links, &Reports::new());
    assert_eq!(states(&removed), [(Side::A, EndState::Removed, "Removed")]);
    // Said once more when the Link is deleted.
    set(&mut links, &said(up, &removed));
    assert_eq!(states(&unsaid(&links, &Reports::new())), []);
    let mut deleted = ending(said(across(), &removed));
    deleted.metadata.generation = Some(2);
    set(&mut links, &deleted);
    let again = unsaid(&links, &Reports::new());
    assert_eq!(states(&again), [(Side::A, EndState::Removed, "Removed")]);
    set(&mut links, &said(deleted, &again));
    assert_eq!(states(&unsaid(&links, &Reports::new())), []);
}

#[test]
fn an_agent_that_starts_supposes_that_it_has_devices_of_all_links() {
    let mut links = links();
    set(&mut links, &across());
    links.suppose_all_held();
    assert_eq!(links.held().len(), 1);
    set(&mut links, &ending(across()));
    assert_eq!(states(&unsaid(&links, &Reports::new())), []);
    links.release(&[VNI.try_into().unwrap()].into());
    let removed = unsaid(&links, &Reports::new());
    set(&mut links, &ending(said(across(), &removed)));
    links.suppose_all_held();
    assert_eq!(links.held().len(), 0);
}

#[test]
fn a_later_sandbox_is_not_replaced_by_an_earlier_one() {
    let mut links = links();
    let stored = |created| Published::Stored { created };
    assert_eq!(publish(&mut links, "a", "s1", 5, Publish::New), stored(5));
    assert_eq!(publish(&mut links, "a", "s2", 3, Publish::New), stored(6));
    let again = publish(&mut links, "a", "s1", 5, Publish::Again);
    assert_eq!(again, Published::Superseded);
    assert_eq!(publish(&mut links, "a", "s2", 6, Publish::Again), stored(6));
}

#[test]
fn all_links_are_replaced_at_once() {
    let mut links = links();
    set(&mut links, &across());
    let known = || KnownLink::read(&across()).unwrap().unwrap();
    assert_eq!(links.replace(vec![known()]), BTreeSet::new());
    let other = KnownLink {
        key: LinkKey {
            name: "other".to_owned(),
            ..key()
        },
        ..KnownLink::read(&object(end("c", Some("n1")), end("dd", None)))
            .unwrap()
            .unwrap()
    };
    assert_eq!(links.replace(vec![other]), pods(["a", "bb", "c", "dd"]));
    assert_eq!(links.by_key.len(), 1);
}

#[test]
fn a_link_with_a_slot_stays_itself_when_the_slots_pod_is_replaced() {
    let of = |pod: &str| {
        let mut slot = end(pod, Some("node2"));
        slot.slot = Some("core".to_owned());
        object(slot, end("m", Some("n1")))
    };
    let mut links = links();
    publish(&mut links, "m", "s1", 5, Publish::New);
    set(&mut links, &of("a"));
    let declared = |links: &Links| {
        let declared = links.facts(&pods(["m"])).declared.unwrap();
        declared[&pod("m")].links[0].clone()
    };
    let before = declared(&links);
    assert_eq!(set(&mut links, &of("z")), pods(["a", "m", "z"]));
    let after = declared(&links);
    assert_eq!(after.id(), before.id());
    assert_eq!(after.remote.pod, pod("z"));
    let order = |link: &DeclaredLink| link.ends().map(|end| end.pod.name().to_owned());
    assert_eq!([order(&before), order(&after)], [["a", "m"], ["z", "m"]]);
    let facts = links.facts(&pods(["m"]));
    assert_eq!(facts.records[&pod("z")].links[0].id(), after.id());
    assert_eq!(facts.vnis[&after.id()].number(), VNI);
    assert!(!facts.records.contains_key(&pod("a")));
    // The name in the place of the pod makes no other link of it, nor does a pod that is gone.
    let mut gone = of("z");
    gone.spec.a = LinkEnd {
        pod: Some("z".to_owned()),
        slot: Some("core".to_owned()),
        ..end("z", None)
    };
    set(&mut links, &gone);
    assert_eq!(declared(&links).id(), after.id());
    // Another Link is another link, even between the same pods.
    let mut other = of("z");
    other.metadata.name = Some("b".to_owned());
    let other = KnownLink::read(&other).unwrap().unwrap();
    assert_ne!(other.id, after.id());
}

#[test]
fn an_agent_that_has_lost_its_state_learns_of_its_pods_from_their_links() {
    let mut links = links();
    set(&mut links, &across());
    let statuses = unsaid(&links, &report(&links, "a", "s1", None));
    let told = said(across(), &statuses);
    let located = |link: &Link| {
        let mut links = Links::of("n1".parse().unwrap());
        set(&mut links, link);
        links.located()
    };
    let [record] = &located(&told)[..] else {
        panic!("one pod")
    };
    let place = record.location.as_ref().unwrap();
    assert_eq!((&record.pod, &place.sandbox), (&pod("a"), &sandbox("s1")));
    assert_eq!(place.vtep.to_string(), "192.0.2.2");
    assert_eq!(record.links.len(), 1);
    // Also where the Link is about to go: there is something to undo.
    assert_eq!(located(&ending(told.clone())).len(), 1);
    // Not before anything was told, nor of a pod before this one, nor once nothing is left.
    let mut of_another = told.clone();
    of_another.spec.a.pod_uid = Some("uid-later".to_owned());
    let mut removed = told;
    let status = removed.status.as_mut().unwrap().a.as_mut().unwrap();
    status.state = EndState::Removed;
    for link in [across(), of_another, removed] {
        assert_eq!(located(&link), []);
    }
}
