//! Mistakes of users, and the errors for them.
#![allow(clippy::too_many_lines, clippy::unwrap_used, missing_docs)]

mod support;

use ratchet_protocol::LinkState;
use serde_json::Value;

use support::{Cluster, Pod, cloud_router, eventually, sh};

/// ADD must fail with this code and these words.
#[track_caller]
fn refused(cluster: &Cluster, pod: &Pod, code: u64, says: &[&str]) {
    let sandbox = pod.sandbox();
    let error = cluster.nodes[0]
        .try_add(&sandbox)
        .expect_err("ADD should have failed");
    let text = format!(
        "{} {}",
        error["msg"].as_str().unwrap(),
        error["details"].as_str().unwrap_or_default()
    );
    assert_eq!(error["code"], code, "{text}");
    for words in says {
        assert!(text.contains(words), "expected {words:?} in: {text}");
    }
    assert_eq!(
        sandbox.netns.links().len(),
        0,
        "something was left in the pod"
    );
    cluster.nodes[0].del(&sandbox);
}

#[test]
fn bad_declarations_fail_the_add_and_say_why() {
    let cluster = Cluster::with_agents(1);
    let good = cloud_router()[0].clone();
    let links = |text: &str| Pod::with_links("p", text);
    for (pod, says) in [
        (
            good.clone().label("ratchet.local_ip", "192.168.2.300"),
            &[
                "label ratchet.local_ip",
                "\"192.168.2.300\" is not an address",
                "expected an IPv4 or IPv6 address",
            ][..],
        ),
        (
            good.clone()
                .label("ratchet.local_ifname", "a-name-of-sixteen"),
            &[
                "label ratchet.local_ifname",
                "\"a-name-of-sixteen\"",
                "expected 1 to 15 bytes",
            ],
        ),
        (
            good.clone().label("ratchet.local_ifname", "in%d"),
            &["in%d", "expected no '/', ':', '%'"],
        ),
        (
            good.clone().label("ratchet.pair_ifname", "in/2"),
            &["label ratchet.pair_ifname", "in/2"],
        ),
        (
            good.clone().label("ratchet.local_ifname", "eth0"),
            &["interface eth0", "CNI_IFNAME", "give the link another one"],
        ),
        (
            good.clone().label("ratchet.pair_name", "centosa"),
            &["label ratchet.pair_name", "is this pod itself"],
        ),
        (
            good.clone().label("ratchet.local_ifnam", "in1"),
            &[
                "label ratchet.local_ifnam",
                "did you mean ratchet.local_ifname?",
            ],
        ),
        (
            links("[{interface: e1, peer: a}, {interface: e1, peer: b}]"),
            &[
                "interface e1 of pod default/p",
                "claimed by two links",
                "give each link an interface of its own",
            ],
        ),
        (
            links("[{interface: e1, peer: p}]"),
            &["ratchet.dev/links[0].peer", "this very interface"],
        ),
        (links("nonsense"), &["ratchet.dev/links", "expected a list"]),
    ] {
        refused(&cluster, &pod, 7, says);
    }
    cluster.assert_nothing_left();
    assert_eq!(cluster.nodes[0].links().links, []);
}

