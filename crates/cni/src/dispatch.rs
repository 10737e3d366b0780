//! The outside of a plugin: makes one call from the environment and stdin, and turns its outcome
//! into stdout and the exit status.
//!
//! Only this module prints, and it prints once, at the end.

use std::{
    any::Any,
    io::{Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use crate::{
    config::Config,
    delegate::Added,
    environment::Environment,
    error::Error,
    invocation::Invocation,
    json::Object,
    netns::is_own_netns,
    result::CniResult,
    version::{Verb, Version, numbers},
};

/// One call, checked.
#[derive(Debug, Clone)]
pub struct Request {
    /// The verb and the attachment.
    pub invocation: Invocation,
    /// The config from stdin.
    pub config: Config,
    /// The whole environment, for embedded plugins.
    pub env: Environment,
}

/// What ADD prints.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a process has only one")]
pub enum Output {
    /// These bytes, unchanged: an embedded plugin's own, see [`Output::pass_through`].
    Raw(Vec<u8>),
    /// This result, in the config's version.
    Result(CniResult),
}

impl Output {
    /// An embedded plugin's result as our own: byte for byte if it names the right version.
    pub fn pass_through(added: Added, version: Version) -> Self {
        if added.is_printable_as(version) {
            Self::Raw(added.stdout)
        } else {
            Self::Result(added.result)
        }
    }

    /// The document to print. Fails if the version cannot express the result, so call it while the
    /// ADD can still be undone.
    pub fn render(&self, version: Version) -> Result<Vec<u8>, Error> {
        match self {
            Self::Raw(bytes) => Ok(bytes.clone()),
            Self::Result(result) => {
                let mut json = result.clone().convert(version)?.to_json();
                json.push(b'\n');
                Ok(json)
            }
        }
    }
}

/// A plugin: what it does for each verb.
///
/// When a method is called, environment, config and version are checked, and for ADD and DEL
/// CNI_NETNS is not the plugin's own network namespace. Whether the namespace exists is not
/// checked.
pub trait Plugin {
    /// The text for a person who runs the program by hand.
    fn about(&self) -> String;

    /// The versions of configs that it accepts.
    fn supported(&self) -> &[Version] {
        &Version::ALL
    }

    /// Attaches the container.
    fn add(&self, request: &Request) -> Result<Output, Error>;

    /// Undoes an ADD that succeeded but whose result cannot be printed. The runtime is told that
    /// ADD failed.
    fn undo_add(&self, request: &Request) -> Result<(), Error> {
        self.del(request)
    }

    /// Detaches the container. Succeeds even if everything is missing.
    fn del(&self, request: &Request) -> Result<(), Error>;

    /// Compares what exists with `prevResult`.
    fn check(&self, request: &Request) -> Result<(), Error>;

    /// Removes what belongs to no valid attachment.
    fn gc(&self, request: &Request) -> Result<(), Error>;

    /// Returns whether ADD can be served.
    fn status(&self, request: &Request) -> Result<(), Error>;
}

/// A call's outcome before it is printed.
struct Reply {
    /// What goes to stdout; nothing for most verbs.
    stdout: Vec<u8>,
    /// The ADD to undo if printing fails.
    added: Option<Request>,
}

impl Reply {
    fn of(stdout: Vec<u8>) -> Self {
        Self {
            stdout,
            added: None,
        }
    }
}

/// Serves one call and returns the exit status: 0, or 1 with one error document on stdout.
pub fn run(
    plugin: &(impl Plugin + ?Sized),
    env: &Environment,
    stdin: impl Read,
    mut stdout: impl Write,
    mut stderr: impl Write,
) -> u8 {
    if env.get("CNI_COMMAND").is_none() {
        let versions: Vec<_> = plugin
            .supported()
            .iter()
            .map(|version| version.as_str())
            .collect();
        // If the terminal is closed, the error cannot be shown.
        let _ = writeln!(
            stderr,
            "{}\nCNI protocol versions supported: {}",
            plugin.about(),
            versions.join(", ")
        );
        return 0;
    }

    // The version for errors is known only after stdin is read, so it is kept outside of the call.
    let mut version = Version::NEWEST;
    let outcome = guarded(|| serve(plugin, env, stdin, &mut version));
    let (bytes, added, status) = match outcome {
        Ok(reply) => (reply.stdout, reply.added, 0),
        Err(error) => (error.to_json(version), None, 1),
    };
    if let Err(error) = stdout.write_all(&bytes).and_then(|()| stdout.flush()) {
        let _ = writeln!(stderr, "cannot write to stdout: {error}");
        if let Some(request) = added {
            // The runtime got no result, so for it the ADD failed.
            let _ = guarded(|| plugin.undo_add(&request));
        }
        return 1;
    }
    status
}

/// Everything between the streams.
fn serve(
    plugin: &(impl Plugin + ?Sized),
    env: &Environment,
    mut stdin: impl Read,
    version: &mut Version,
) -> Result<Reply, Error> {
    let invocation = Invocation::from_env(env);
    // Errors about the environment are answered in the config's version, too, so stdin is read
    // first.
    let mut raw = Vec::new();
    let read = stdin.read_to_end(&mut raw);
    *version = Config::answer_version(&raw);
    let invocation = invocation?;
    if invocation.verb == Verb::Version {
        return Ok(Reply::of(version_document(plugin.supported(), &raw)));
    }
    read.map_err(|error| {
        Error::io("cannot read the network config from stdin").with_details(error.to_string())
    })?;
    let config = Config::parse(raw, invocation.verb, plugin.supported())?;
    *version = config.version();
    refuse_own_netns(&invocation)?;

    let request = Request {
        invocation,
        config,
        env: env.clone(),
    };
    match request.invocation.verb {
        Verb::Add => {
            let output = plugin.add(&request)?;
            match output.render(request.config.version()) {
                Ok(stdout) => {
                    return Ok(Reply {
                        stdout,
                        added: Some(request),
                    });
                }
                Err(error) => {
                    // The cause counts. The runtime's DEL undoes what cannot be undone now.
                    let _ = guarded(|| plugin.undo_add(&request));
                    return Err(error);
                }
            }
        }
        Verb::Del => plugin.del(&request).map_err(Error::for_unfinished_del)?,
        Verb::Check => plugin.check(&request)?,
        Verb::Gc => plugin.gc(&request)?,
        Verb::Status => plugin.status(&request)?,
        Verb::Version => {}
    }
    Ok(Reply::of(Vec::new()))
}

/// ADD and DEL with the plugin's own netns would work on the node itself: DEL would delete the
/// node's `eth0`.
///
/// skel checks this only after the call, when it is too late.
fn refuse_own_netns(invocation: &Invocation) -> Result<(), Error> {
    let (Verb::Add | Verb::Del, Some(netns), false) = (
        invocation.verb,
        &invocation.netns,
        invocation.netns_override,
    ) else {
        return Ok(());
    };
    if is_own_netns(Path::new(netns))? {
        return Err(Error::invalid_netns(
            "plugin's netns and netns from CNI_NETNS should not be the same",
        )
        .with_details(format!(
            "CNI_NETNS is {netns:?}; CNI_NETNS_OVERRIDE=1 permits it"
        )));
    }
    Ok(())
}

/// The answer to VERSION: the version from stdin if it can be one, or else our newest.
fn version_document(supported: &[Version], raw: &[u8]) -> Vec<u8> {
    let echo = Object::from_slice(raw)
        .ok()
        .and_then(|object| object.decode::<String>("cniVersion").ok().flatten());
    let echo = echo.filter(|text| !text.is_empty() && numbers(text).is_some());
    let newest = supported.iter().max().copied().unwrap_or(Version::NEWEST);
    let document = serde_json::json!({
        "cniVersion": echo.as_deref().unwrap_or(newest.as_str()),
        "supportedVersions": supported,
    });
    format!("{document}\n").into_bytes()
}

/// Turns a panic into an error, so that the runtime always gets one document.
fn guarded<T>(call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        Err(Error::internal("the plugin panicked; this is a bug").with_details(panic_text(&*panic)))
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
