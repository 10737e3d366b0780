//! Pods of two namespaces: whose word counts.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use ratchet_protocol::{LinkReport, LinkState};

use support::{Cluster, Node, Pod, Sandbox, eventually};

fn pod(namespace: &str, name: &str, links: &str) -> Pod {
    Pod::with_links(name, links).in_namespace(namespace)
}

/// Waits until a node has one link, of this state.
#[track_caller]
fn wait_for(node: &Node, state: LinkState) -> LinkReport {
    eventually(&format!("one link, {state:?}"), || {
        let links = node.links().links;
        match &links[..] {
            [link] if link.state == state => Ok(link.clone()),
            _ => Err(format!("{links:?}")),
        }
    })
}

/// Waits until a pod has no interfaces.
#[track_caller]
fn wait_until_bare(sandbox: &Sandbox) {
    eventually("a pod without interfaces", || {
        let links = sandbox.netns.links();
        links.is_empty().then_some(()).ok_or(format!("{links:?}"))
    });
}

/// A link from a/p to b/r, with `nodes` nodes.
fn consent_comes_and_goes(nodes: usize) {
    let cluster = Cluster::with_agents(nodes);
    let (near, far) = (&cluster.nodes[0], &cluster.nodes[nodes - 1]);
    let claim = "[{interface: eth1, peer: b/r/eth7, addresses: [10.0.0.1/24], \
                  peerAddresses: [10.0.0.2/24]}]";
    let p = pod("a", "p", claim).sandbox();
    let r = pod("b", "r", "[]").sandbox();
    far.add(&r);
    near.add(&p);
    let link = wait_for(near, LinkState::Pending);
    assert!(
        link.reason
            .as_deref()
            .unwrap()
            .starts_with("pod b/r has not consented to this link of pod a/p: declare the link"),
        "{link:?}"
    );
    if nodes > 1 {
        assert_eq!(far.links().links, [], "the peer's node has no such link");
    }
    assert_eq!((p.netns.links().len(), r.netns.links().len()), (0, 0));

    // The pod comes again, with consent.
    let accepting = pod("b", "r", "[]").accept("own-namespace, a/p").sandbox();
    far.add(&accepting);
    far.del(&r);
    let link = wait_for(near, LinkState::Up);
    wait_for(far, LinkState::Up);
    let warning = "what pod a/p declares of the other end, b/r/eth7, is ignored: addresses";
    assert_eq!(link.warnings, [warning]);
    if nodes > 1 {
        let warnings = &far.links().links[0].warnings;
        assert!(
            warnings.is_empty(),
            "only the declarer is told: {warnings:?}"
        );
    }
    assert!(accepting.netns.links().contains_key("eth7"));
    let addresses = accepting.netns.sh("ip -4 -o addr show dev eth7");
    assert_eq!(addresses, "", "an address of another namespace's making");
    accepting.netns.sh("ip addr add 10.0.0.2/24 dev eth7");
    assert!(p.netns.ping("10.0.0.2"));

    // And again, without: both ends go.
    let refusing = pod("b", "r", "[]").accept("none").sandbox();
    far.add(&refusing);
    wait_for(near, LinkState::Pending);
    wait_until_bare(&p);
    wait_until_bare(&accepting);
    wait_until_bare(&refusing);
    far.del(&accepting);
    far.del(&refusing);
    near.del(&p);
    cluster.assert_nothing_left();
}

#[test]
fn consent_comes_and_goes_on_one_node() {
    consent_comes_and_goes(1);
}

#[test]
fn consent_comes_and_goes_between_nodes() {
    consent_comes_and_goes(2);
}

#[test]
fn a_link_that_both_declare_needs_no_annotation_and_each_sets_its_end() {
    let cluster = Cluster::with_agents(1);
    let node = &cluster.nodes[0];
    let p = "[{interface: eth1, peer: b/r/eth1, addresses: [10.0.0.1/24], \
              peerAddresses: [10.0.0.66/24]}]";
    let r = "[{interface: eth1, peer: a/p/eth1, addresses: [10.0.0.2/24]}]";
    let (p, r) = (pod("a", "p", p).sandbox(), pod("b", "r", r).sandbox());
    node.add(&p);
    node.add(&r);
    wait_for(node, LinkState::Up);
    assert!(p.netns.ping("10.0.0.2"));
    assert!(!r.netns.sh("ip -4 addr show dev eth1").contains("10.0.0.66"));
}

#[test]
fn a_node_may_deny_or_allow_links_between_namespaces() {
    let claim = "[{interface: eth1, peer: b/r/eth1}]";
    let back = "[{interface: eth1, peer: a/p/eth1}]";
    for (setting, declared_by_r, code) in [
        ("deny", back, Some("namespace_isolated")),
        ("consent", back, None),
        ("consent", "[]", Some("no_consent")),
        ("allow", "[]", None),
    ] {
        let mut cluster = Cluster::new(1);
        cluster.nodes[0].set("cross_namespace", setting.into());
        let node = &cluster.nodes[0];
        let r = pod("b", "r", declared_by_r).sandbox();
        let p = pod("a", "p", claim).sandbox();
        node.add(&r);
        node.add(&p);
        let state = code.map_or(LinkState::Up, |_| LinkState::Pending);
        let link = wait_for(node, state);
        let reason = link.reason_details.map(|reason| reason.code);
        assert_eq!(reason.as_deref(), code, "{setting}, b/r: {declared_by_r}");
    }
}