#[test]
fn an_interface_that_is_not_ours_is_an_error_and_stays() {
    let cluster = Cluster::with_agents(1);
    let node = &cluster.nodes[0];
    let r2 = Pod::with_links("r2", "[]").sandbox();
    node.add(&r2);
    let r1 = Pod::with_links("r1", "[{interface: eth1, peer: r2}]").sandbox();
    r1.netns.sh(
        "ip link add eth1 type veth peer name other && ip link set eth1 address 02:00:00:00:00:99",
    );
    let error = node.try_add(&r1).unwrap_err();
    assert_eq!(error["code"], 7);
    let text = error.to_string();
    assert!(
        text.contains("interface eth1 exists") && text.contains("was not made by Ratchet"),
        "{text}"
    );
    assert_eq!(r1.netns.links()["eth1"]["address"], "02:00:00:00:00:99");
    node.del(&r1);
    assert_eq!(r1.netns.links().len(), 2, "the foreign device stays");
    assert_eq!(r2.netns.links().len(), 0);
    // In the peer's namespace, it is an error of the link, and the new pod's ADD succeeds.
    let r3 = Pod::with_links("r3", "[{interface: eth1, peer: r2/eth5}]").sandbox();
    r2.netns.sh("ip link add eth5 type veth peer name other5");
    node.add(&r3);
    let links = node.links().links;
    let link = links
        .iter()
        .find(|link| link.a.interface.as_str() == "eth5")
        .unwrap();
    assert_eq!(link.state, LinkState::Error);
    assert!(
        link.reason
            .as_deref()
            .unwrap()
            .contains("interface eth5 exists in sandbox"),
        "{link:?}"
    );
    // Without the device, the link comes up.
    r2.netns.sh("ip link del eth5");
    eventually("the link", || {
        let links = node.links().links;
        if links.iter().any(|link| link.state == LinkState::Up) {
            Ok(())
        } else {
            Err(format!("{links:?}"))
        }
    });
}

#[test]
fn pods_that_contradict_each_other_both_get_the_error_and_no_link() {
    let cluster = Cluster::with_agents(2);
    let r1 = Pod::with_links("r1", "[{interface: eth1, peer: r2, mtu: 1300}]").sandbox();
    let r2 = Pod::with_links("r2", "[{interface: eth1, peer: r1, mtu: 1400}]").sandbox();
    cluster.nodes[0].add(&r1);
    cluster.nodes[1].add(&r2);
    for node in &cluster.nodes {
        eventually("the contradiction", || {
            let links = node.links().links;
            match links.first() {
                Some(link) if link.state == LinkState::Error => {
                    let reason = link.reason.clone().unwrap();
                    assert!(
                        reason.contains("MTU is 1300 on default/r1 and 1400 on default/r2"),
                        "{reason}"
                    );
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            }
        });
    }
    assert_eq!((r1.netns.links().len(), r2.netns.links().len()), (0, 0));
}

#[test]
fn two_declarations_on_one_interface_do_not_cut_the_existing_link() {
    let cluster = Cluster::with_agents(1);
    let node = &cluster.nodes[0];
    let r1 = Pod::with_links(
        "r1",
        "[{interface: eth1, peer: r2, addresses: [10.0.0.1/24], peerAddresses: [10.0.0.2/24]}]",
    )
    .sandbox();
    let r2 = Pod::with_links("r2", "[]").sandbox();
    node.add(&r1);
    node.add(&r2);
    let rude = Pod::with_links("rude", "[{interface: eth1, peer: r2/eth1}]").sandbox();
    node.add(&rude);
    let links = node.links().links;
    let [taken] = &links
        .iter()
        .filter(|link| link.state != LinkState::Up)
        .collect::<Vec<_>>()[..]
    else {
        panic!("one link should wait: {links:?}")
    };
    let reason = taken.reason.as_deref().unwrap();
    assert!(
        taken.state == LinkState::Pending
            && reason.contains("interface eth1 of pod default/r2 is that of the link default/r1/")
            && reason.contains("give the link another one"),
        "{taken:?}"
    );
    assert!(r1.netns.ping("10.0.0.2"));
    assert_eq!(rude.netns.links().len(), 0);
    // When the first claim ends, the second has the interface.
    node.del(&r1);
    eventually("the second claim", || {
        let links = node.links().links;
        let is_up = links.iter().any(|link| link.state == LinkState::Up);
        is_up.then_some(()).ok_or_else(|| format!("{links:?}"))
    });
    assert_eq!(rude.netns.links().len(), 1);
    node.del(&rude);
}

#[test]
fn one_address_on_two_pods_is_a_warning() {
    let cluster = Cluster::with_agents(1);
    let r1 = Pod::with_links(
        "r1",
        "[{interface: eth1, peer: r2, addresses: [10.0.0.1/24], peerAddresses: [10.0.0.1/24]}]",
    )
    .sandbox();
    cluster.nodes[0].add(&r1);
    let warnings = &cluster.nodes[0].links().links[0].warnings;
    assert_eq!(
        warnings,
        &["address 10.0.0.1 is given to default/r1/eth1 and default/r2/eth1"]
    );
}

#[test]
fn bad_keys_of_the_config() {
    let mut cluster = Cluster::new(1);
    let pod = cloud_router()[0].clone();
    let plain = cluster.dir.path().join("plain-file");
    std::fs::write(&plain, "no program").unwrap();
    let plain = plain.to_str().unwrap();
    for (key, value, code, says) in [
        ("store", Value::from("redis://x"), 7, &["redis"][..]),
        ("mtu", 9.into(), 7, &["mtu", "68"]),
        (
            "parent_address",
            "10.91.0.200".into(),
            7,
            &["10.91.0.200", "eth0", "10.91.0.1"],
        ),
        ("parent_interface", "nic7".into(), 7, &["nic7"]),
        ("child_path", plain.into(), 7, &["child_path", "plain-file"]),
        ("etcd_port", "many".into(), 7, &["etcd_port"]),
        ("delegate", "bridge".into(), 7, &["delegate"]),
        ("use_labels", 3.into(), 7, &["use_labels"]),
    ] {
        cluster.nodes[0].set(key, value);
        let sandbox = pod.sandbox();
        let error = cluster.nodes[0].try_add(&sandbox).expect_err(key);
        let text = error.to_string();
        assert_eq!(error["code"], code, "{key}: {text}");
        for words in says {
            assert!(text.contains(words), "{key}: expected {words:?} in: {text}");
        }
        let original = Cluster::defaults(&cluster.nodes[0], key);
        cluster.nodes[0].set(key, original);
    }
    // An unknown key is only a warning, which names the most similar key.
    cluster.nodes[0].set("parent_adress", "10.91.0.1".into());
    let sandbox = pod.sandbox();
    let config = sandbox.pod.configure(cluster.nodes[0].config());
    let output = cluster.nodes[0].plugin("ADD", &sandbox, &config);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success()
            && text.contains("parent_adress")
            && text.contains("parent_address"),
        "{text}"
    );
}

