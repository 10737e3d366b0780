//! The node itself: rights, features of the kernel, underlay, clock.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::libc;
use ratchet_kernel::{Capabilities, Kernel, KernelError, Underlay, UnderlayError};
use ratchet_model::Mtu;
use ratchet_protocol::Settings;

use crate::Check;

/// The capabilities for devices and routes, and for entering namespaces
/// (include/uapi/linux/capability.h).
const CAPABILITIES: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];

/// The smallest MTU for IPv6 (RFC 8200 section 5).
const IPV6_MIN_MTU: u32 = 1280;
/// Ethernet's MTU, which people expect of a link.
const ETHERNET_MTU: u32 = 1500;

/// Whether we are root, with the capabilities.
pub(crate) fn rights() -> Vec<Check> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    vec![judge_rights(nix::unistd::geteuid().is_root(), &status)]
}

fn judge_rights(root: bool, status: &str) -> Check {
    let name = "rights";
    if !root {
        return Check::fail(name, "not root", "run this, and the agent, as root");
    }
    let effective = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    let lacks: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(bit, _)| effective.is_some_and(|effective| effective >> bit & 1 == 0))
        .map(|(_, name)| *name)
        .collect();
    if lacks.is_empty() {
        Check::ok(name, "root, with CAP_NET_ADMIN and CAP_SYS_ADMIN")
    } else {
        let hint = "in a container: give it these capabilities, or make it privileged";
        Check::fail(name, format!("root without {}", lacks.join(" and ")), hint)
    }
}

/// Whether the kernel has what links need.
pub(crate) fn features() -> Vec<Check> {
    judge_features(ratchet_kernel::probe(), ratchet_kernel::probe_nftables())
}

fn judge_features(probed: Result<Capabilities, KernelError>, nftables: bool) -> Vec<Check> {
    let mut checks = match probed {
        Err(error) => vec![Check::fail(
            "kernel",
            error.to_string(),
            "run this as root, on the node itself",
        )],
        Ok(can) => {
            let check = |name, can: bool, what: &str, module: &str| match can {
                true => Check::ok(name, "the kernel can make them"),
                false => Check::fail(
                    name,
                    format!("the kernel cannot make them: no {what}"),
                    format!(
                        "modprobe {module}; if there is no such module, install the package with \
                         your kernel's modules"
                    ),
                ),
            };
            vec![
                check("veth devices", can.veth, "links within this node", "veth"),
                check("VXLAN devices", can.vxlan, "links to other nodes", "vxlan"),
            ]
        }
    };
    checks.push(match nftables {
        true => Check::ok("nftables", "the kernel has it"),
        false => Check::warn(
            "nftables",
            "the kernel lacks it: frames for a tunnel are accepted from any address",
            "modprobe nf_tables, or use a firewall that accepts UDP 4789 from the other nodes only",
        ),
    });
    checks
}

/// Where tunnels start, and the MTU that they leave for links.
pub(crate) fn underlay(settings: &Settings) -> Vec<Check> {
    let kernel = match Kernel::new() {
        Ok(kernel) => kernel,
        Err(error) => {
            return vec![Check::fail(
                "underlay",
                error.to_string(),
                "run this as root",
            )];
        }
    };
    judge_underlay(
        kernel.underlay(
            settings.parent_interface.as_deref(),
            settings.parent_address,
        ),
        settings.mtu,
    )
}

fn judge_underlay(underlay: Result<Underlay, UnderlayError>, mtu: Option<Mtu>) -> Vec<Check> {
    let underlay = match underlay {
        Ok(underlay) => underlay,
        Err(error) => {
            let hint = "correct parent_interface and parent_address, in the network config and for \
                        the agent; \"ip addr\" shows the node's addresses";
            return vec![Check::fail("underlay", error.to_string(), hint)];
        }
    };
    let Underlay {
        interface,
        address,
        mtu: parent,
        ..
    } = &underlay;
    let start = if address.is_loopback() {
        let hint = "set parent_interface to the interface on which the other nodes reach this one";
        Check::warn(
            "underlay",
            format!("{address} on {interface}: no other node can reach this address"),
            hint,
        )
    } else {
        Check::ok(
            "underlay",
            format!("tunnels start at {address} on {interface}"),
        )
    };
    vec![
        start,
        judge_mtu(
            *parent,
            Mtu::within_underlay(*parent, *address).bytes(),
            mtu.map(Mtu::bytes),
        ),
    ]
}

