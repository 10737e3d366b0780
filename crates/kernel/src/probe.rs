//! Finds out what this kernel can do, by doing it where nobody is.

use std::net::{IpAddr, Ipv4Addr};

use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use nix::{errno::Errno, sched};
use ratchet_model::{
    device::Tunnel,
    link::{Mac, Mtu, Vni},
};

use crate::{
    error::KernelError,
    netns::NetnsHandle,
    request::{self, NewLink},
    socket::Channel,
};

/// What the kernel can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// veth devices: links within a node.
    pub veth: bool,
    /// VXLAN devices: links between nodes.
    pub vxlan: bool,
}

/// Tries out, in a network namespace that exists only for this, which devices the kernel can make.
/// The kernel loads modules that it lacks.
///
/// # Errors
/// When no namespace can be made (that takes CAP_SYS_ADMIN) or the kernel refuses for another
/// reason than that it lacks the feature.
pub fn probe() -> Result<Capabilities, KernelError> {
    let thread = std::thread::Builder::new()
        .name("probe".into())
        .spawn(try_out);
    let thread = thread.map_err(|error| KernelError::io("start a thread", &error))?;
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn try_out() -> Result<Capabilities, KernelError> {
    sched::unshare(sched::CloneFlags::CLONE_NEWNET).map_err(|errno| {
        KernelError::system("make a network namespace to try devices in", errno)
    })?;
    let here = NetnsHandle::current()?;
    let mut channel =
        Channel::open_here().map_err(|error| KernelError::io("open a netlink socket", &error))?;
    let (Ok(mtu), Ok(vni)) = (Mtu::try_from(1280), Vni::try_from(Vni::FIRST)) else {
        return Err(KernelError::system("probe", Errno::EINVAL));
    };
    let new = |name, last| {
        let mac = Mac::from_bytes([2, 0, 0, 0, 0, last]);
        NewLink {
            netns: here.raw_fd(),
            name,
            mac,
            mtu,
            index: None,
            is_on_node: false,
        }
    };
    let documentation = |last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
    let tunnel = Tunnel {
        vni,
        remote: documentation(1),
        local: documentation(2),
        parent: 0,
        port: 4789,
    };
    let mut can = |what: &str, request| match channel.once(request) {
        Ok(()) => Ok(true),
        Err(failure) if failure.errno == Errno::EOPNOTSUPP => Ok(false),
        Err(failure) => {
            let doing = format!("try out {what} devices");
            Err(KernelError::Refused {
                doing,
                errno: failure.errno,
                reason: failure.reason,
            })
        }
    };
    let veth = can("veth", request::create_veth(&new("a", 1), &new("z", 2)))?;
    let vxlan = can("VXLAN", request::create_vxlan(&new("v", 3), &tunnel, None))?;
    Ok(Capabilities { veth, vxlan })
}

/// Whether the kernel has nftables; it loads the module if it lacks it. Asks for the number of the
/// rule set's generation, which changes nothing.
pub fn probe_nftables() -> bool {
    /// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN`,
    /// include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h.
    const GET_GENERATION: u16 = 10 << 8 | 16;
    /// NLM_F_REQUEST, and `struct nlmsghdr` with `struct nfgenmsg` (all zero) behind it.
    const REQUEST: u16 = 1;
    const LENGTH: u32 = 20;
    let mut message = Vec::with_capacity(20);
    message.extend(LENGTH.to_ne_bytes());
    message.extend(GET_GENERATION.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 12]);
    let ask = || -> std::io::Result<bool> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.send(&message, 0)?;
        let (answer, _) = socket.recv_from_full()?;
        // An answer, or an error (NLMSG_ERROR is 2) in its place.
        Ok(answer.get(4..6) != Some(&2_u16.to_ne_bytes()[..]))
    };
    ask().unwrap_or(false)
}
