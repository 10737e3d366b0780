//! The command line and its help. What a command does is in other modules and crates.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ratchet_agent::AgentOptions;
use ratchet_controller::Options as ControllerOptions;
use ratchet_doctor::DoctorOptions;
use ratchet_install::{CONFIGS, CONFIGS_VARIABLE};
use ratchet_lab::LabCommand;
use ratchet_model::NodeName;
use ratchet_protocol::{DEFAULT_SOCKET, SOCKET_VARIABLE};

/// Direct layer-2 links between pods: a veth pair on one node, a VXLAN tunnel between two.
///
/// Ratchet is a CNI plugin and a node agent. Container runtimes call this program as the plugin
/// (with CNI_COMMAND set); people call it with one of the commands below.
#[derive(Debug, Parser)]
#[command(
    name = "ratchet",
    version,
    arg_required_else_help = true,
    max_term_width = 120
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the node's agent in the foreground
    ///
    /// Each node has one agent. It registers the node's sandboxes, shares them with the other nodes
    /// through the store, and makes the links. The plugin starts an agent if none answers. An agent
    /// that is started by hand, by systemd or as a DaemonSet takes over from that one without
    /// dropping a link.
    Agent(Box<AgentOptions>),

    /// Run the cluster's controller in the foreground
    ///
    /// It makes a Link for each link that Topologies and pods declare, with its pods, nodes and
    /// VNI, by the Kubernetes API. Links that are up need no controller. Of several, one leads: it
    /// holds a Lease.
    Controller(Box<ControllerOptions>),

    /// Show the node's links: both ends, nodes, kind, VNI, MTU, state, and why a link is not up
    Links(LinksOptions),

    /// Forget a node that is gone for good: remove its pods, as if the runtime had deleted them
    ///
    /// Run this on another node: that node's agent does it. The links of the lost node's pods end.
    /// Their VNIs are free again when the pods at the other ends are deleted, too. With etcd, a
    /// node is forgotten automatically when its agent has been offline for its `node_timeout`;
    /// before that, and with another store, this command needs --force. If the node returns later,
    /// it publishes its pods again and their links come up again.
    ForgetNode(ForgetNodeOptions),

    /// Check this node: print what is missing for links, and what to do about it
    ///
    /// Checks rights, kernel, underlay and MTU, UDP 4789, the runtime's network configs, the agent
    /// and its settings, the store, permissions and the clock. Changes nothing. The exit status is
    /// 1 if a check fails.
    Doctor(DoctorOptions),

    /// Remove the network config that `ratchet agent --install` has written
    ///
    /// Stop the agent first: it would write the config again. The runtime then takes the network's
    /// own config. Pods that run keep their links. The program stays in the directory of plugins,
    /// since the runtime calls it when these pods end.
    Uninstall {
        /// The directory of network configs
        #[arg(long, env = CONFIGS_VARIABLE, value_name = "DIR", default_value = CONFIGS)]
        cni_dir: PathBuf,
    },

    /// Run a topology on this machine, without Kubernetes: nodes and pods are network namespaces
    #[command(subcommand)]
    Lab(LabCommand),

    /// Print a completion script for a shell
    ///
    /// For bash: `ratchet completions bash > /etc/bash_completion.d/ratchet`
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct LinksOptions {
    /// The format
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Keep running, and show the links again after every change
    #[arg(short, long)]
    pub watch: bool,
    /// The agent's socket
    #[arg(long, env = SOCKET_VARIABLE, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ForgetNodeOptions {
    /// The node's name, as `ratchet links` shows it
    pub node: NodeName,
    /// Forget the node even if its agent was online lately, or if the store cannot tell
    #[arg(long)]
    pub force: bool,
    /// The agent's socket
    #[arg(long, env = SOCKET_VARIABLE, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table
    Table,
    /// The table with addresses, MACs, link ids and the pods that declare each link
    Wide,
    /// One JSON document (with --watch: one per line)
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
