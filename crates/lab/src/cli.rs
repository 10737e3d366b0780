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
    /// Reads Pods, Nodes and ConfigMaps (YAML or JSON, several documents, Lists; other kinds are
    /// skipped with a note). Makes a network namespace for each node, with eth0 on a common
    /// underlay and a ratchet agent inside; then a sandbox for each pod, for which it calls the
    /// plugin by CNI as a container runtime would.
    ///
    /// The namespace, interfaces and sysctls of the host itself stay as they are: the underlay is a
    /// bridge in a namespace of its own. When something fails, and on Ctrl-C, all that was made is
    /// removed again.
    #[command(after_long_help = UP_NOTES)]
    Up(UpArgs),

    /// Remove a lab and everything in it
    ///
    /// Ends all processes that live in the lab's pods, calls the plugin's DEL for each pod, stops
    /// the agents, removes the network namespaces and the files. Also clears what an `up` left that
    /// was killed in the middle, and works when agents have died. It ends only processes that are
    /// proved to be the lab's. Exit code 1 when there is no such lab, or when something could not
    /// be removed: then the rest stays listed, and `down` can be run again.
    Down(DownArgs),

    /// Show a lab's nodes, pods and links
    ///
    /// Prints the nodes with their agents, the pods with their namespaces, then the table of
    /// `ratchet links` of each node. Exit code 1 when there is no such lab, or an agent is not
    /// running.
    Status(StatusArgs),

    /// Run a command inside a pod
    ///
    /// The command is one of this machine's programs. It sees the pod's network, hostname,
    /// ConfigMap volumes and the pod's own /run, and is connected to this terminal; its exit code
    /// becomes this command's. 127 says that there is no such program. Without a command, a shell
    /// is started.
    #[command(after_long_help = EXEC_NOTES)]
    Exec(ExecArgs),
}

/// What `ratchet lab up` takes.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// The manifest; - reads standard input
    pub file: PathBuf,

    /// The lab's name: the prefix of its network namespaces, so that several labs live side by side
    #[arg(long, default_value = DEFAULT_NAME, value_parser = parse_name)]
    pub name: String,

    /// The underlay's network; nodes get its addresses in order. Its traffic never leaves the lab
    #[arg(long, value_name = "CIDR", default_value = "10.89.0.0/24")]
    pub underlay_cidr: IpNet,

    /// How many nodes to make when the file says nothing at all about nodes
    #[arg(
        long,
        value_name = "N",
        default_value_t = 2,
        value_parser = clap::value_parser!(u16).range(1..=1000),
    )]
    pub nodes: u16,

    /// Where the CNI plugins are, as in CNI_PATH; the directory of the ratchet binary is added
    #[arg(long, value_name = "DIRS", default_value = "/opt/cni/bin:/usr/lib/cni")]
    pub cni_path: String,

    /// How much the agents write to their logs: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
}

/// What `ratchet lab down` takes.
#[derive(Debug, Args)]
pub struct DownArgs {
    /// The lab's name
    #[arg(long, default_value = DEFAULT_NAME, value_parser = parse_name)]
    pub name: String,
}

/// What `ratchet lab status` takes.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The lab's name
    #[arg(long, default_value = DEFAULT_NAME, value_parser = parse_name)]
    pub name: String,
}

/// What `ratchet lab exec` takes.
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
Where a pod goes: \
spec.nodeName names its node; else spec.nodeSelector is matched with the labels of the file's Node \
documents; a pod \
without either goes where the fewest pods are. A file without any Node (such as one written for a \
real cluster, whose \
nodes are there already) gets its nodes invented: one for each distinct nodeName, and one, node1, \
node2 and so on, for \
each distinct nodeSelector, in sorted order.

What runs in a pod: \
images are not run. The annotation ratchet.dev/lab-run holds a script, run by /bin/sh after the \
pod's ADD: it uses this \
machine's programs inside the pod's network namespace, with the pod's name as hostname, ConfigMap \
volumes at their \
mountPath, and a /run of its own. Its output goes to \
/run/ratchet/lab/NAME/pods/NAMESPACE_POD/run.log.

Needs: root, iproute2, and CNI's loopback plugin (Debian: containernetworking-plugins). The exit \
code is 1 when the \
lab could not be made, 130 after Ctrl-C and 143 after SIGTERM; in each case nothing is left of it.

Examples:
  ratchet lab up examples/cloud-router.yaml
  ratchet lab up --name second --underlay-cidr 10.90.0.0/24 my-pods.yaml";

const EXEC_NOTES: &str = "\
Examples:
  ratchet lab exec centosa -- ping -c 3 192.168.4.101
  ratchet lab exec quagga-a -- vtysh -c 'show ip ospf neighbor'
  ratchet lab exec --name second blue/web -- ip address";

/// A lab's name becomes part of file, namespace and process names: short and plain.
fn parse_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 32 || !text.chars().all(plain) || text.starts_with('-') {
        return Err(
            "expected 1 to 32 lower case letters, digits and '-', not starting with '-'".into(),
        );
    }
    Ok(text.to_owned())
}

/// ` --name NAME` for a hint, nothing for the default name.
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
