//! Calls embedded plugins, one after the other, as a runtime calls the plugins of a list.
//!
//! Keeps no state: what must outlive the process is in [`Rendered`], and the caller keeps it.

use std::ffi::OsString;

use crate::{
    config::Attachment,
    embedded::Embedded,
    environment::Environment,
    error::{Error, code},
    exec::{Executor, Finished, find_in_path},
    json::Object,
    names::validate_interface_name,
    rendered::{Rendered, RenderedPlugin},
    result::CniResult,
    version::{Verb, Version},
};

/// How embedded plugins are called: the environment and the executor.
///
/// Only CNI_COMMAND and CNI_IFNAME differ from our own environment, unless
/// [`Caller::for_attachment`] changes more.
#[derive(Debug, Clone)]
pub struct Caller {
    env: Environment,
    ifname: String,
    executor: Executor,
}

/// What a successful ADD returned.
#[derive(Debug, Clone)]
pub struct Added {
    /// The last plugin's stdout, byte for byte.
    pub stdout: Vec<u8>,
    /// The same, parsed, in the version of the plugin's answer.
    pub result: CniResult,
    /// What DEL needs.
    pub rendered: Rendered,
}

impl Caller {
    /// Calls with our own environment and our own CNI_IFNAME.
    pub fn new(env: &Environment) -> Self {
        let ifname = env
            .get("CNI_IFNAME")
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Self {
            env: env.clone(),
            ifname,
            executor: Executor::default(),
        }
    }

    /// The same with another executor.
    #[must_use]
    pub fn with_executor(mut self, executor: Executor) -> Self {
        self.executor = executor;
        self
    }

    /// The same with another CNI_IFNAME for the plugins.
    pub fn with_ifname(mut self, ifname: &str) -> Result<Self, Error> {
        validate_interface_name(ifname)?;
        self.ifname = ifname.to_owned();
        Ok(self)
    }

    /// The same for another attachment: for the DELs that GC makes. GC's own environment has no
    /// attachment.
    #[must_use]
    pub fn for_attachment(mut self, attachment: &Attachment, netns: &str, args: &str) -> Self {
        self.env.set("CNI_CONTAINERID", &attachment.container_id);
        self.env.set("CNI_IFNAME", &attachment.ifname);
        self.env.set("CNI_NETNS", netns);
        self.env.set("CNI_ARGS", args);
        self.ifname.clone_from(&attachment.ifname);
        self
    }

    /// One call of one plugin. Returns its stdout, or its error. If it printed no CNI error, the
    /// error is made from its exit status and stderr.
    fn call(&self, kind: &str, verb: Verb, ifname: &str, stdin: &str) -> Result<Vec<u8>, Error> {
        let program = find_in_path(kind, &self.env.plugin_dirs())?;
        let mut env = self.env.clone();
        env.set("CNI_COMMAND", verb.as_str());
        if !ifname.is_empty() {
            env.set("CNI_IFNAME", OsString::from(ifname));
        }
        let finished = self
            .executor
            .run(&program, &env, stdin.as_bytes())
            .map_err(|error| {
                Error::delegate_failed(format!("cannot run plugin {kind:?} for {verb}"))
                    .with_details(format!("{}: {error}", program.display()))
            })?;
        // Other runtimes take an error with exit status 0 for an empty result. The pod would then
        // have no network.
        let is_error = !finished.status.success()
            || (verb == Verb::Add && is_error_document(&finished.stdout));
        if is_error {
            Err(failure(kind, verb, &finished))
        } else {
            Ok(finished.stdout)
        }
    }

    fn call_rendered(
        &self,
        plugin: &RenderedPlugin,
        verb: Verb,
        stdin: &str,
    ) -> Result<Vec<u8>, Error> {
        self.call(&plugin.kind, verb, &plugin.ifname, stdin)
    }
}

/// Whether it can only be an error: it has a code, and no key of a result.
fn is_error_document(stdout: &[u8]) -> bool {
    Error::from_json(stdout).is_some()
        && Object::from_slice(stdout).is_ok_and(|object| {
            object.get("code").is_some()
                && ["ips", "interfaces", "ip4", "ip6"]
                    .iter()
                    .all(|key| object.get(key).is_none())
        })
}

