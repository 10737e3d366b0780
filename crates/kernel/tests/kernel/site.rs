//! Several nodes on one wire.

use std::os::fd::AsRawFd;

use ratchet_kernel::NetnsHandle;

use crate::world::{World, fresh, sh};

/// Nodes on a common wire, with 192.0.2.N and fd00::N on eth0, N from 1.
pub struct Site {
    _wire: NetnsHandle,
    pub nodes: Vec<World>,
}

impl Site {
    pub fn new(count: usize) -> Self {
        let wire = fresh();
        sh(&wire, "ip link add br0 type bridge");
        sh(&wire, "ip link set br0 up");
        let nodes: Vec<World> = (0..count).map(|_| World::new(1)).collect();
        for (number, node) in (1..).zip(&nodes) {
            let netns = format!(
                "/proc/{}/fd/{}",
                std::process::id(),
                std::os::fd::AsFd::as_fd(&node.node).as_raw_fd()
            );
            sh(
                &wire,
                &format!("ip link add port{number} type veth peer name eth0 netns {netns}"),
            );
            sh(&wire, &format!("ip link set port{number} master br0 up"));
            sh(&node.node, "ip link set eth0 up");
            sh(
                &node.node,
                &format!("ip address add 192.0.2.{number}/24 dev eth0"),
            );
            sh(
                &node.node,
                &format!("ip address add fd00::{number}/64 dev eth0 nodad"),
            );
        }
        Self { _wire: wire, nodes }
    }

    pub fn parent(&self, node: usize) -> u32 {
        self.nodes[node]
            .kernel
            .underlay(Some("eth0"), None)
            .unwrap()
            .index
    }
}
