//! The VXLAN devices in the node's own namespace, whoever made them. Reads only.

use ratchet_model::device::{GROUP_OURS, Kind, Netns};

use crate::{
    error::KernelError,
    kernel::Kernel,
    reply::{self, attributes},
    request,
};

/// A VXLAN device in the node's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTunnel {
    /// Its name.
    pub name: String,
    /// Its VNI.
    pub vni: u32,
    /// Its UDP destination port.
    pub port: u16,
    /// Whether Ratchet made it.
    pub is_ours: bool,
    /// Whether it does not share its socket with ordinary devices: it takes all VNIs ("external")
    /// or speaks an extension (GBP, GPE).
    pub is_exclusive: bool,
    /// Whether it is set up, and so has a socket.
    pub is_up: bool,
}

impl Kernel {
    /// The VXLAN devices in the node's namespace.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn tunnels(&self) -> Result<Vec<NodeTunnel>, KernelError> {
        let read = self.talk(&Netns::Node, |channel| {
            channel.dump(request::dump_links(), tunnel)
        })?;
        read.map_err(|failure| KernelError::Refused {
            doing: "read the node's devices".into(),
            errno: failure.errno,
            reason: failure.reason,
        })
    }
}

fn tunnel(payload: &[u8]) -> Option<NodeTunnel> {
    let device = reply::link(&Netns::Node, payload)?;
    let Kind::Vxlan { vni, port, .. } = device.kind else {
        return None;
    };
    let part = |of: &'_ [u8], wanted| {
        attributes(of)
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| value.to_vec())
    };
    // IFLA_LINKINFO, IFLA_INFO_DATA; IFLA_VXLAN_COLLECT_METADATA, _GBP and _GPE
    // (include/uapi/linux/if_link.h).
    let data = part(payload.get(16..)?, 18)
        .and_then(|info| part(&info, 2))
        .unwrap_or_default();
    let is_exclusive = attributes(&data).any(|(kind, value)| match kind {
        25 => value.first() == Some(&1),
        23 | 27 => true,
        _ => false,
    });
    let is_ours = device.group == GROUP_OURS || device.unproven.is_some();
    Some(NodeTunnel {
        name: device.name,
        vni,
        port,
        is_ours,
        is_exclusive,
        is_up: device.up,
    })
}
