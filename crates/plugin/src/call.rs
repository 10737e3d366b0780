//! One call with all that its verb needs: the config's keys, the caller of embedded plugins, the
//! kept state, the agent.

use std::path::PathBuf;

use ratchet_cni::{Caller, Error, Rendered, Request};
use ratchet_protocol::Attachment;

use crate::{
    Ratchet,
    agent::Agent,
    config::Keys,
    console::Console,
    netns::is_namespace,
    state::{Appended, Attachments, Key, Mode, Record},
};

/// One call.
pub(crate) struct Call<'a> {
    pub request: &'a Request,
    pub console: &'a Console,
    pub keys: Keys,
    pub caller: Caller,
    pub attachments: Attachments,
}

impl<'a> Call<'a> {
    /// With a config that must be right.
    pub fn strict(plugin: &'a Ratchet, request: &'a Request) -> Result<Self, Error> {
        Ok(Self::new(plugin, request, Keys::strict(&request.config)?))
    }

    /// For DEL: with what can be read of the config. Embedded plugins get no CNI_NETNS that is not
    /// a namespace: an unmounted namespace leaves a plain file, on which bridge and ptp always
    /// fail.
    pub fn lenient(plugin: &'a Ratchet, request: &'a Request) -> Self {
        let mut call = Self::new(plugin, request, Keys::lenient(&request.config));
        if call.netns_for_del() != call.netns() {
            let mut env = request.env.clone();
            env.set("CNI_NETNS", "");
            call.caller = Caller::new(&env).with_executor(plugin.executor());
        }
        call
    }

    fn new(plugin: &'a Ratchet, request: &'a Request, keys: Keys) -> Self {
        for warning in &keys.warnings {
            plugin.console.warn(warning);
        }
        let caller = Caller::new(&request.env).with_executor(plugin.executor());
        let attachments = Attachments::of(keys.local.state_dir());
        Self {
            request,
            console: &plugin.console,
            keys,
            caller,
            attachments,
        }
    }

    /// The attachment, as it is kept.
    pub fn key(&self) -> Result<Key, Error> {
        let call = &self.request.invocation;
        Key::new(self.request.config.name(), &call.container_id, &call.ifname)
    }

    /// The attachment, as the agent knows it.
    pub fn attachment(&self) -> Result<Attachment, Error> {
        let call = &self.request.invocation;
        Ok(Attachment {
            network: self.request.config.name().to_owned(),
            container_id: call.container_id.parse().map_err(|error| {
                Error::invalid_environment(format!(
                    "CNI_CONTAINERID cannot be used for a pod with links: {error}"
                ))
            })?,
            interface: call.ifname.clone(),
        })
    }

    /// CNI_NETNS, verbatim.
    pub fn netns(&self) -> &str {
        self.request.invocation.netns.as_deref().unwrap_or_default()
    }

    /// CNI_NETNS for the DEL of embedded plugins: empty if it names something that is not a
    /// namespace.
    pub fn netns_for_del(&self) -> &str {
        if is_namespace(self.netns()) == Ok(false) {
            ""
        } else {
            self.netns()
        }
    }

    /// CNI_NETNS as a path; `None` if there is none.
    pub fn netns_path(&self) -> Option<PathBuf> {
        self.request.invocation.netns.as_deref().map(PathBuf::from)
    }

    /// The node's agent, as this config describes it.
    pub fn agent(&self) -> Agent<'_> {
        Agent::new(&self.keys, &self.request.env)
    }

    /// The record to keep before these embedded plugins run.
    pub fn record(&self, mode: Mode, rendered: &Rendered) -> Record {
        Record {
            mode,
            rendered: rendered.clone(),
            args: self.request.invocation.args.raw().to_owned(),
            netns: self.netns().to_owned(),
            appended: Appended::default(),
        }
    }
}
