//! ADD: the pod's network and, for Ratchet's pods, their links.
//!
//! If a step fails, the steps before it are undone and the first error is reported. The state is
//! written before each step that must be undone, so that the runtime's DEL can remove what a killed
//! process leaves.

mod ours;
mod result;

use std::time::{Duration, Instant};

use ratchet_cni::{Added, CniResult, Error, Output, Rendered, Request};
use ratchet_failpoint as failpoint;
use ratchet_protocol::{Attach, Prepare, Reply};

use crate::{
    Ratchet,
    agent::{Question, Start},
    call::Call,
    codes::{AgentError, own},
    identity::Identity,
    netns::is_namespace,
    state::{Kept, Mode, Slot},
};
use ours::Ours;

/// How long the agent may take for everything that one ADD asks.
const AGENT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait for another call on the same attachment.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// See [`ratchet_cni::Plugin::add`].
pub(crate) fn add(plugin: &Ratchet, request: &Request) -> Result<Output, Error> {
    let call = Call::strict(plugin, request)?;
    let identity = Identity::of(&request.invocation, &request.config, call.keys.use_labels)?;
    let add = Add {
        prev: prev_result(&call)?,
        call,
        identity,
    };
    if add.identity.may_be_ours(&add.call.keys) {
        add.maybe_ours()
    } else {
        add.not_ours(None)
    }
}

/// The result so far, if we are chained. Code 7 if the config does not fit our position in the
/// list.
fn prev_result(call: &Call) -> Result<Option<CniResult>, Error> {
    let (prev, keys) = (call.request.config.prev_result()?, &call.keys);
    match (&prev, keys.boot()) {
        (Some(_), Some(_)) => Err(Error::invalid_config(
            "the config has \"delegate\" or \"boot_network\", but another plugin of the list has \
             made the pod's network",
        )
        .with_details(
            "behind another plugin, remove both keys; or put this plugin first in the list",
        )),
        (None, None) => Err(Error::invalid_config(
            "the config has no \"delegate\", and there is no prevResult",
        )
        .with_details(
            "set \"delegate\" to the plugin for pods that are not Ratchet's, or list this \
             plugin behind another one",
        )),
        _ => Ok(prev),
    }
}

/// One ADD.
struct Add<'a> {
    call: Call<'a>,
    identity: Identity,
    prev: Option<CniResult>,
}

impl Add<'_> {
    /// A pod that is not Ratchet's: it gets its network as without Ratchet.
    fn not_ours(&self, slot: Option<Slot>) -> Result<Output, Error> {
        let (call, version) = (&self.call, self.call.request.config.version());
        if let Some(prev) = &self.prev {
            discard(call, slot);
            let stdout = call
                .request
                .config
                .raw_key("prevResult")
                .map(|raw| raw.get().as_bytes().to_vec());
            let rendered = Rendered::default();
            let added = Added {
                stdout: stdout.unwrap_or_default(),
                result: prev.clone(),
                rendered,
            };
            return Ok(Output::pass_through(added, version));
        }
        let Some(delegate) = &call.keys.delegate else {
            discard(call, slot);
            return Err(Error::invalid_config(
                "the config has no \"delegate\", and this pod is not Ratchet's",
            )
            .with_details("set \"delegate\" to the plugin for pods that are not Ratchet's"));
        };
        let slot = match slot {
            Some(slot) => slot,
            None => self.claim()?,
        };
        let added = delegate.add(&call.caller, None, |rendered| {
            slot.save(&call.record(Mode::Delegate, rendered), false)?;
            failpoint::pass("add.after_state");
            Ok(())
        });
        match added {
            Ok(added) => {
                failpoint::pass("add.after_embedded");
                Ok(Output::pass_through(added, version))
            }
            Err(error) => {
                // The plugins have had their DEL.
                discard(call, Some(slot));
                Err(error)
            }
        }
    }

    /// A pod that may be Ratchet's, by what is visible here. The agent decides.
    fn maybe_ours(&self) -> Result<Output, Error> {
        let call = &self.call;
        let attachment = call.attachment()?;
        require_netns(call.netns())?;
        let outer_dns = result::outer_dns(call)?;
        let until = Instant::now() + AGENT_TIMEOUT;
        let prepare = Prepare {
            pod: self.identity.pod.clone(),
            labels: self.identity.labels.clone(),
            annotations: self.identity.annotations.clone(),
            annotations_passed: self.identity.annotations_passed,
            use_labels: call.keys.use_labels,
            settings: call.keys.settings.clone(),
            interface: attachment.interface.clone(),
        };
        let asked = ratchet_protocol::Request::Prepare(prepare.clone());
        let agent = call.agent();
        let question = agent.begin(&asked, until);
        // The question changes nothing, so it is asked before the lock is held.
        let slot = self.claim()?;
        failpoint::pass("add.after_lock");
        let attach = Attach {
            attachment,
            netns: call.netns().into(),
            prepare,
        };
        let ours = |slot, question| {
            self.ours(Ours {
                slot,
                attach,
                until,
                outer_dns,
                question,
            })
        };
        if self.identity.is_visibly_ours() {
            // The agent only checks the declaration, and may do so while the record is written.
            return ours(slot, Some(question));
        }
        match is_ours(question) {
            Ok(true) => ours(slot, None),
            Ok(false) => self.not_ours(Some(slot)),
            Err(error) => {
                discard(call, Some(slot));
                Err(error)
            }
        }
    }

    /// The attachment's slot, which must be empty: a second ADD without a DEL is refused, and the
    /// network of the first one stays.
    fn claim(&self) -> Result<Slot, Error> {
        let call = &self.call;
        let slot = call.attachments.claim(&call.key()?, LOCK_TIMEOUT)?;
        match slot.load() {
            Kept::Nothing => Ok(slot),
            Kept::Unreadable(why) => {
                call.console.warn(format_args!(
                    "the state of an earlier ADD of this attachment is ignored: {why}"
                ));
                Ok(slot)
            }
            Kept::Record(_) => {
                let call = &call.request.invocation;
                let (id, ifname) = (&call.container_id, &call.ifname);
                Err(Error::new(
                    own::EXISTS,
                    format!("container {id} already has interface {ifname} in this network"),
                )
                .with_details("this is a second ADD; a DEL must come before it"))
            }
        }
    }
}

/// Removes the state of an ADD that made nothing, or that is undone.
fn discard(call: &Call, slot: Option<Slot>) {
    if let Some(Err(error)) = slot.map(Slot::remove) {
        call.console.warn(error);
    }
}

/// Whether the agent takes a pod for Ratchet's. An error if it refuses the pod's declaration.
fn is_ours(question: Question<'_>) -> Result<bool, Error> {
    match question.finish(Start::OnDemand) {
        Ok(Reply::Prepared(prepared)) => {
            failpoint::pass("add.after_prepare");
            Ok(prepared.ours)
        }
        other => Err(unexpected(other)),
    }
}

/// The error for an answer that does not fit the question.
fn unexpected(answer: Result<Reply, AgentError>) -> Error {
    match answer {
        Err(error) => error.into(),
        Ok(_) => Error::new(
            own::PROTOCOL,
            "the agent's answer does not fit the question; restart the agent",
        ),
    }
}

/// Refuses a CNI_NETNS that is no network namespace, before anything is made.
fn require_netns(netns: &str) -> Result<(), Error> {
    let problem = match is_namespace(netns) {
        Ok(true) => return Ok(()),
        Ok(false) => "it is not a network namespace",
        Err(error) => error.desc(),
    };
    Err(Error::invalid_netns(format!(
        "CNI_NETNS {netns:?} cannot be used: {problem}"
    )))
}
