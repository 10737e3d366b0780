//! The article's cloud router in a lab: real agents, plugin, links, and FRR's OSPF daemons.
#![allow(clippy::too_many_lines, clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use support::{RATCHET, eventually, sh};

struct Lab {
    name: String,
}

impl Lab {
    fn run(&self, words: &[&str]) -> Output {
        let (verb, rest) = words.split_first().unwrap();
        Command::new(RATCHET)
            .args(["lab", verb, "--name", &self.name])
            .args(rest)
            .output()
            .unwrap()
    }

    fn exec(&self, pod: &str, command: &[&str]) -> Output {
        self.run(&[&["exec", pod, "--"], command].concat())
    }

    fn text(output: &Output) -> String {
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Fails, as there is no such lab, when the test has passed.
        self.run(&["down"]);
    }
}

#[test]
fn the_cloud_router_of_the_article() {
    let example: PathBuf =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/cloud-router.yaml");
    let lab = Lab {
        name: format!("rt{}", std::process::id()),
    };
    let up = lab.run(&["up", example.to_str().unwrap()]);
    assert!(up.status.success(), "{}", Lab::text(&up));
    let again = lab.run(&["up", example.to_str().unwrap()]);
    assert!(
        !again.status.success() && Lab::text(&again).contains("lab down"),
        "{}",
        Lab::text(&again)
    );

    eventually("OSPF", || {
        let ping = lab.exec("centosa", &["ping", "-c1", "-W1", "192.168.4.101"]);
        if ping.status.success() {
            Ok(())
        } else {
            Err(Lab::text(&ping))
        }
    });
    let ping = Lab::text(&lab.exec("centosa", &["ping", "-c5", "-i0.1", "192.168.4.101"]));
    assert!(
        ping.contains("ttl=62") && ping.contains(" 0% packet loss"),
        "{ping}"
    );
    let mid1 = Lab::text(&lab.exec("quagga-a", &["ip", "-d", "link", "show", "mid1"]));
    assert!(
        mid1.contains("mtu 1450")
            && mid1.contains("vxlan id 11 remote")
            && mid1.contains("dstport 4789"),
        "{mid1}"
    );
    let neighbours = Lab::text(&lab.exec("quagga-a", &["vtysh", "-c", "show ip ospf neighbor"]));
    assert!(
        neighbours.contains("192.168.3.101") && neighbours.contains("Full"),
        "{neighbours}"
    );

    // The end of an agent does not affect the links, and `down` works without it.
    let status = Lab::text(&lab.run(&["status"]));
    let pid = status
        .split("pid ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .to_owned();
    sh(&format!("kill -9 {pid}"));
    let ping = Lab::text(&lab.exec("centosa", &["ping", "-c5", "-i0.1", "192.168.4.101"]));
    assert!(ping.contains(" 0% packet loss"), "{ping}");

    let down = lab.run(&["down"]);
    assert!(down.status.success(), "{}", Lab::text(&down));
    assert!(!sh("ip netns list").contains(&lab.name));
    assert!(!Path::new("/run/ratchet/lab").join(&lab.name).exists());
    let missing = lab.run(&["down"]);
    assert!(
        !missing.status.success() && Lab::text(&missing).contains("no lab"),
        "{}",
        Lab::text(&missing)
    );
}