/// Waits until a node's links are in these states: the interfaces, and the code of why one is not
/// up.
#[track_caller]
fn wait_for_states(node: &Node, expected: &[&str]) {
    eventually("all links are settled", || {
        let state = |link: &LinkReport| {
            let reason = link.reason_details.as_ref();
            let state = reason.map_or("up", |reason| &reason.code);
            format!("{} {}: {state}", link.a.interface, link.z.interface)
        };
        let mut states: Vec<String> = node.links().links.iter().map(state).collect();
        states.sort();
        (states == expected)
            .then_some(())
            .ok_or_else(|| format!("{states:?}"))
    });
}

/// Claims of the pod's own namespace come before those of others, but not when they come later.
#[test]
fn a_later_claim_takes_no_interface_from_a_link_that_is_up() {
    let cluster = Cluster::with_agents(2);
    let [near, far] = &cluster.nodes[..] else {
        unreachable!()
    };
    let foreign = pod("a", "p", "[{interface: eth1, peer: b/r/eth7}]").sandbox();
    let later = pod(
        "b",
        "z",
        "[{interface: eth2, peer: r/eth7}, {interface: eth3, peer: r/eth8}]",
    )
    .sandbox();
    let r = pod("b", "r", "[]").accept("own-namespace, a").sandbox();
    far.add(&r);
    near.add(&foreign);
    wait_for(far, LinkState::Up);
    let index = || r.netns.links()["eth7"]["ifindex"].clone();
    let before = index();
    near.add(&later);
    // Its other link shows that the pod's node has heard of it.
    wait_for_states(far, &["eth1 eth7: up", "eth8 eth3: up"]);
    let states = [
        "eth1 eth7: up",
        "eth7 eth2: interface_taken",
        "eth8 eth3: up",
    ];
    wait_for_states(near, &states);
    assert_eq!(index(), before);
    near.del(&foreign);
    for node in [near, far] {
        wait_for_states(node, &["eth7 eth2: up", "eth8 eth3: up"]);
    }
}

/// What a pod claims of `victim`: its own link's interface, that of its network, and routes that
/// would come before its default route.
const RUDE: &str = "[{interface: e1, peer: victim/eth1}, {interface: e2, peer: victim/eth0}, \
                     {interface: e4, peer: victim/eth4, \
                     peerAddresses: [10.2.0.2/24, 11.0.0.1/1], \
                     peerRoutes: [{dst: 0.0.0.0/0, via: 10.2.0.1}, \
                     {dst: 0.0.0.0/1, via: 10.2.0.1}, {dst: 10.9.0.0/16, via: 10.2.0.1}]}]";

#[test]
fn a_claim_takes_neither_the_default_route_nor_a_name_that_is_the_pods_own() {
    let cluster = Cluster::with_agents(1);
    let node = &cluster.nodes[0];
    let own = "[{interface: eth1, peer: friend/eth1, addresses: [10.1.0.1/24], \
                peerAddresses: [10.1.0.2/24]}]";
    let (victim, friend) = (
        pod("b", "victim", own).sandbox(),
        pod("b", "friend", "[]").sandbox(),
    );
    victim.netns.sh(
        "ip link add eth0 type veth peer name other && ip link set other up && \
         ip link set eth0 up && ip addr add 10.8.0.2/24 dev eth0 && \
         ip route add default via 10.8.0.1",
    );
    let before = victim.netns.sh("ip route show default");
    let rude = pod("b", "rude", RUDE).sandbox();
    // The claims come first, and do not fail the ADDs of those that they are about.
    node.add(&rude);
    node.add(&victim);
    node.add(&friend);
    let expected = [
        "e1 eth1: interface_taken",
        "e2 eth0: interface_reserved",
        "e4 eth4: up",
        "eth1 eth1: up",
    ];
    wait_for_states(node, &expected);
    assert!(victim.netns.ping("10.1.0.2"));
    assert_eq!(victim.netns.sh("ip route show default"), before);
    let routes = victim.netns.sh("ip route show dev eth4");
    assert!(routes.contains("10.9.0.0/16"), "{routes}");
    assert!(
        !routes.contains("/1 ") && !routes.contains("default"),
        "{routes}"
    );
    assert_eq!(
        rude.netns.links().len(),
        1,
        "only the link that could be made"
    );
}

#[test]
fn what_others_declare_of_a_pod_does_not_fail_its_add() {
    let cluster = Cluster::with_agents(1);
    let node = &cluster.nodes[0];
    // IPv6 needs an MTU of at least 1280, so the claimed address cannot be set.
    let impossible = "[{interface: e1, peer: r/e1, mtu: 1000, peerAddresses: ['fd07::1/64']}]";
    let contradiction = "[{interface: e2, peer: r/e2, mtu: 1300}]";
    let in_the_way = "[{interface: e5, peer: r/e5}]";
    let claims = [("p", impossible), ("q", contradiction), ("s", in_the_way)];
    let claimants = claims.map(|(name, links)| pod("b", name, links).sandbox());
    claimants
        .iter()
        .for_each(|claimant| drop(node.add(claimant)));
    let r = pod("b", "r", "[{interface: e2, peer: q/e2, mtu: 1400}]").sandbox();
    r.netns.sh("ip link add e5 type veth peer name other");
    node.add(&r);
    let links = node.links().links;
    assert!(
        links.len() == 3 && links.iter().all(|link| link.state == LinkState::Error),
        "{links:?}"
    );
}