#[test]
fn a_corrupt_database_a_full_disk_and_a_namespace_that_goes_in_the_middle() {
    let mut cluster = Cluster::new(1);
    let pod = cloud_router()[0].clone();
    let corrupt = cluster.dir.path().join("corrupt.db");
    std::fs::write(
        &corrupt,
        "this is not a database, and long enough to be looked at as one: ".repeat(100),
    )
    .unwrap();
    cluster.nodes[0].set_store(&format!("sqlite:{}", corrupt.display()));
    let sandbox = pod.sandbox();
    let error = cluster.nodes[0].try_add(&sandbox).unwrap_err();
    assert!(error.to_string().contains("corrupt.db"), "{error}");
    assert!(error["code"] == 5 || error["code"] == 7, "{error}");
    cluster.nodes[0].del(&sandbox);

    // A state directory on a full file system: a small tmpfs with a large file.
    let store = cluster.store.clone();
    cluster.nodes[0].set_store(&store);
    cluster.nodes[0].stop_agent();
    let small = cluster.dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    sh(&format!(
        "mount -t tmpfs -o size=64k tmpfs {}",
        small.display()
    ));
    cluster.nodes[0].state_dir = small.join("state");
    cluster.nodes[0].start_agent();
    sh(&format!(
        "head -c 1M /dev/zero > {}/filler 2>/dev/null || true",
        small.display()
    ));
    let sandbox = pod.sandbox();
    let error = cluster.nodes[0].try_add(&sandbox).unwrap_err();
    assert_eq!(error["code"], 5, "{error}");
    assert_eq!(sandbox.netns.links().len(), 0);
    let links = cluster.nodes[0].links().links;
    std::fs::remove_file(small.join("filler")).unwrap();
    // With free space again, the same sandbox is attached.
    cluster.nodes[0].del(&sandbox);
    cluster.nodes[0].add(&sandbox);
    cluster.nodes[0].del(&sandbox);
    cluster.nodes[0].stop_agent();
    sh(&format!("umount {}", small.display()));
    assert_eq!(links, []);

    // A path that does not exist.
    cluster.nodes[0].start_agent();
    let ghost = pod.sandbox();
    let mut command = cluster.nodes[0].plugin_command("ADD", &ghost);
    command.env("CNI_NETNS", "/run/netns/rt-never-was");
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let config = ghost.pod.configure(cluster.nodes[0].config()).to_string();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), config.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !output.status.success() && text.contains("rt-never-was"),
        "{text}"
    );
    cluster.assert_nothing_left();
}

