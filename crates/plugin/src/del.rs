//! DEL: the links first, then the network that the pod booted with, then the state.
//!
//! DEL succeeds whatever is missing, any number of times. Only what is there and could not be
//! removed is an error; then the state stays and the next DEL does the same again.
//!
//! An agent that cannot be reached is no error: it finds sandboxes that are gone by itself as soon
//! as it runs again, and a pod must not stay because of it. The same holds for one that says
//! "later": it has heard of it.

use std::time::{Duration, Instant};

use ratchet_cni::{Embedded, Error, Rendered, Request, Verb, code};
use ratchet_failpoint as failpoint;
use ratchet_protocol::{Detach, FailureKind};

use crate::{
    Ratchet,
    agent::Start,
    call::Call,
    codes::AgentError,
    identity::Identity,
    state::{Kept, Record, Slot},
};

/// How long the agent may take, its start included: DEL must end within 10 s.
const AGENT_TIMEOUT: Duration = Duration::from_secs(6);
/// The same where most probably there is nothing to do for it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait for another call on the same attachment, such as an ADD that the runtime has
/// given up.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);

/// See [`ratchet_cni::Plugin::del`].
pub(crate) fn del(plugin: &Ratchet, request: &Request) -> Result<(), Error> {
    let call = Call::lenient(plugin, request);
    let (slot, record) = kept(&call)?;
    failpoint::pass("del.after_lock");
    let errors = [
        detach(&call, record.as_deref()),
        embedded(&call, record.as_deref()),
    ];
    Error::collect(errors.into_iter().filter_map(Result::err).collect())?;
    slot.map_or(Ok(()), Slot::remove)?;
    failpoint::pass("del.after_state");
    Ok(())
}

/// The state of the ADD, locked, as far as there is one.
fn kept(call: &Call) -> Result<(Option<Slot>, Option<Box<Record>>), Error> {
    let key = match call.key() {
        Ok(key) => key,
        // An ADD of that name was refused, so nothing is kept.
        Err(error) => {
            call.console.warn(error);
            return Ok((None, None));
        }
    };
    let slot = match call.attachments.claim_existing(&key, LOCK_TIMEOUT) {
        Ok(slot) => slot,
        Err(error) if error.code == code::TRY_AGAIN_LATER => return Err(error),
        Err(error) => {
            // On a disk that takes no lock, the rest still can be undone.
            call.console.warn(error);
            None
        }
    };
    let record = match slot.as_ref().map(Slot::load) {
        Some(Kept::Record(record)) => Some(record),
        Some(Kept::Unreadable(why)) => {
            call.console.warn(format_args!(
                "the state of this attachment's ADD cannot be read: {why}"
            ));
            None
        }
        Some(Kept::Nothing) | None => None,
    };
    Ok((slot, record))
}

/// Has the agent undo the links.
fn detach(call: &Call, record: Option<&Record>) -> Result<(), Error> {
    let request = call.request;
    let (start, timeout) = match record {
        // The agent has never heard of it.
        Some(record) if !record.mode.is_ours() => return Ok(()),
        Some(_) => (Start::OnDemand, AGENT_TIMEOUT),
        // No state: never added, deleted already, or lost. Only if the pod looks like ours an agent
        // is started for it.
        None => {
            let identity =
                Identity::lenient(&request.invocation, &request.config, call.keys.use_labels);
            match identity.is_visibly_ours() {
                true => (Start::OnDemand, AGENT_TIMEOUT),
                false => (Start::Never, IDLE_TIMEOUT),
            }
        }
    };
    // A container id that the agent does not take was never attached.
    let Ok(attachment) = call.attachment() else {
        return Ok(());
    };
    let asked = ratchet_protocol::Request::Detach(Detach {
        attachment,
        netns: call.netns_path(),
    });
    let result = match call.agent().ask(&asked, Instant::now() + timeout, start) {
        Ok(_) => Ok(()),
        Err(AgentError::Refused(failure)) if failure.kind != FailureKind::TryLater => {
            Err(Error::from(AgentError::Refused(failure)))
        }
        // Nobody to tell, and nothing to be told of.
        Err(_) if start == Start::Never => Ok(()),
        Err(error) => {
            call.console.warn(format_args!(
                "the agent will remove the links later: {}",
                Error::from(error)
            ));
            Ok(())
        }
    };
    failpoint::pass("del.after_detach");
    result
}

/// DEL of the embedded plugins: with what ADD gave them, or else with the config of the day.
fn embedded(call: &Call, record: Option<&Record>) -> Result<(), Error> {
    let result = match record {
        Some(record) => {
            let mut caller = call.caller.clone();
            if call.request.env.get("CNI_ARGS").is_none() {
                let of = &call.request.invocation;
                let attachment = ratchet_cni::Attachment {
                    container_id: of.container_id.clone(),
                    ifname: of.ifname.clone(),
                };
                caller = caller.for_attachment(&attachment, call.netns_for_del(), &record.args);
            }
            record.rendered.del(&caller)
        }
        None => {
            let errors = call
                .keys
                .embedded()
                .rev()
                .filter_map(|embedded| without_state(call, embedded).err());
            Error::collect(errors.collect())
        }
    };
    failpoint::pass("del.after_embedded");
    result
}

/// DEL of one embedded plugin or list that may never have seen an ADD.
fn without_state(call: &Call, embedded: &Embedded) -> Result<(), Error> {
    let config = &call.request.config;
    // Before 0.4.0 there is none on DEL; and what is garbage is none.
    let prev = config
        .prev_result()
        .ok()
        .flatten()
        .filter(|_| config.version().allows(Verb::Check));
    let rendered = prev
        .and_then(|prev| embedded.render(&call.caller, Some(&prev)).ok())
        .map_or_else(|| embedded.render(&call.caller, None), Ok)?;
    let present = |plugin: &ratchet_cni::RenderedPlugin| {
        let found = ratchet_cni::find_in_path(&plugin.kind, &call.request.invocation.path);
        // A program that is not there has most probably made nothing, and would block the pod's end
        // for ever.
        found
            .map_err(|error| {
                call.console
                    .warn(format_args!("no DEL without state: {error}"))
            })
            .is_ok()
    };
    let plugins = rendered.plugins.into_iter().filter(present).collect();
    Rendered {
        plugins,
        ..rendered
    }
    .del(&call.caller)
}
