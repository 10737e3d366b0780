//! UDP port 4789: which program uses it, and which VXLAN devices share it.
//!
//! VXLAN devices of one namespace share one socket per port if their options agree. A device in
//! "external" mode (OVS, Cilium), with GBP or with GPE does not share. No process has the kernel's
//! own VXLAN socket open; that is how it differs from a program's socket.

use std::{collections::HashMap, fs};

use ratchet_kernel::{Kernel, NodeTunnel};
use ratchet_model::device::VXLAN_PORT;

use crate::Check;

const NAME: &str = "UDP 4789";

/// A socket on the port, and the process that has it open, if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Taken {
    inode: u64,
    process: Option<String>,
}

/// Checks the port.
pub(crate) fn look() -> Check {
    let tunnels = match Kernel::new().and_then(|kernel| kernel.tunnels()) {
        Ok(tunnels) => tunnels,
        Err(error) => return Check::warn(NAME, error.to_string(), "run this as root"),
    };
    let tables = ["/proc/self/net/udp", "/proc/self/net/udp6"]
        .map(|path| fs::read_to_string(path).unwrap_or_default());
    let inodes: Vec<u64> = tables
        .iter()
        .flat_map(|table| sockets_on(table, VXLAN_PORT))
        .collect();
    let mut holders = if inodes.is_empty() {
        HashMap::new()
    } else {
        holders()
    };
    let taken: Vec<Taken> = inodes
        .into_iter()
        .map(|inode| Taken {
            inode,
            process: holders.remove(&inode),
        })
        .collect();
    judge(&taken, &tunnels)
}

/// The inodes of the sockets on a port, from a table as /proc/net/udp has it
/// (Documentation/networking/proc_net_tcp.rst).
fn sockets_on(table: &str, port: u16) -> Vec<u64> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (_, local) = words.get(1)?.rsplit_once(':')?;
            (u16::from_str_radix(local, 16).ok()? == port).then(|| words.get(9)?.parse().ok())?
        })
        .collect()
}

/// Processes by the inodes of the sockets that they have open.
fn holders() -> HashMap<u64, String> {
    let mut holders = HashMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes.filter(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .bytes()
            .all(|b| b.is_ascii_digit())
    }) {
        let path = process.path();
        let descriptors = fs::read_dir(path.join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        for target in descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok()) {
            let target = target.to_string_lossy();
            let inode = target
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode {
                holders.entry(inode).or_insert_with(|| {
                    let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
                    format!(
                        "{} (pid {})",
                        name.trim(),
                        process.file_name().to_string_lossy()
                    )
                });
            }
        }
    }
    holders
}

fn judge(taken: &[Taken], tunnels: &[NodeTunnel]) -> Check {
    let programs: Vec<&str> = taken
        .iter()
        .filter_map(|taken| taken.process.as_deref())
        .collect();
    if !programs.is_empty() {
        return Check::fail(
            NAME,
            format!(
                "{} uses the port: no tunnel can be set up",
                programs.join(", ")
            ),
            "stop that program, or have it use another port; VXLAN's port is 4789 (RFC 7348)",
        );
    }
    let others: Vec<&NodeTunnel> = tunnels
        .iter()
        .filter(|tunnel| tunnel.port == VXLAN_PORT && !tunnel.is_ours)
        .collect();
    if let Some(exclusive) = others
        .iter()
        .find(|tunnel| tunnel.is_exclusive && tunnel.is_up)
    {
        return Check::fail(
            NAME,
            format!(
                "VXLAN device {} (external, GBP or GPE) uses the port and does not share it: no \
                 tunnel can be set up",
                exclusive.name
            ),
            "have its owner (OVS, Cilium, a cloud agent) use another UDP port, such as 8472",
        );
    }
    if !others.is_empty() {
        let list: Vec<String> = others
            .iter()
            .map(|tunnel| format!("{} (VNI {})", tunnel.name, tunnel.vni))
            .collect();
        return Check::warn(
            NAME,
            format!("shared with {}", list.join(", ")),
            "links get other VNIs, and a link that declares one of these cannot be made here. Give \
             the other network another port if you can",
        );
    }
    match taken.is_empty() {
        true => Check::ok(NAME, "free"),
        false => Check::ok(NAME, "in use by the kernel, for tunnels of pods"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

    const TABLE: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when \
    retrnsmt   uid  timeout inode ref pointer drops\n\
         6075: 00000000:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        \
         0 659128 2 000000004b22d615 0\n\
         6076: 00000000:12B6 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        \
         0 659129 2 000000004b22d615 0\n\
         garbage\n";
    const TABLE6: &str = "head\n 1: 00000000000000000000000000000000:12B5 \
                          00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 \
                          00000000     0        0 17 2 0 0\n";

    fn tunnel(vni: u32, is_ours: bool, is_exclusive: bool) -> NodeTunnel {
        NodeTunnel {
            name: "vxlan.calico".into(),
            vni,
            port: 4789,
            is_ours,
            is_exclusive,
            is_up: true,
        }
    }

    #[test]
    fn sockets_are_read_from_the_tables() {
        assert_eq!(sockets_on(TABLE, 4789), [659_128]);
        assert_eq!(sockets_on(TABLE6, 4789), [17]);
        assert_eq!(sockets_on("", 4789), [0_u64; 0]);
    }

    #[test]
    fn a_program_is_told_from_the_kernel() {
        let kernels = Taken {
            inode: 1,
            process: None,
        };
        let programs = Taken {
            inode: 2,
            process: Some("nc (pid 9)".into()),
        };
        assert_eq!(judge(&[], &[]).verdict, Verdict::Ok);
        assert_eq!(
            judge(std::slice::from_ref(&kernels), &[tunnel(11, true, false)]).verdict,
            Verdict::Ok
        );
        let check = judge(&[kernels, programs], &[]);
        assert!(
            check.verdict == Verdict::Fail && check.found.contains("nc (pid 9)"),
            "{check}"
        );
    }

    #[test]
    fn others_devices_are_warned_of_and_exclusive_ones_fatal() {
        let check = judge(&[], &[tunnel(4096, false, false)]);
        assert!(
            check.verdict == Verdict::Warn && check.found.contains("vxlan.calico (VNI 4096)"),
            "{check}"
        );
        assert_eq!(judge(&[], &[tunnel(0, false, true)]).verdict, Verdict::Fail);
        assert_eq!(
            judge(
                &[],
                &[NodeTunnel {
                    port: 8472,
                    ..tunnel(1, false, true)
                }]
            )
            .verdict,
            Verdict::Ok
        );
    }
}
