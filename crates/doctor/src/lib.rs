//! `ratchet doctor`: examines the node and says what its links lack and what to do about it.
//!
//! The checks only read. They do not create an SQLite store that does not exist yet; that is the
//! agent's part. Each check has a function that reads and a function that judges what was read, so
//! that the second can be tested.

mod agent;
mod cni_dir;
mod exposure;
mod filter;
mod kubernetes;
mod node;
mod owners;
mod permissions;
mod port;

use std::{
    fmt::{self, Write as _},
    path::PathBuf,
};

use clap::Args;
use ratchet_plugin::ConfigSummary;
use ratchet_protocol::SOCKET_VARIABLE;

/// The options of `ratchet doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorOptions {
    /// The container runtime's directory of network configs
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub cni_dir: PathBuf,
    /// The container runtime's directory of plugins; may be given more than once
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub cni_bin: Vec<PathBuf>,
    /// The agent's socket [default: from the network config, or /run/ratchet/agent.sock]
    #[arg(long, env = SOCKET_VARIABLE, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing is wrong.
    Ok,
    /// Links work, but with limits; or the check could not find out.
    Warn,
    /// Links do not work.
    Fail,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty if there is nothing to do.
    pub hint: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            found: found.into(),
            hint: String::new(),
        }
    }

    fn warn(name: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Warn,
            found: found.into(),
            hint: hint.into(),
        }
    }

    fn fail(name: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Fail,
            found: found.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.verdict {
            Verdict::Ok => '✓',
            Verdict::Warn => '!',
            Verdict::Fail => '✗',
        };
        write!(f, "{mark} {}: {}", self.name, self.found)?;
        if self.hint.is_empty() {
            Ok(())
        } else {
            write!(f, "\n    {}", self.hint)
        }
    }
}

/// Runs all checks.
pub fn examine(options: &DoctorOptions) -> Vec<Check> {
    let mut checks = node::rights();
    checks.extend(node::features());
    let (configs, config) = cni_dir::look(&options.cni_dir, &options.cni_bin);
    let config: Option<ConfigSummary> = config;
    let settings = config.as_ref().map(|config| config.settings.clone());
    let local = config.map(|config| config.local).unwrap_or_default();
    let socket = options.socket.as_deref().unwrap_or(local.socket());
    let agent = agent::ask(socket);
    // The agent's own settings count. Without an agent, those with which the config will start it.
    let effective = agent.settings().or(settings.clone()).unwrap_or_default();
    let effective = effective.or_defaults();
    checks.extend(node::underlay(&effective));
    checks.push(port::look());
    checks.extend(filter::look(agent.tunnels()));
    checks.extend(configs);
    checks.extend(agent.checks(settings.as_ref()));
    checks.extend(agent.store(&effective));
    checks.extend(kubernetes::look(&effective));
    checks.extend(exposure::look(&effective));
    checks.extend(permissions::look(
        socket,
        local.state_dir(),
        &local.node_key(),
    ));
    checks.extend(owners::look(local.state_dir()));
    checks.push(node::clock());
    checks
}

/// The checks as text, and whether none has failed.
pub fn report(checks: &[Check]) -> (String, bool) {
    let mut text = String::new();
    for check in checks {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{check}");
    }
    let count = |verdict| {
        checks
            .iter()
            .filter(|check| check.verdict == verdict)
            .count()
    };
    let (failed, warned) = (count(Verdict::Fail), count(Verdict::Warn));
    let (failures, warnings) = (number(failed, "failure"), number(warned, "warning"));
    let _ = writeln!(text, "\n{failures}, {warnings}");
    (text, failed == 0)
}

fn number(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_to_do_and_counts_failures_and_warnings() {
        let (ok, warn) = (
            Check::ok("root", "yes"),
            Check::warn("clock", "adrift", "start chrony"),
        );
        assert_eq!(
            report(std::slice::from_ref(&ok)),
            ("✓ root: yes\n\n0 failures, 0 warnings\n".into(), true)
        );
        let (text, good) = report(&[ok.clone(), warn]);
        assert!(
            good && text.ends_with("! clock: adrift\n    start chrony\n\n0 failures, 1 warning\n"),
            "{text}"
        );
        let (text, good) = report(&[ok, Check::fail("veth", "none", "load it")]);
        assert!(
            !good && text.ends_with("✗ veth: none\n    load it\n\n1 failure, 0 warnings\n"),
            "{text}"
        );
    }
}
