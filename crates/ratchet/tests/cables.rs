//! Links end to end: real agents, the real plugin, the real kernel.
#![allow(clippy::too_many_lines, clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::BTreeMap;

use ratchet_protocol::LinkState;

use support::{Cluster, Node, Pinger, Pod, Sandbox, cloud_router, eventually};

/// The node of each of the cloud router's pods: the left half on the first, the right half on the
/// second.
const PLACES: [usize; 4] = [0, 0, 1, 1];

fn assert_cloud_router(cluster: &Cluster, sandboxes: &BTreeMap<usize, Sandbox>) {
    for node in &cluster.nodes {
        node.wait_for_links(2);
    }
    let interface = |pod: usize, name: &str| {
        let links = sandboxes[&pod].netns.links();
        links
            .get(name)
            .unwrap_or_else(|| panic!("{name} is missing in pod {pod}: {:?}", links.keys()))
            .clone()
    };
    for (pod, name, address) in [
        (0, "in1", "192.168.2.100"),
        (1, "in2", "192.168.2.101"),
        (1, "mid1", "192.168.3.100"),
        (2, "mid2", "192.168.3.101"),
        (2, "out1", "192.168.4.100"),
        (3, "out2", "192.168.4.101"),
    ] {
        let found = interface(pod, name);
        assert_eq!(found["mtu"], 1450, "{name}");
        let v4 = found["addr_info"]
            .as_array()
            .unwrap()
            .iter()
            .find(|a| a["family"] == "inet")
            .unwrap();
        assert_eq!(
            (
                v4["local"].as_str().unwrap(),
                v4["prefixlen"].as_u64().unwrap()
            ),
            (address, 24)
        );
        let kind = if name.starts_with("mid") {
            "vxlan"
        } else {
            "veth"
        };
        assert_eq!(found["linkinfo"]["info_kind"], kind, "{name}");
    }
    let tunnel = interface(1, "mid1")["linkinfo"]["info_data"].clone();
    assert_eq!(
        (&tunnel["id"], &tunnel["port"], &tunnel["learning"]),
        (&11.into(), &4789.into(), &false.into())
    );
    assert_eq!(tunnel["remote"], cluster.nodes[1].address.as_str());
    for (from, address) in [
        (0, "192.168.2.101"),
        (1, "192.168.3.101"),
        (2, "192.168.4.101"),
    ] {
        eventually("an answer", || {
            if sandboxes[&from].netns.ping(address) {
                Ok(())
            } else {
                Err(address.into())
            }
        });
    }
    let own: Vec<usize> = (0..4)
        .map(|pod| sandboxes[&pod].netns.links().len())
        .collect();
    assert_eq!(own, [1, 2, 2, 1], "interfaces of each pod");
}

fn delete_all(cluster: &Cluster, sandboxes: BTreeMap<usize, Sandbox>) {
    for (pod, sandbox) in &sandboxes {
        cluster.nodes[PLACES[*pod]].del(sandbox);
    }
    cluster.assert_nothing_left();
    for node in &cluster.nodes {
        assert_eq!(node.links().links, []);
    }
}

fn permutations(of: &[usize]) -> Vec<Vec<usize>> {
    if of.is_empty() {
        return vec![vec![]];
    }
    let mut all = Vec::new();
    for (index, first) in of.iter().enumerate() {
        let mut rest = of.to_vec();
        rest.remove(index);
        all.extend(
            permutations(&rest)
                .into_iter()
                .map(|tail| [vec![*first], tail].concat()),
        );
    }
    all
}

#[test]
fn all_24_orders_result_in_the_same_links() {
    let cluster = Cluster::with_agents(2);
    let pods = cloud_router();
    for order in permutations(&[0, 1, 2, 3]) {
        let mut sandboxes = BTreeMap::new();
        for pod in &order {
            let sandbox = pods[*pod].sandbox();
            cluster.nodes[PLACES[*pod]].add(&sandbox);
            sandboxes.insert(*pod, sandbox);
        }
        assert_cloud_router(&cluster, &sandboxes);
        delete_all(&cluster, sandboxes);
    }
    assert!(
        !cluster.store_rows().contains("centos"),
        "{}",
        cluster.store_rows()
    );
}

