//! DEL: the links first, then the network that the pod booted with, then the state.
//!
//! DEL succeeds even if everything is missing, any number of times. It fails only if something is
//! there and could not be removed; then the state stays and the next DEL does the same again.
//!
//! An agent that cannot be reached is no error, because a pod must not stay for it: when the agent
//! runs again, it finds by itself which sandboxes are gone. An agent that answers "try later" is no
//! error either: it knows of the DEL.

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
/// The same when most probably the agent has nothing to do.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait for another call on the same attachment, such as an ADD that the runtime no
/// longer waits for.
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

/// The state of the ADD, locked, if there is one.
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
            // On a disk without locks, everything else can still be undone.
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
        // The agent does not know the pod.
        Some(record) if !record.mode.is_ours() => return Ok(()),
        Some(_) => (Start::OnDemand, AGENT_TIMEOUT),
        // No state: it was never added, is deleted already, or the state is lost. An agent is
        // started only if the pod looks like ours.
        None => {
            let identity =
                Identity::lenient(&request.invocation, &request.config, call.keys.use_labels);
            match identity.is_visibly_ours() {
                true => (Start::OnDemand, AGENT_TIMEOUT),
                false => (Start::Never, IDLE_TIMEOUT),
            }
        }
    };
    // A container id that the agent refuses was never attached.
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
        // No agent runs, and there is most probably nothing to do.
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

/// DEL of the embedded plugins, with what ADD gave them, or else with the current config.
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
    // Before 0.4.0, DEL has no prevResult. One that cannot be read counts as none.
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
        // A program that is missing has most probably made nothing, and would block the removal of
        // the pod for ever.
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
