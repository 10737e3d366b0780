//! The command line's words.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ratchet_agent::AgentOptions;
use ratchet_doctor::DoctorOptions;
use ratchet_lab::LabCommand;
use ratchet_model::NodeName;
use ratchet_protocol::DEFAULT_SOCKET;

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
    /// One agent a node knows the node's sandboxes, shares them with the other nodes through the
    /// store, and makes the links. The plugin starts one by itself when none answers; started by
    /// hand, by systemd or as a DaemonSet, the agent takes over from such a one without dropping a
    /// link.
    Agent(Box<AgentOptions>),

    /// Show the node's links: both ends, nodes, kind, VNI, MTU, state, and the reason when one is
    /// not up
    Links(LinksOptions),

    /// Forget a node that is gone for good: remove its pods, as if the runtime had deleted them
    ///
    /// Asks the agent of this node, which must be another one. Links of the lost node's pods end,
    /// and their VNIs are free again, once the pods at the other ends have gone, too. With etcd
    /// this happens by itself when nobody has heard of a node for its `node_timeout`, and is
    /// refused before; with another store say --force. A node that comes back all the same
    /// publishes its pods again, and their links go on.
    ForgetNode(ForgetNodeOptions),

    /// Look at this node and say what is missing for links, and what to do about it
    ///
    /// Checks rights, kernel, underlay and MTU, UDP 4789, the runtime's network configs, the agent
    /// and its settings, the store, permissions and the clock. Changes nothing. The exit status is
    /// 1 if something must be mended.
    Doctor(DoctorOptions),

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
    /// How to show them
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Go on, and show them again after every change
    #[arg(short, long)]
    pub watch: bool,
    /// The agent's socket
    #[arg(long, env = "RATCHET_SOCKET", value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ForgetNodeOptions {
    /// The node's name, as `ratchet links` shows it
    pub node: NodeName,
    /// Also when its agent was heard of lately, or when that cannot be known
    #[arg(long)]
    pub force: bool,
    /// The agent's socket
    #[arg(long, env = "RATCHET_SOCKET", value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table with the essentials
    Table,
    /// A table with addresses, MACs, link ids and who declared what, too
    Wide,
    /// JSON, one document (with --watch: one a line)
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