#[test]
fn all_at_once_result_in_the_same_links() {
    let cluster = Cluster::with_agents(2);
    let pods = cloud_router();
    for _ in 0..5 {
        let sandboxes: BTreeMap<usize, Sandbox> =
            (0..4).map(|pod| (pod, pods[pod].sandbox())).collect();
        std::thread::scope(|scope| {
            for (pod, sandbox) in &sandboxes {
                let node = &cluster.nodes[PLACES[*pod]];
                scope.spawn(move || node.add(sandbox));
            }
        });
        assert_cloud_router(&cluster, &sandboxes);
        delete_all(&cluster, sandboxes);
    }
}

/// The links of a pod, by number.
fn links_of(pod: usize) -> &'static [usize] {
    [&[0][..], &[0, 1], &[1, 2], &[2]][pod]
}

#[test]
fn a_pod_that_goes_and_comes_back_disturbs_no_other_link() {
    let cluster = Cluster::with_agents(2);
    let pods = cloud_router();
    let mut sandboxes: BTreeMap<usize, Sandbox> = BTreeMap::new();
    for (pod, place) in PLACES.iter().enumerate() {
        let sandbox = pods[pod].sandbox();
        cluster.nodes[*place].add(&sandbox);
        sandboxes.insert(pod, sandbox);
    }
    assert_cloud_router(&cluster, &sandboxes);
    let pings = [
        (0, "192.168.2.101"),
        (1, "192.168.3.101"),
        (2, "192.168.4.101"),
    ];
    for pod in 0..4 {
        let pingers: Vec<Pinger> = (0..3)
            .filter(|link| !links_of(pod).contains(link))
            .map(|link| Pinger::start(&sandboxes[&pings[link].0].netns, pings[link].1))
            .collect();
        let home = PLACES[pod];
        let mut at = home;
        for to in [home, 1 - home, home] {
            cluster.nodes[at].del(&sandboxes.remove(&pod).unwrap());
            let sandbox = pods[pod].sandbox();
            cluster.nodes[to].add(&sandbox);
            sandboxes.insert(pod, sandbox);
            at = to;
            for link in links_of(pod) {
                let (from, address) = pings[*link];
                eventually(
                    &format!("link {link} after pod {pod} has moved to node {to}"),
                    || {
                        if sandboxes[&from].netns.ping(address) {
                            Ok(())
                        } else {
                            Err("no answer".into())
                        }
                    },
                );
            }
        }
        for pinger in pingers {
            pinger.assert_no_loss();
        }
    }
    assert_cloud_router(&cluster, &sandboxes);
    delete_all(&cluster, sandboxes);
}

