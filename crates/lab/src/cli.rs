//! The commands of `ratchet lab` and their help.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ipnet::IpNet;

/// The lab's name when none is given.
pub(crate) const DEFAULT_NAME: &str = "lab";

/// Run pods and their links on this machine, without Kubernetes.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Bring up the pods of a Kubernetes manifest on simulated nodes
    ///
    /// Reads Pods, Nodes and ConfigMaps (YAML or JSON; several documents and Lists are allowed) and
    /// skips other kinds with a note. For each node it makes a network namespace with eth0 on a
    /// common underlay, and starts a ratchet agent in it. For each pod it makes a sandbox and calls
    /// the plugin by CNI, as a container runtime would.
    ///
    /// The machine's own namespace, interfaces and sysctls stay as they are: the underlay is a
    /// bridge in a separate namespace. When a step fails, and on Ctrl-C, everything that was made
    /// is removed again.
    #[command(after_long_help = UP_NOTES)]
    Up(UpArgs),

    /// Remove a lab and everything in it
    ///
    /// Ends all processes in the lab's pods, calls the plugin's DEL for each pod, stops the agents,
    /// and removes the network namespaces and the files. It also removes what a killed `up` left,
    /// and it works when agents have died. It ends only processes that are proved to be the lab's.
    /// The exit code is 1 when there is no such lab, or when something could not be removed: then
    /// the rest stays on record, and you can run `down` again.
    Down(DownArgs),

    /// Show a lab's nodes, pods and links
    ///
    /// Prints the nodes with their agents, the pods with their namespaces, then the table of
    /// `ratchet links` of each node. The exit code is 1 when there is no such lab, or when an agent
    /// is not running.
    Status(StatusArgs),

    /// Run a command inside a pod
    ///
    /// The command is one of this machine's programs. It sees the pod's network, hostname,
    /// ConfigMap volumes and the pod's own /run, and it uses this terminal. Its exit code becomes
    /// this command's; 127 means that there is no such program. Without a command, a shell is
    /// started.
    #[command(after_long_help = EXEC_NOTES)]
    Exec(ExecArgs),
}

/// The arguments of `ratchet lab up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// The manifest; - reads standard input
    pub file: PathBuf,

    /// The lab's name: the prefix of its network namespaces, so that several labs can run at a time
    #[arg(long, default_value = DEFAULT_NAME, value_parser = parse_name)]
    pub name: String,

    /// The underlay's network; nodes get its addresses in order. Its traffic never leaves the lab
    #[arg(long, value_name = "CIDR", default_value = "10.89.0.0/24")]
    pub underlay_cidr: IpNet,

    /// How many nodes to make when the file says nothing about nodes
    #[arg(
        long,
        value_name = "N",
        default_value_t = 2,
        value_parser = clap::value_parser!(u16).range(1..=1000),
    )]
    pub nodes: u16,

    /// Where to look for CNI plugins, as in CNI_PATH; the directory of the ratchet binary is added
    #[arg(long, value_name = "DIRS", default_value = "/opt/cni/bin:/usr/lib/cni")]
    pub cni_path: String,

    /// The level of the agents' logs: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
}

/// The arguments of `ratchet lab down`.
#[derive(Debug, Args)]
pub struct DownArgs {
    /// The lab's name
    #[arg(long, default_value = DEFAULT_NAME, value_parser = parse_name)]
    pub name: String,
}

/// The arguments of `ratchet lab status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The lab's name
    #[arg(long, default_value = DEFAULT_NAME, value_parser = parse_name)]
    pub name: String,
}

/// The arguments of `ratchet lab exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// The lab's name
    #[arg(long, default_value = DEFAULT_NAME, value_parser = parse_name)]
    pub name: String,

    /// The pod, as NAME or NAMESPACE/NAME
    pub pod: String,

    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

// A paragraph is one line here: clap wraps it to the terminal.
const UP_NOTES: &str = "\
Where a pod runs: spec.nodeName names its node. Without it, spec.nodeSelector is matched with the \
labels of the file's Node documents. A pod with neither goes to the node with the fewest pods. If \
the file has no Node documents (a file for a real cluster has none), the lab makes up the nodes: \
one for each distinct nodeName, and one (node1, node2 and so on) for each distinct nodeSelector, \
in sorted order.

What runs in a pod: images are not run. The annotation ratchet.dev/lab-run holds a script, which \
/bin/sh runs after the pod's ADD. The script uses this machine's programs in the pod's network \
namespace, with the pod's name as hostname, ConfigMap volumes at their mountPath, and a /run of \
its own. Its output goes to /run/ratchet/lab/NAME/pods/NAMESPACE_POD/run.log.

Needs: root, iproute2, and the CNI plugin loopback (Debian: containernetworking-plugins). The exit \
code is 1 when the lab could not be made, 130 after Ctrl-C and 143 after SIGTERM; in each case \
nothing of it is left.

Examples:
  ratchet lab up examples/cloud-router.yaml
  ratchet lab up --name second --underlay-cidr 10.90.0.0/24 my-pods.yaml";

const EXEC_NOTES: &str = "\
Examples:
  ratchet lab exec centosa -- ping -c 3 192.168.4.101
  ratchet lab exec quagga-a -- vtysh -c 'show ip ospf neighbor'
  ratchet lab exec --name second blue/web -- ip address";

/// Checks a lab's name. It becomes part of file and namespace names, so it is short and plain.
fn parse_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 32 || !text.chars().all(plain) || text.starts_with('-') {
        return Err(
            "expected 1 to 32 lower case letters, digits and '-', not starting with '-'".into(),
        );
    }
    Ok(text.to_owned())
}

/// ` --name NAME` for a hint; empty for the default name.
pub(crate) fn name_option(name: &str) -> String {
    if name == DEFAULT_NAME {
        String::new()
    } else {
        format!(" --name {name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(subcommand)]
        command: LabCommand,
    }

    #[test]
    fn exec_takes_the_commands_own_options() {
        let cli = Cli::try_parse_from(["lab", "exec", "--name", "x", "a", "--", "ping", "-c", "1"])
            .unwrap();
        let LabCommand::Exec(args) = cli.command else {
            panic!("{cli:?}")
        };
        assert_eq!((args.name.as_str(), args.pod.as_str()), ("x", "a"));
        assert_eq!(args.command, ["ping", "-c", "1"]);
    }

    #[test]
    fn names_that_would_leave_the_labs_directory_are_refused() {
        for bad in ["", "..", "a/b", "-x", "UP", &"x".repeat(33)] {
            let error = Cli::try_parse_from(["lab", "down", &format!("--name={bad}")]).unwrap_err();
            assert!(
                error.to_string().contains("expected 1 to 32") || bad.is_empty(),
                "{error}"
            );
        }
    }

    #[test]
    fn the_hint_leaves_the_default_name_out() {
        assert_eq!(name_option("lab"), "");
        assert_eq!(name_option("x"), " --name x");
    }
}
