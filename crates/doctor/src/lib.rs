//! `ratchet doctor`: looks at the node and says what is missing for its links, and what to do about
//! it.
//!
//! Every check reads and changes nothing, but that an SQLite store that does not exist yet may be
//! opened by its agent only: it is not made here. Each check is a function from what was read to a
//! [`Check`], so that its judgement can be tested; the reading is beside it.

mod agent;
mod cni_dir;
mod node;
mod permissions;
mod port;

use std::{
    fmt::{self, Write as _},
    path::PathBuf,
};

use clap::Args;
use ratchet_plugin::ConfigSummary;
use ratchet_protocol::SOCKET_VARIABLE;

/// What `ratchet doctor` takes.
#[derive(Debug, Clone, Args)]
pub struct DoctorOptions {
    /// Where the container runtime looks for network configs
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub cni_dir: PathBuf,
    /// Where the container runtime looks for plugins; may be given more than once
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub cni_bin: Vec<PathBuf>,
    /// The agent's socket [default: the network config's, else /run/ratchet/agent.sock]
    #[arg(long, env = SOCKET_VARIABLE, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Links work, but not all that they could be; or it could not be found out.
    Warn,
    /// Links do not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What.
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

/// Looks at the node.
pub fn examine(options: &DoctorOptions) -> Vec<Check> {
    let mut checks = node::rights();
    checks.extend(node::features());
    let (configs, config) = cni_dir::look(&options.cni_dir, &options.cni_bin);
    let config: Option<ConfigSummary> = config;
    let settings = config.as_ref().map(|config| config.settings.clone());
    let local = config.map(|config| config.local).unwrap_or_default();
    let socket = options.socket.as_deref().unwrap_or(local.socket());
    let agent = agent::ask(socket);
    // What counts for the node is what the agent runs with; without one, what the config will start
    // it with.
    let effective = agent.settings().or(settings.clone()).unwrap_or_default();
    let effective = effective.or_defaults();
    checks.extend(node::underlay(&effective));
    checks.push(port::look());
    checks.extend(configs);
    checks.extend(agent.checks(settings.as_ref()));
    checks.push(agent.store(&effective));
    checks.extend(permissions::look(socket, local.state_dir()));
    checks.push(node::clock());
    checks
}

/// The checks as text, and whether all is well enough: none has failed.
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
    let summary = match (failed, warned) {
        (0, 0) => "all is well".to_owned(),
        (0, warned) => format!("nothing that links need is missing; to look at: {warned}"),
        (failed, warned) => format!("to mend: {failed}; to look at: {warned}"),
    };
    let _ = writeln!(text, "\n{summary}");
    (text, failed == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_to_do_and_whether_to_do_it() {
        let (ok, warn) = (
            Check::ok("root", "yes"),
            Check::warn("clock", "adrift", "start chrony"),
        );
        assert_eq!(
            report(std::slice::from_ref(&ok)),
            ("✓ root: yes\n\nall is well\n".into(), true)
        );
        let (text, good) = report(&[ok.clone(), warn]);
        assert!(
            good && text.contains("! clock: adrift\n    start chrony\n"),
            "{text}"
        );
        let (text, good) = report(&[ok, Check::fail("veth", "none", "load it")]);
        assert!(
            !good && text.contains("✗ veth: none\n    load it\n\nto mend: 1; to look at: 0"),
            "{text}"
        );
    }
}