/// Index, MAC and addresses of an interface, and the routes through it.
fn identity(
    sandbox: &Sandbox,
    interface: &str,
) -> (serde_json::Value, serde_json::Value, String, String) {
    let link = &sandbox.netns.links()[interface];
    let addresses: Vec<String> = link["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|a| a["scope"] == "global")
        .map(|a| format!("{}/{}", a["local"], a["prefixlen"]))
        .collect();
    let routes = sandbox.netns.sh(&format!("ip route show dev {interface}"));
    (
        link["ifindex"].clone(),
        link["address"].clone(),
        format!("{addresses:?}"),
        routes.replace(" linkdown", ""),
    )
}

#[test]
fn the_survivors_interface_stays_what_it_is() {
    let cluster = Cluster::with_agents(3);
    let r1 = Pod::with_links(
        "r1",
        "[{interface: eth1, peer: r2/eth1, addresses: [10.0.0.1/24, 'fd00::1/64'], \
          peerAddresses: [10.0.0.2/24, 'fd00::2/64'], \
          peerRoutes: [{dst: 10.9.0.0/16, via: 10.0.0.1}]}]",
    );
    let survivor = Pod::with_links("r2", "[]").sandbox();
    cluster.nodes[0].add(&survivor);
    let mut peer = r1.sandbox();
    cluster.nodes[0].add(&peer);
    // A user adds an address and a route by hand.
    survivor
        .netns
        .sh("ip addr add 172.31.0.2/24 dev eth1 && ip route add 10.8.0.0/16 via 10.0.0.1 dev eth1");
    let mut at = 0;
    let mut before = identity(&survivor, "eth1");
    assert!(
        before.3.contains("10.9.0.0/16 via 10.0.0.1") && before.3.contains("10.8.0.0/16"),
        "{before:?}"
    );
    // The peer stays on the node, moves to another one (veth becomes VXLAN), to a third, and back.
    for to in [0, 1, 2, 1, 0, 0] {
        cluster.nodes[at].del(&peer);
        peer = r1.sandbox();
        cluster.nodes[to].add(&peer);
        at = to;
        survivor.netns.wait_for_answer("10.0.0.1");
        let after = identity(&survivor, "eth1");
        assert_eq!(
            after.0, before.0,
            "index of the survivor after the peer has moved to node {to}"
        );
        assert_eq!(
            (&after.1, &after.2, &after.3),
            (&before.1, &before.2, &before.3),
            "after the peer has moved to node {to}"
        );
        before = after;
    }
    survivor.netns.wait_for_answer("fd00::1");
}

/// Two linked pods on a node: the first pod, its sandbox, and the sandbox of the other one, the
/// survivor.
fn linked_pair(node: &Node) -> (Pod, Sandbox, Sandbox) {
    let link = "[{interface: eth1, peer: r2/eth1, addresses: [10.0.0.1/24], \
                peerAddresses: [10.0.0.2/24]}]";
    let r1 = Pod::with_links("r1", link);
    let [first, survivor] = [r1.sandbox(), Pod::with_links("r2", "[]").sandbox()];
    node.add(&survivor);
    node.add(&first);
    (r1, first, survivor)
}

#[test]
fn a_late_del_of_the_old_sandbox_harms_nothing() {
    let cluster = Cluster::with_agents(2);
    let (r1, first, survivor) = linked_pair(&cluster.nodes[0]);
    let index = identity(&survivor, "eth1").0;
    let second = r1.sandbox();
    cluster.nodes[0].add(&second);
    cluster.nodes[0].del(&first);
    second.netns.wait_for_answer("10.0.0.2");
    assert_eq!(identity(&survivor, "eth1").0, index);
    // The same on two nodes: the old sandbox's DEL comes after the new one is up elsewhere.
    let third = r1.sandbox();
    cluster.nodes[1].add(&third);
    cluster.nodes[0].del(&second);
    third.netns.wait_for_answer("10.0.0.2");
}

#[test]
fn a_namespace_that_vanishes_without_a_del() {
    let mut cluster = Cluster::with_agents(1);
    let (r1, first, _survivor) = linked_pair(&cluster.nodes[0]);
    let Sandbox { netns, id, pod } = first;
    drop(netns);
    let second = r1.sandbox();
    cluster.nodes[0].add(&second);
    second.netns.wait_for_answer("10.0.0.2");
    // Now its DEL comes, with a path that does not exist.
    let ghost = Sandbox {
        netns: second.netns,
        id,
        pod,
    };
    let config = cluster.nodes[0].config();
    let mut command = cluster.nodes[0].plugin_command("DEL", &ghost);
    command.env("CNI_NETNS", "/run/netns/rt-not-there");
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(
        &mut child.stdin.take().unwrap(),
        config.to_string().as_bytes(),
    )
    .unwrap();
    assert!(child.wait().unwrap().success());
    ghost.netns.wait_for_answer("10.0.0.2");
    // A restart of the agent changes nothing.
    cluster.nodes[0].kill_agent();
    cluster.nodes[0].start_agent();
    cluster.nodes[0].wait_for_links(1);
    ghost.netns.wait_for_answer("10.0.0.2");
}

#[test]
fn a_pod_linked_to_itself_and_two_pods_with_many_links() {
    let cluster = Cluster::with_agents(2);
    let node = &cluster.nodes[0];
    let loopy = Pod::with_links(
        "loopy",
        "[{interface: a, peer: loopy/b, addresses: [10.0.0.1/24], peerAddresses: [10.0.0.2/24]}]",
    )
    .sandbox();
    let result = node.add(&loopy);
    let names: Vec<&str> = result["interfaces"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|i| i["name"].as_str())
        .collect();
    assert!(names.contains(&"a") && names.contains(&"b"), "{names:?}");
    node.del(&loopy);

    let entries: Vec<String> = (1..=70)
        .map(|n| {
            format!(
                "{{interface: e{n}, peer: many-z/e{n}, addresses: [10.0.{n}.1/24], peerAddresses: \
                 [10.0.{n}.2/24]}}"
            )
        })
        .collect();
    let pods = [
        Pod::with_links("many-a", &format!("[{}]", entries.join(","))),
        Pod::with_links("many-z", "[]"),
    ];
    let [a, z] = [pods[0].sandbox(), pods[1].sandbox()];
    node.add(&a);
    node.add(&z);
    node.wait_for_links(70);
    assert!(a.netns.ping("10.0.70.2") && a.netns.ping("10.0.1.2"));
    // These are too many links for parking: they are made again, with the same names and addresses.
    node.del(&a);
    assert_eq!(z.netns.links().len(), 0);
    let again = pods[0].sandbox();
    cluster.nodes[1].add(&again);
    cluster.nodes[0].wait_for_links(70);
    again.netns.wait_for_answer("10.0.70.2");
    cluster.nodes[1].del(&again);
    node.del(&z);
    cluster.assert_nothing_left();
}

#[test]
fn one_agent_killed_in_the_middle_of_a_hundred_adds() {
    let mut cluster = Cluster::with_agents(1);
    // A ring of 100 pods.
    let sandboxes: Vec<Sandbox> = (0..100)
        .map(|n| {
            let next = (n + 1) % 100;
            let link = format!(
                "[{{interface: right, peer: p{next}/left, addresses: [10.1.{n}.1/24], \
                 peerAddresses: [10.1.{n}.2/24]}}]"
            );
            Pod::with_links(&format!("p{n}"), &link).sandbox()
        })
        .collect();
    let pid = cluster.nodes[0].agent.as_ref().unwrap().id();
    let killed = std::sync::atomic::AtomicUsize::new(0);
    let failed: Vec<&Sandbox> = std::thread::scope(|scope| {
        let node = &cluster.nodes[0];
        let killed = &killed;
        let workers: Vec<_> = sandboxes
            .chunks(25)
            .map(|chunk| {
                scope.spawn(move || {
                    let mut failed = Vec::new();
                    for sandbox in chunk {
                        if node.try_add(sandbox).is_err() {
                            failed.push(sandbox);
                        }
                        if killed.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 50 {
                            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
                            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
                        }
                    }
                    failed
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    // The plugin has started another agent. After a failed ADD, a runtime calls DEL and tries
    // again.
    let node = &mut cluster.nodes[0];
    node.agent.take().unwrap().wait().unwrap();
    for sandbox in failed {
        node.del(sandbox);
        node.add(sandbox);
    }
    node.wait_for_links(100);
    for n in [0, 49, 50, 51, 99] {
        assert!(sandboxes[n].netns.ping(&format!("10.1.{n}.2")), "pod {n}");
    }
    for sandbox in &sandboxes {
        node.del(sandbox);
    }
    cluster.assert_nothing_left();
    assert!(
        !cluster.store_rows().contains("default/"),
        "{}",
        cluster.store_rows()
    );
}

#[test]
fn a_link_ends_when_its_declarer_comes_back_without_it() {
    let cluster = Cluster::new(2);
    let declarer = Pod::with_links("r1", "[{interface: eth1, peer: r2}]").sandbox();
    let survivor = Pod::with_links("r2", "[]").sandbox();
    cluster.nodes[0].add(&declarer);
    cluster.nodes[1].add(&survivor);
    cluster.nodes[1].wait_for_links(1);
    cluster.nodes[0].del(&declarer);
    let again = Pod::with_links("r1", "[]").sandbox();
    cluster.nodes[0].add(&again);
    eventually("the link's end", || {
        match survivor.netns.links().contains_key("eth1") {
            true => Err("eth1 is still there".into()),
            false => Ok(()),
        }
    });
    cluster.nodes[0].del(&again);
    cluster.nodes[1].del(&survivor);
    cluster.assert_nothing_left();
}

#[test]
fn links_say_what_they_wait_for() {
    let cluster = Cluster::with_agents(1);
    let node = &cluster.nodes[0];
    let lonely = Pod::with_links("lonely", "[{interface: eth1, peer: missing}]").sandbox();
    node.add(&lonely);
    let links = node.links().links;
    assert_eq!(links[0].state, LinkState::Pending);
    let reason = links[0].reason.as_deref().unwrap();
    assert!(
        reason.contains("pod default/missing is not known yet")
            && reason.contains("file of this host"),
        "{reason}"
    );
}