/// The error of a plugin that failed.
fn failure(kind: &str, verb: Verb, finished: &Finished) -> Error {
    if let Some(error) = Error::from_json(&finished.stdout) {
        return error.context(&format!("plugin {kind:?}"));
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let printed: Vec<String> = [text(&finished.stderr), text(&finished.stdout)]
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    let details = if printed.is_empty() {
        "it printed nothing".to_owned()
    } else {
        printed.join("; ")
    };
    Error::delegate_failed(format!(
        "plugin {kind:?} failed {verb} without a CNI error ({})",
        finished.status
    ))
    .with_details(details)
}

/// The result of a plugin's ADD. Empty output is no result; trailing bytes are an error.
fn result_of(plugin: &RenderedPlugin, stdout: &[u8]) -> Result<CniResult, Error> {
    CniResult::from_slice(stdout, plugin.version)
        .map_err(|error| error.context(&format!("result of plugin {:?}", plugin.kind)))
}

impl Embedded {
    /// ADD of all plugins in order. Each gets the result of the one before as `prevResult`; the
    /// first gets `prev`.
    ///
    /// `before` is called before each plugin runs, with what DEL needs if the process dies from
    /// then on. A caller that keeps state writes it there. If anything fails, each plugin called so
    /// far gets one DEL, in reverse order and with the same stdin. The first error is returned,
    /// even if a DEL fails.
    pub fn add(
        &self,
        caller: &Caller,
        prev: Option<&CniResult>,
        mut before: impl FnMut(&Rendered) -> Result<(), Error>,
    ) -> Result<Added, Error> {
        let mut rendered = Rendered {
            plugins: Vec::new(),
            disable_check: self.disable_check,
        };
        let mut last: Option<(Vec<u8>, CniResult)> = None;
        for plugin in &self.plugins {
            let prev = last.as_ref().map(|(_, result)| result).or(prev);
            let mut step = || {
                let call = plugin.render(prev, &caller.ifname)?;
                // A program that is missing gets no DEL.
                find_in_path(&call.kind, &caller.env.plugin_dirs())?;
                let mut next = rendered.clone();
                next.plugins.push(call.clone());
                before(&next)?;
                rendered = next;
                let stdout = caller.call_rendered(&call, Verb::Add, &call.stdin)?;
                let result = result_of(&call, &stdout)?;
                Ok((stdout, result))
            };
            match step() {
                Ok(output) => last = Some(output),
                Err(error) => {
                    // The runtime gets only the cause. The DEL that it sends after this removes
                    // what is left.
                    if let Err(rollback) = rendered.del(caller) {
                        caller
                            .executor
                            .note(&format!("rollback of a failed ADD: {rollback}"));
                    }
                    return Err(error);
                }
            }
        }
        let (stdout, result) =
            last.ok_or_else(|| Error::invalid_config("there is no embedded plugin"))?;
        Ok(Added {
            stdout,
            result,
            rendered,
        })
    }

    /// What a DEL (or CHECK) without kept state gives the plugins: the current config.
    pub fn render(&self, caller: &Caller, prev: Option<&CniResult>) -> Result<Rendered, Error> {
        let plugins = self
            .plugins
            .iter()
            .map(|plugin| plugin.render(prev, &caller.ifname));
        Ok(Rendered {
            plugins: plugins.collect::<Result<_, _>>()?,
            disable_check: self.disable_check,
        })
    }

    /// GC of all plugins that have it (1.1.0). Goes on after errors. The plugins must leave `valid`
    /// alone.
    pub fn gc(&self, caller: &Caller, valid: &[Attachment]) -> Result<(), Error> {
        if self.disable_gc {
            return Ok(());
        }
        let plugins = self
            .plugins
            .iter()
            .filter(|plugin| plugin.version.allows(Verb::Gc));
        let gc = |plugin: &crate::EmbeddedPlugin| {
            let stdin = plugin.render_gc(valid)?;
            caller
                .call(&plugin.kind, Verb::Gc, &caller.ifname, &stdin)
                .map(drop)
        };
        Error::collect(plugins.filter_map(|plugin| gc(plugin).err()).collect())
    }

    /// STATUS of all plugins that have it (1.1.0), until the first error, which keeps its code.
    ///
    /// A missing program is code 50, even if its version has no STATUS: its ADD could not succeed.
    pub fn status(&self, caller: &Caller) -> Result<(), Error> {
        for plugin in &self.plugins {
            find_in_path(&plugin.kind, &caller.env.plugin_dirs()).map_err(|error| Error {
                code: code::NOT_AVAILABLE,
                ..error
            })?;
            if plugin.version.allows(Verb::Status) {
                caller.call(&plugin.kind, Verb::Status, &caller.ifname, &plugin.base)?;
            }
        }
        Ok(())
    }

    /// Whether GC is switched off. Then a stale attachment of the list gets no DEL either.
    pub fn gc_disabled(&self) -> bool {
        self.disable_gc
    }
}

impl Rendered {
    /// DEL of all plugins in reverse order, with exactly the stdin of their ADD. Goes on after
    /// errors.
    ///
    /// A runtime would stop at the first error. But each DEL is idempotent, and if one plugin
    /// cannot free something, the others still should.
    pub fn del(&self, caller: &Caller) -> Result<(), Error> {
        let del = |plugin: &RenderedPlugin| {
            caller
                .call_rendered(plugin, Verb::Del, &plugin.stdin)
                .map(drop)
        };
        Error::collect(
            self.plugins
                .iter()
                .rev()
                .filter_map(|plugin| del(plugin).err())
                .collect(),
        )
    }

    /// CHECK of all plugins that have it (0.4.0), in order, until the first error. `prev` is the
    /// final result of the runtime's chain, without what other plugins appended to it.
    pub fn check(&self, caller: &Caller, prev: &CniResult) -> Result<(), Error> {
        if self.disable_check {
            return Ok(());
        }
        for plugin in self
            .plugins
            .iter()
            .filter(|plugin| plugin.version.allows(Verb::Check))
        {
            caller.call_rendered(plugin, Verb::Check, &plugin.stdin_with(prev)?)?;
        }
        Ok(())
    }
}

impl Added {
    /// Whether stdout can be printed unchanged as a result of this version: it names this version.
    pub fn is_printable_as(&self, version: Version) -> bool {
        let says = Object::from_slice(&self.stdout)
            .ok()
            .and_then(|object| object.decode::<String>("cniVersion").ok());
        says.flatten().as_deref() == Some(version.as_str())
    }
}

#[cfg(test)]
mod tests;
