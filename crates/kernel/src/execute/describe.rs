//! What a step does, in words, and the kernel's refusal of it as an error.

use std::net::IpAddr;

use ipnet::IpNet;
use nix::errno::Errno;
use ratchet_model::{
    device::Operation,
    link::{Mtu, Route},
};

use crate::{error::KernelError, socket::Failure};

/// "cannot …"
pub(crate) fn doing(operation: &Operation) -> String {
    match operation {
        Operation::Delete(at) => format!("delete {at}"),
        Operation::Move { from, to, .. } => format!("move {from} to {to}"),
        Operation::CreateVeth { a, z } => format!("create the veth pair {} and {}", a.at, z.at),
        Operation::CreateVxlan { device, tunnel, .. } => format!(
            "create the VXLAN device {} (VNI {}, from {} to {})",
            device.at, tunnel.vni, tunnel.local, tunnel.remote
        ),
        Operation::Retarget { at, tunnel } => {
            format!(
                "point the VXLAN device {at} to {} (from {})",
                tunnel.remote, tunnel.local
            )
        }
        Operation::SetMac(at, mac) => format!("give {at} the MAC address {mac}"),
        Operation::SetMtu(at, mtu) => format!("give {at} the MTU {mtu}"),
        Operation::Silence(at) => format!("keep the kernel from giving {at} an address"),
        Operation::Join { from, to } => format!("join {from} to {to}"),
        Operation::SetUp(at, true) => format!("set {at} up"),
        Operation::SetUp(at, false) => format!("set {at} down"),
        Operation::AddAddress(at, address) | Operation::RestoreAddress(at, address) => {
            format!("add the address {address} to {at}")
        }
        Operation::AnnounceAddress(at, address) => {
            format!("announce the address {address} of {at}")
        }
        Operation::RemoveAddress(at, address) => format!("remove the address {address} from {at}"),
        Operation::AddRoute(at, route) | Operation::RestoreRoute(at, route) => {
            format!("add the route {} to {at}", destination(route))
        }
        Operation::RemoveRoute(at, route) => {
            format!("remove the route {} from {at}", destination(route))
        }
        Operation::Begin(at, _) | Operation::Commit(at, _) => format!("write the alias of {at}"),
    }
}

fn destination(route: &Route) -> String {
    let via = route
        .via
        .map(|via| format!(" via {via}"))
        .unwrap_or_default();
    let metric = route
        .metric
        .map(|metric| format!(" metric {metric}"))
        .unwrap_or_default();
    format!("{}{via}{metric}", route.dst)
}

/// The kernel's refusal of a step as an error, with what usually is behind it where the kernel
/// itself does not say.
pub(crate) fn explain(operation: &Operation, failure: Failure) -> KernelError {
    let doing = doing(operation);
    let errno = failure.errno;
    match (operation, errno) {
        (Operation::CreateVeth { .. }, Errno::EOPNOTSUPP) => KernelError::Unsupported {
            doing,
            feature: "veth devices",
            module: "veth",
            config: "CONFIG_VETH",
        },
        (Operation::CreateVxlan { .. }, Errno::EOPNOTSUPP) => KernelError::Unsupported {
            doing,
            feature: "VXLAN devices",
            module: "vxlan",
            config: "CONFIG_VXLAN",
        },
        (Operation::CreateVxlan { tunnel, .. }, Errno::EEXIST) => KernelError::VniTaken {
            doing,
            vni: tunnel.vni,
            port: tunnel.port,
        },
        // net/sched/sch_api.c, cls_api.c and act_api.c, for a kind that the kernel does not have.
        (Operation::Join { .. }, Errno::ENOENT | Errno::EOPNOTSUPP) => KernelError::Unsupported {
            doing,
            feature: "what stitched links are joined by: clsact, cls_bpf and act_mirred",
            module: "act_mirred",
            config: "CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF and CONFIG_NET_ACT_MIRRED",
        },
        (
            Operation::Retarget { at, .. }
            | Operation::SetMac(at, _)
            | Operation::SetMtu(at, _)
            | Operation::SetUp(at, _)
            | Operation::Silence(at)
            | Operation::Begin(at, _)
            | Operation::Commit(at, _),
            Errno::ENODEV,
        ) => KernelError::NoDevice {
            doing,
            at: at.clone(),
        },
        _ => KernelError::Refused {
            doing,
            errno,
            reason: reason(operation, failure),
        },
    }
}

/// Why the kernel refused a step: in its own words, or with what usually is behind it.
fn reason(operation: &Operation, failure: Failure) -> Option<String> {
    let Failure { errno, reason } = failure;
    match (operation, errno) {
        (
            Operation::AddAddress(_, IpNet::V6(_)),
            Errno::EINVAL | Errno::ENOBUFS | Errno::ENODEV,
        ) => {
            // net/ipv6/addrconf.c, `addrconf_add_dev`: there is no IPv6 on a device with less than
            // IPV6_MIN_MTU.
            let hint = format!("IPv6 needs an MTU of {IPV6_MIN_MTU} at least");
            Some(match reason {
                Some(text) => format!("{text}; {hint}"),
                None => hint,
            })
        }
        // drivers/net/vxlan/vxlan_core.c, `vxlan_change_mtu`, which does not say so itself.
        (Operation::SetMtu(..), Errno::EINVAL) => reason.or_else(|| {
            let text = "a tunnel's MTU must leave 50 bytes of its parent interface's, 70 over IPv6";
            Some(text.to_owned())
        }),
        (Operation::CreateVxlan { tunnel, .. }, Errno::EAFNOSUPPORT | Errno::EPFNOSUPPORT) => {
            reason.or_else(|| Some(no_family(tunnel.local)))
        }
        _ => reason,
    }
}

/// IPV6_MIN_MTU, include/uapi/linux/ipv6.h.
const IPV6_MIN_MTU: u32 = 1280;
const _: () = assert!(IPV6_MIN_MTU > Mtu::MIN);

fn no_family(local: IpAddr) -> String {
    format!(
        "the node's kernel has no {}",
        if local.is_ipv4() { "IPv4" } else { "IPv6" }
    )
}
