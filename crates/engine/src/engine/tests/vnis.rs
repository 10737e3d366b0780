//! Which VNIs links get, and which this node holds.

use super::*;

/// The VNIs that the store says this node holds.
fn held(node: &Node) -> Vec<u32> {
    let settings = node.settings.clone();
    let held = node.runtime.handle().block_on(async {
        let store = open_store(settings).await.unwrap();
        store.held_vnis(&"n1".parse().unwrap()).await.unwrap()
    });
    held.into_keys().map(Vni::number).collect()
}

#[test]
fn an_add_with_a_vni_outside_of_the_range_fails() {
    on_a_node(|node| {
        let a = Netns::new("a");
        let mut engine = start(node);
        let links = "[{interface: e1, peer: far, vni: 77}]";
        let failure = declare_and_add(&mut engine, "a", &a, links).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Invalid);
        let expected = "pod default/a: link e1: VNI 77 cannot be declared, expected one of \
                        1000000-16777215";
        assert!(failure.to_string().contains(expected), "{failure}");
        let links = "[{interface: e1, peer: far, vni: 1000077}]";
        declare_and_add(&mut engine, "a", &a, links).unwrap();
    });
}

#[test]
fn a_link_takes_another_vni_than_a_foreign_device() {
    on_a_node(|node| {
        ip("link add foreign type vxlan id 11 remote 10.0.0.9 dstport 4789 dev u0");
        publish_far(node, "far");
        let a = Netns::new("a");
        let mut engine = start(node);
        let attached = add(&mut engine, "a", &a, &["far"]).unwrap();
        assert_eq!((attached.interfaces.len(), attached.pending.len()), (1, 0));
        assert_eq!(engine.report().links[0].vni, Some(12));
        assert_eq!(held(node), [12]);
        assert!(ip("-d link show foreign").contains("vxlan id 11 "));
        del(&mut engine, "a");
        assert!(held(node).is_empty());
    });
}

#[test]
fn a_declared_vni_is_waited_for_until_the_foreign_device_that_has_it_has_gone() {
    for is_restarted in [false, true] {
        on_a_node(move |node| {
            let foreign = "type vxlan id 1000077 remote 10.0.0.9 dstport 4789 dev u0";
            ip(&format!("link add foreign {foreign}"));
            publish_far(node, "far");
            let a = Netns::new("a");
            let mut engine = start(node);
            let link = "[{interface: e1, peer: far, vni: 1000077}]";
            declare_and_add(&mut engine, "a", &a, link).unwrap();
            resync(&mut engine);
            let waiting = [(LinkState::Error, "vni_of_another_device".to_owned())];
            assert_eq!((links(&engine), a.devices()), (waiting.into(), Vec::new()));
            ip("link del foreign");
            if is_restarted {
                engine = start(node);
            }
            for _ in 0..2 {
                resync(&mut engine);
            }
            assert_eq!(a.devices(), ["e1"], "restarted: {is_restarted}");
            assert_eq!(held(node), [1_000_077]);
        });
    }
}

#[test]
fn a_vni_is_in_use_wherever_its_device_is() {
    on_a_node(|node| {
        let pod = Netns::new("pod");
        let mut engine = start(node);
        let vnis: Vec<Vni> = (50..60).map(|vni| vni.try_into().unwrap()).collect();
        let all: BTreeSet<Vni> = vnis.iter().copied().collect();
        assert_eq!(engine.unused_of(&vnis), all);
        let hide = |vni: u32, ends: &str| {
            let made = format!("type vxlan id {vni} dstport 4789 {ends}");
            ip(&format!("link add hidden{vni} netns {} {made}", pod.name()));
        };
        hide(52, "local 10.0.0.1 remote 10.0.0.2");
        // The underlay was IPv6 when this was made.
        hide(55, "local fd00::1 remote fd00::2 udp6zerocsumrx");
        let in_use: Vec<u32> = all
            .difference(&engine.unused_of(&vnis))
            .map(|vni| vni.number())
            .collect();
        assert_eq!(in_use, [52, 55]);
        assert_eq!(devices(&ip("-o link show")), [""; 0]);
    });
}