#[test]
fn a_pod_that_is_not_ours_gets_byte_for_byte_what_its_delegate_printed() {
    let mut cluster = Cluster::new(1);
    let bin = cluster.dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let printed = "{\n  \"cniVersion\" : \"1.0.0\",\"ips\":[ \
                   {\"address\":\"10.7.0.2/24\"} ],\n\"x\":1.50 }\n";
    std::fs::write(bin.join("answer"), printed).unwrap();
    let script = format!(
        "#!/bin/sh\ncat >/dev/null\n[ \"$CNI_COMMAND\" = ADD ] && cat {}/answer\nexit 0\n",
        bin.display()
    );
    std::fs::write(bin.join("fake"), script).unwrap();
    sh(&format!("chmod +x {}/fake", bin.display()));
    cluster.nodes[0].set("delegate", serde_json::json!({"type": "fake"}));
    let plain = Pod::new("plain")
        .label("app", "web")
        .label("ratchet", "false")
        .sandbox();
    let node = &cluster.nodes[0];
    let mut command = node.plugin_command("ADD", &plain);
    command.env("CNI_PATH", &bin);
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let config = plain.pod.configure(node.config()).to_string();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), config.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), printed);
    assert_eq!(node.agent_pid(), None, "no agent is started for it");
}

#[test]
fn a_change_that_fails_half_way_is_repaired_by_the_next_declaration() {
    let cluster = Cluster::with_agents(1);
    let node = &cluster.nodes[0];
    let good = Pod::with_links(
        "a",
        "[{interface: eth1, peer: b, addresses: [192.168.7.1/24], \
          peerAddresses: [192.168.7.2/24]}]",
    );
    // IPv6 needs an MTU of at least 1280. The change fails after the survivor's end has got the new
    // MTU and has lost its address.
    let bad = Pod::with_links(
        "a",
        "[{interface: eth1, peer: b, mtu: 1000, addresses: ['fd07::1/64'], \
          peerAddresses: ['fd07::2/64']}]",
    );
    let b = Pod::with_links("b", "[]").sandbox();
    node.add(&b);
    let first = good.sandbox();
    node.add(&first);
    node.del(&first);
    let second = bad.sandbox();
    let error = node.try_add(&second).unwrap_err().to_string();
    assert!(error.contains("1280"), "{error}");
    node.del(&second);
    let third = good.sandbox();
    node.add(&third);
    node.wait_for_links(1);
    assert_eq!(b.netns.links()["eth1"]["mtu"], 1450);
    assert!(third.netns.ping("192.168.7.2"));
}

#[test]
fn others_may_open_and_close_the_store_of_an_agent_that_was_restarted() {
    let mut cluster = Cluster::with_agents(1);
    let [a, z] = [cloud_router()[0].sandbox(), cloud_router()[1].sandbox()];
    cluster.nodes[0].add(&a);
    cluster.nodes[0].stop_agent();
    cluster.nodes[0].start_agent();
    cluster.nodes[0].wait_for_agent();
    for _ in 0..3 {
        assert!(cluster.store_rows().contains("default/centosa"));
        cluster.nodes[0].add(&z);
        assert!(
            cluster.store_rows().contains("default/quagga-a\""),
            "{}",
            cluster.store_rows()
        );
        cluster.nodes[0].del(&z);
    }
    cluster.nodes[0].del(&a);
    assert!(
        !cluster.store_rows().contains("default/"),
        "{}",
        cluster.store_rows()
    );
}
