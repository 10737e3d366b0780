//! Whether the agent answers, whether it agrees with the config, and whether the store can be
//! reached.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use ratchet_model::device::LinkKind;
use ratchet_protocol::{
    Client, ClientError, DEFAULT_STORE, Hello, LinkReport, LinkState, Reply, Request, Settings,
};
use ratchet_store::{StoreOptions, StoreUrl};

use crate::Check;

/// How long agent and store may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Our own version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The agent's answer, if there is one.
pub(crate) struct Agent {
    socket: PathBuf,
    hello: Result<Hello, ClientError>,
}

/// Asks the agent for its version and settings.
pub(crate) fn ask(socket: &Path) -> Agent {
    let hello = match Client::call(socket, &Request::Hello, TIMEOUT) {
        Ok(Reply::Hello(hello)) => Ok(*hello),
        Ok(other) => Err(ClientError::Garbled {
            socket: socket.to_owned(),
            problem: format!("{other:?}"),
        }),
        Err(error) => Err(error),
    };
    Agent {
        socket: socket.to_owned(),
        hello,
    }
}

impl Agent {
    /// The agent's settings.
    pub fn settings(&self) -> Option<Settings> {
        self.hello.as_ref().ok().map(|hello| hello.settings.clone())
    }

    /// Whether the agent answers and agrees with the config.
    pub fn checks(&self, config: Option<&Settings>) -> Vec<Check> {
        let mut checks = vec![judge_agent(&self.socket, &self.hello)];
        if let (Ok(hello), Some(config)) = (&self.hello, config) {
            checks.push(judge_settings(hello, config));
        }
        checks
    }

    /// How many tunnels of its links are up, if it says so.
    pub fn tunnels(&self) -> Option<usize> {
        self.hello.as_ref().ok()?;
        let asked = Request::Links { watch: false };
        let Ok(Reply::Links(links)) = Client::call(&self.socket, &asked, TIMEOUT) else {
            return None;
        };
        let is_tunnel = |link: &&LinkReport| {
            link.kind.as_deref() == Some(LinkKind::Vxlan.as_str()) && link.state == LinkState::Up
        };
        Some(links.links.iter().filter(is_tunnel).count())
    }

    /// Whether the store can be used: the agent's answer, or without an agent, whether the store
    /// can be opened. Of the Kubernetes API, other checks say more.
    pub fn store(&self, settings: &Settings) -> Option<Check> {
        let store = settings.store.as_deref().unwrap_or(DEFAULT_STORE);
        if self.hello.is_ok() {
            let asked = Request::Status {
                settings: Settings::default(),
            };
            return Some(judge_store(
                store,
                "the agent reaches it",
                outcome(Client::call(&self.socket, &asked, TIMEOUT)),
            ));
        }
        Some(match store.parse::<StoreUrl>() {
            Err(error) => judge_store(store, "", Err(error.to_string())),
            Ok(StoreUrl::Kubernetes) => return None,
            // The agent creates a file that does not exist.
            Ok(StoreUrl::Sqlite(path)) if !path.exists() => Check::ok(
                "store",
                format!("{store} does not exist yet; the agent will create it"),
            ),
            Ok(url) => {
                let options = StoreOptions::new(url, settings.entries());
                judge_store(store, "it answers", try_out(&options))
            }
        })
    }
}