#[test]
fn a_link_that_waits_for_the_vni_of_another_gets_it_when_that_has_ended() {
    on_a_node(|node| {
        publish_far(node, "far");
        let [a, b] = ["a", "b"].map(Netns::new);
        let (mut engine, news) = start_with_news(node);
        for (pod, netns) in [("a", &a), ("b", &b)] {
            let links = "[{interface: e1, peer: far, vni: 1000077}]";
            // The other end has a name of its own.
            let links = links.replace("peer: far", &format!("peer: far/to-{pod}"));
            declare_and_add(&mut engine, pod, netns, &links).unwrap();
        }
        let links = engine.report().links;
        let waiting = links
            .iter()
            .find(|link| link.state != LinkState::Up)
            .unwrap();
        let reason = waiting.reason.as_ref().map(ToString::to_string);
        assert!(reason.is_some_and(|reason| reason.contains("it is that of link")));
        assert!(b.devices().is_empty());
        engine.handle(Command::Declared(Box::new(declares("a", None))));
        while b.devices().is_empty() {
            let news = news.recv_timeout(DEADLINE);
            engine.handle(news.expect("news of the VNI"));
            engine.work();
        }
        assert_eq!(engine.report().links[0].vni, Some(1_000_077));
    });
}

/// What was declared with an earlier release, and what is declared now.
#[test]
fn a_running_pod_keeps_its_vni_and_gets_another_one_only_of_the_range() {
    on_a_node(|node| {
        publish_far(node, "far");
        let a = Netns::new("a");
        let setup = |range: &str| Settings {
            declared_vni_range: range.parse().ok(),
            ..node.settings.clone()
        };
        let mut engine = start_with(node, setup("1-16777215"));
        declare_and_add(
            &mut engine,
            "a",
            &a,
            "[{interface: e1, peer: far, vni: 77}]",
        )
        .unwrap();
        let mut engine = start_with(node, setup("1000000-16777215"));
        let second = Attachment {
            network: "second".into(),
            interface: "eth1".into(),
            ..attachment("a")
        };
        let links = "[{interface: e1, peer: far, vni: 77}]";
        attach(&mut engine, "a", (second, &a), links).unwrap();
        let mut declare = |links: &str| {
            engine.handle(Command::Declared(Box::new(declares("a", Some(links)))));
            let links = engine.report().links;
            let vnis: Vec<Option<u32>> = links.iter().map(|link| link.vni).collect();
            (vnis, a.devices())
        };
        let one = || vec!["e1".to_owned()];
        let kept = "[{interface: e1, peer: far, vni: 77}, {interface: e2, peer: far}]";
        let (vnis, devices) = declare(kept);
        assert_eq!((vnis.len(), devices.len()), (2, 2));
        assert!(vnis.contains(&Some(77)), "{vnis:?}");
        let (vnis, devices) = declare("[{interface: e1, peer: far, vni: 78}]");
        assert_eq!((vnis.len(), devices.len()), (2, 2), "refused as a whole");
        assert_eq!(
            declare("[{interface: e1, peer: far, vni: 1000078}]"),
            (vec![Some(1_000_078)], one())
        );
        assert_eq!(held(node), [1_000_078]);
    });
}

/// The device of a link that has ended may be there under a name that is not looked for.
#[test]
fn a_vni_is_held_for_as_long_as_a_pod_hides_its_device() {
    on_a_node(|node| {
        publish_far(node, "far");
        let [a, b] = ["a", "b"].map(Netns::new);
        let mut engine = start(node);
        add(&mut engine, "a", &a, &["far"]).unwrap();
        add(&mut engine, "b", &b, &["far"]).unwrap();
        assert_eq!(held(node), [11, 12]);
        let name = a.name();
        ip(&format!("-n {name} link set to-far down"));
        ip(&format!("-n {name} link set to-far name hidden"));
        let declared = |pod: &str| declares(pod, None);
        engine.handle(Command::Declared(Box::new(declared("a"))));
        engine.handle(Command::Declared(Box::new(declared("b"))));
        assert_eq!(held(node), [11], "only b's device was seen and deleted");
        // What is wrong with another link does not matter.
        let c = Netns::new("c");
        add(&mut engine, "c", &c, &[]).unwrap();
        ip(&format!("-n {} link add e1 type bridge", c.name()));
        let link = declares("c", Some("[{interface: e1, peer: far/to-c}]"));
        engine.handle(Command::Declared(Box::new(link)));
        resync(&mut engine);
        assert_ne!(engine.report().links[0].state, LinkState::Up);
        assert_eq!((a.devices(), held(node)), (Vec::<String>::new(), vec![12]));
    });
}