/// `room`: what the underlay's MTU leaves for a link. `wanted`: the MTU that the settings ask for.
fn judge_mtu(parent: u32, room: u32, wanted: Option<u32>) -> Check {
    let name = "MTU";
    let found = format!("the underlay has {parent}, which leaves {room} for links");
    let larger = format!(
        "raise the underlay's MTU to {} for full Ethernet frames in links",
        ETHERNET_MTU + (parent - room)
    );
    match wanted {
        Some(wanted) if wanted > room => Check::fail(
            name,
            format!("{found}; mtu asks for {wanted}"),
            format!("set mtu to at most {room}, or raise the underlay's MTU"),
        ),
        _ if room < IPV6_MIN_MTU => {
            Check::warn(name, format!("{found}: too little for IPv6"), larger)
        }
        Some(wanted) => Check::ok(name, format!("{found}; mtu sets {wanted}")),
        None => Check::ok(name, found),
    }
}

/// The clock.
pub(crate) fn clock() -> Check {
    // SAFETY: an all-zero timex is valid: with `modes` 0, nothing is changed.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to our own timex, which lives during the call.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    let is_synchronized = answer >= 0 && state.status & libc::STA_UNSYNC == 0;
    judge_clock(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
        is_synchronized,
    )
}

fn judge_clock(since_1970: Duration, is_synchronized: bool) -> Check {
    /// The average of the Gregorian calendar.
    const SECONDS_A_YEAR: u64 = 31_556_952;
    /// Before this program was written.
    const EARLIEST: u64 = 2024;
    let name = "clock";
    let year = 1970 + since_1970.as_secs() / SECONDS_A_YEAR;
    let hint = "start a time service (chrony, systemd-timesyncd)";
    if year < EARLIEST {
        Check::fail(
            name,
            format!("the year is {year}: certificates are refused, logs cannot be compared"),
            hint,
        )
    } else if !is_synchronized {
        let found =
            "not synchronized; links work without it, but TLS and the comparison of logs need it";
        Check::warn(name, found, hint)
    } else {
        Check::ok(name, "synchronized")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

    #[test]
    fn root_needs_its_capabilities() {
        let verdict = |root, text| judge_rights(root, text).verdict;
        assert_eq!(verdict(true, "CapEff:\t000001ffffffffff\n"), Verdict::Ok);
        assert_eq!(verdict(false, "CapEff:\t000001ffffffffff\n"), Verdict::Fail);
        let check = judge_rights(true, "Name: x\nCapEff:\t00000000a80435fb\n");
        assert!(check.found == "root without CAP_SYS_ADMIN", "{check}");
    }

    #[test]
    fn each_missing_feature_is_named() {
        let checks = judge_features(
            Ok(Capabilities {
                veth: true,
                vxlan: false,
            }),
            false,
        );
        let verdicts: Vec<_> = checks.iter().map(|check| check.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Fail, Verdict::Warn]);
        assert!(checks[1].hint.contains("modprobe vxlan"), "{}", checks[1]);
        let refused = KernelError::Refused {
            doing: "x".into(),
            errno: nix::errno::Errno::EPERM,
            reason: None,
        };
        assert_eq!(judge_features(Err(refused), true)[0].verdict, Verdict::Fail);
    }

    #[test]
    fn an_underlay_must_be_there_and_have_room() {
        let underlay = |address: &str, mtu| {
            let address = address.parse().unwrap();
            Ok(Underlay {
                interface: "eth0".into(),
                index: 2,
                address,
                mtu,
                addresses: vec![],
            })
        };
        let verdicts =
            |checks: Vec<Check>| checks.iter().map(|check| check.verdict).collect::<Vec<_>>();
        let well = judge_underlay(underlay("10.0.0.1", 1500), None);
        assert!(well[1].found.contains("leaves 1450"), "{}", well[1]);
        assert_eq!(verdicts(well), [Verdict::Ok, Verdict::Ok]);
        assert_eq!(
            verdicts(judge_underlay(underlay("127.0.0.1", 65_536), None)),
            [Verdict::Warn, Verdict::Ok]
        );
        assert_eq!(
            verdicts(judge_underlay(underlay("10.0.0.1", 1320), None)),
            [Verdict::Ok, Verdict::Warn]
        );
        let mtu = Mtu::try_from(1500).ok();
        assert_eq!(
            verdicts(judge_underlay(underlay("10.0.0.1", 1500), mtu)),
            [Verdict::Ok, Verdict::Fail]
        );
        assert_eq!(
            verdicts(judge_underlay(Err(UnderlayError::NoDefaultRoute), None)),
            [Verdict::Fail]
        );
    }

    #[test]
    fn a_clock_that_is_off_is_seen() {
        assert_eq!(
            judge_clock(Duration::from_secs(10), true).verdict,
            Verdict::Fail
        );
        let now = Duration::from_secs(1_800_000_000);
        assert_eq!(judge_clock(now, false).verdict, Verdict::Warn);
        assert_eq!(judge_clock(now, true).verdict, Verdict::Ok);
    }
}