/// The result of a request that only succeeds or fails.
fn outcome(reply: Result<Reply, ClientError>) -> Result<(), String> {
    match reply {
        Ok(Reply::Done) => Ok(()),
        Ok(Reply::Error(failure)) => Err(failure.message),
        Ok(other) => Err(format!("{other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Opens the store and reads no records.
fn try_out(options: &StoreOptions) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let read = async {
            let store = ratchet_store::open(options).await?;
            store.read(&BTreeSet::new()).await
        };
        match tokio::time::timeout(TIMEOUT, read).await {
            Ok(read) => read.map(drop).map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
        }
    })
}

fn judge_agent(socket: &Path, hello: &Result<Hello, ClientError>) -> Check {
    let name = "agent";
    let hello = match hello {
        Ok(hello) => hello,
        Err(ClientError::NoAgent { cause, .. }) => {
            let found = format!("none answers on {} ({cause})", socket.display());
            return Check::warn(
                name,
                found,
                "the plugin starts an agent for the first pod that has links; to have one always: \
                 systemctl enable --now ratchet",
            );
        }
        Err(error) => {
            return Check::fail(name, error.to_string(), "read its log, and restart it");
        }
    };
    let kind = if hello.managed {
        "managed"
    } else {
        "started on demand by the plugin"
    };
    let found = format!("version {}, pid {}, {kind}", hello.version, hello.pid);
    if hello.version == VERSION {
        Check::ok(name, found)
    } else {
        Check::warn(
            name,
            format!("{found}; this program is version {VERSION}"),
            "restart the agent; this does not touch links",
        )
    }
}

fn judge_settings(hello: &Hello, config: &Settings) -> Check {
    let name = "agent and config";
    let differences = hello.settings.differences(config);
    if differences.is_empty() {
        return Check::ok(name, "they agree");
    }
    let texts: Vec<String> = differences.iter().map(ToString::to_string).collect();
    let found = texts.join(", ");
    if !hello.managed {
        let hint = "do nothing: the agent takes the config's values with the next pod that has \
                    links";
        return Check::warn(name, found, hint);
    }
    let options = differences.iter().filter_map(|difference| {
        let option = difference.setting.option?;
        Some(format!("--{} ({})", option.flag, option.variable))
    });
    let options = options.collect::<Vec<_>>().join(", ");
    let hint =
        format!("restart the agent with the config's value for {options}, or correct the config");
    Check::fail(name, found, hint)
}

fn judge_store(store: &str, how: &str, outcome: Result<(), String>) -> Check {
    match outcome {
        Ok(()) => Check::ok("store", format!("{store}: {how}")),
        Err(problem) => {
            let known = problem.contains(store);
            let found = if known {
                problem
            } else {
                format!("{store}: {problem}")
            };
            Check::fail(
                "store",
                found,
                "new links wait until the store can be reached; existing links keep working",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

    fn hello(version: &str, managed: bool) -> Hello {
        let settings = Settings {
            store: Some("sqlite:/a".into()),
            ..Settings::default()
        };
        Hello {
            version: version.into(),
            protocols: vec![1],
            pid: 7,
            managed,
            settings,
        }
    }

    #[test]
    fn an_agent_of_another_version_is_to_be_restarted() {
        let socket = Path::new("/s");
        assert_eq!(
            judge_agent(socket, &Ok(hello(VERSION, true))).verdict,
            Verdict::Ok
        );
        let other = judge_agent(socket, &Ok(hello("0.0.1", false)));
        assert!(
            other.verdict == Verdict::Warn && other.found.contains("0.0.1"),
            "{other}"
        );
        let broken = ClientError::Garbled {
            socket: socket.into(),
            problem: "x".into(),
        };
        assert_eq!(judge_agent(socket, &Err(broken)).verdict, Verdict::Fail);
        assert_eq!(
            ask(Path::new("/nowhere/at/all")).checks(None)[0].verdict,
            Verdict::Warn
        );
    }

    #[test]
    fn only_a_managed_agent_insists_on_its_settings() {
        let config = Settings {
            store: Some("sqlite:/b".into()),
            ..Settings::default()
        };
        assert_eq!(
            judge_settings(&hello(VERSION, true), &Settings::default()).verdict,
            Verdict::Ok
        );
        let check = judge_settings(&hello(VERSION, true), &config);
        assert!(
            check.verdict == Verdict::Fail && check.found.contains("sqlite:/b"),
            "{check}"
        );
        assert!(check.hint.contains("--store (RATCHET_STORE)"), "{check}");
        assert_eq!(
            judge_settings(&hello(VERSION, false), &config).verdict,
            Verdict::Warn
        );
    }

    #[test]
    fn the_store_and_the_table_of_settings_have_the_same_defaults() {
        let url: StoreUrl = "etcd://h".parse().unwrap();
        let table = Settings::default().or_defaults();
        let options = StoreOptions::new(url.clone(), table.entries());
        assert_eq!(options, StoreOptions::from(url));
    }

    #[test]
    fn a_store_is_named_once_and_not_made() {
        let check = judge_store("etcd://a", "", Err("store etcd://a: refused".into()));
        assert_eq!(check.found, "store etcd://a: refused");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.db");
        let settings = |store: String| Settings {
            store: Some(store),
            ..Settings::default()
        };
        let absent = ask(Path::new("/nowhere/at/all"));
        assert_eq!(
            absent
                .store(&settings(format!("sqlite:{}", path.display())))
                .unwrap()
                .verdict,
            Verdict::Ok
        );
        assert!(!path.exists());
        std::fs::write(
            &path,
            "no database, and long enough to be seen as none ".repeat(20),
        )
        .unwrap();
        assert_eq!(
            absent
                .store(&settings(format!("sqlite:{}", path.display())))
                .unwrap()
                .verdict,
            Verdict::Fail
        );
        assert_eq!(
            absent.store(&settings("redis://a".into())).unwrap().verdict,
            Verdict::Fail
        );
        assert_eq!(absent.store(&settings("kubernetes".into())), None);
    }
}