/// Nothing is made of a link without consent, and so its declarer's node holds no VNI for it.
#[test]
fn a_link_whose_peer_withdraws_its_consent_holds_no_vni() {
    on_a_node(|node| {
        let accepting = |accept: &str| PodRecord {
            accept: accept.parse::<Accept>().unwrap(),
            ..far_record("far")
        };
        publish_record(node, &accepting("own-namespace"));
        let a = Netns::new("a");
        let mut engine = start(node);
        add(&mut engine, "a", &a, &["far"]).unwrap();
        assert_eq!((a.devices(), held(node)), (vec!["to-far".into()], vec![11]));
        for (accept, devices, vnis) in [
            ("none", vec![], vec![]),
            ("own-namespace", vec!["to-far".to_owned()], vec![11]),
        ] {
            publish_record(node, &accepting(accept));
            engine.refresh_and_reconcile([key("a")].into());
            assert_eq!((a.devices(), held(node)), (devices, vnis), "{accept}");
        }
        // The same when its agent was restarted meanwhile.
        publish_record(node, &accepting("none"));
        let mut engine = start(node);
        resync(&mut engine);
        assert_eq!((a.devices(), held(node)), (Vec::new(), Vec::new()));
    });
}

/// No pod chooses the VNI of a link that declares none.
#[test]
fn vnis_that_hidden_devices_have_fail_no_add() {
    on_a_node(|node| {
        publish_far(node, "far");
        let [a, hiding] = ["a", "hiding"].map(Netns::new);
        for vni in 11..14 {
            let made = format!("type vxlan id {vni} dstport 4789 local 10.0.0.1 remote 10.0.0.9");
            ip(&format!(
                "link add hidden{vni} netns {} {made}",
                hiding.name()
            ));
        }
        let mut engine = start(node);
        let attached = add(&mut engine, "a", &a, &["far"]).unwrap();
        assert!(attached.pending[0].contains("VNI"), "{attached:?}");
        for _ in 0..2 {
            resync(&mut engine);
        }
        assert_eq!(a.devices(), ["to-far"]);
        assert_eq!(engine.report().links[0].vni, Some(14));
        let reason = "it is not proved that no device of ours has the others";
        assert_eq!(held(node), [11, 12, 13, 14], "{reason}");
    });
}

/// A pod that waits for the name has no device with the VNI.
#[test]
fn a_link_takes_another_vni_while_a_second_pod_waits_for_the_name() {
    on_a_node(|node| {
        ip("link add foreign type vxlan id 11 remote 10.0.0.9 dstport 4789 dev u0");
        publish_far(node, "far");
        let [old, new] = ["old", "new"].map(Netns::new);
        let mut engine = start(node);
        add_named(&mut engine, "r", ("r", &old), &[]).unwrap();
        add_named(&mut engine, "r", ("r-new", &new), &["far"]).unwrap();
        let link = declares("r", Some("[{interface: e1, peer: far}]"));
        engine.handle(Command::Declared(Box::new(link)));
        resync(&mut engine);
        assert_eq!((old.devices(), held(node)), (vec!["e1".into()], vec![12]));
    });
}

/// What a running pod declares now; no text: nothing.
fn declares(pod: &str, links: Option<&str>) -> Declared {
    let annotations = links.map(|links| ("ratchet.dev/links".to_owned(), links.to_owned()));
    let annotations = annotations.into_iter().collect();
    let declaration = declare(&key(pod), &Texts::new(), &annotations);
    Declared {
        kubernetes: ("default".into(), pod.into()),
        with_labels: declaration.clone(),
        annotations_only: declaration,
    }
}
