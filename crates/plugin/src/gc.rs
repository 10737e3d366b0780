//! GC: removes what belongs to none of the attachments that the runtime names. Only in this
//! network.
//!
//! An attachment that another call is working on is left alone: agent and embedded plugins are told
//! that it is valid. GC goes on after errors and reports them all.

use std::time::{Duration, Instant};

use ratchet_cni::{Attachment, Error, Request};
use ratchet_protocol::Collect;

use crate::{
    Ratchet,
    agent::Start,
    call::Call,
    state::{Kept, Key, Mode, Record, Slot},
};

const AGENT_TIMEOUT: Duration = Duration::from_secs(20);

/// See [`ratchet_cni::Plugin::gc`].
pub(crate) fn gc(plugin: &Ratchet, request: &Request) -> Result<(), Error> {
    let call = Call::strict(plugin, request)?;
    let Some(mut valid) = request.config.valid_attachments()? else {
        return Err(Error::invalid_config(
            "GC without \"cni.dev/valid-attachments\" would remove every attachment",
        )
        .with_details("the key must be there; null or [] means that no attachment is valid"));
    };
    let mut errors = Vec::new();
    let keys = call
        .attachments
        .list(request.config.name())
        .unwrap_or_else(|error| {
            errors.push(error);
            Vec::new()
        });
    let mut stale: Vec<(Key, Slot)> = Vec::new();
    for key in keys {
        let attachment = Attachment {
            container_id: key.container_id().into(),
            ifname: key.ifname().into(),
        };
        if valid.contains(&attachment) {
            continue;
        }
        match call.attachments.try_claim(&key) {
            Ok(Some(slot)) => stale.push((key, slot)),
            // Another call is working on it.
            Ok(None) => valid.push(attachment),
            Err(error) => {
                errors.push(Error::io(format!(
                    "cannot lock the state of container {}: {error}",
                    key.container_id()
                )));
                valid.push(attachment);
            }
        }
    }

    let collected = collect(&call, &valid);
    let links_are_gone = collected.is_ok();
    errors.extend(collected.err());
    for (key, slot) in stale {
        errors.extend(remove(&call, &key, slot, links_are_gone).err());
    }
    for embedded in call.keys.embedded() {
        errors.extend(embedded.gc(&call.caller, &valid).err());
    }
    Error::collect(errors)
}

/// Has the agent undo all links of the network but those of the valid attachments.
fn collect(call: &Call, valid: &[Attachment]) -> Result<(), Error> {
    let valid = valid
        .iter()
        .map(|attachment| (attachment.container_id.clone(), attachment.ifname.clone()))
        .collect();
    let asked = Collect {
        network: call.request.config.name().to_owned(),
        valid,
    };
    let until = Instant::now() + AGENT_TIMEOUT;
    call.agent().ask(
        &ratchet_protocol::Request::Collect(asked),
        until,
        Start::OnDemand,
    )?;
    Ok(())
}

/// DEL of a stale attachment's embedded plugins, with what ADD gave them: most plugins do not
/// implement GC, or free nothing in it.
///
/// CNI_NETNS is empty: the path from ADD may belong to another pod now.
fn remove(call: &Call, key: &Key, slot: Slot, links_are_gone: bool) -> Result<(), Error> {
    let record = match slot.load() {
        Kept::Record(record) => record,
        Kept::Nothing => return slot.remove(),
        Kept::Unreadable(why) => {
            // Its bytes are lost; the runtime's DEL, if there is one, still has the config.
            call.console.warn(format_args!(
                "unreadable state of a stale attachment is removed: {why}"
            ));
            return slot.remove();
        }
    };
    if gc_disabled(call, &record) {
        return Ok(());
    }
    let attachment = Attachment {
        container_id: key.container_id().into(),
        ifname: key.ifname().into(),
    };
    let caller = call
        .caller
        .clone()
        .for_attachment(&attachment, "", &record.args);
    record.rendered.del(&caller)?;
    // While the links may still be there, the next GC must know of them.
    if links_are_gone || !record.mode.is_ours() {
        slot.remove()
    } else {
        Ok(())
    }
}

/// Whether the embedded list of this attachment turns GC off (`disableGC`).
fn gc_disabled(call: &Call, record: &Record) -> bool {
    let embedded = match record.mode {
        Mode::Delegate => call.keys.delegate.as_ref(),
        Mode::Boot => call.keys.boot(),
        Mode::Chained => None,
    };
    embedded.is_some_and(ratchet_cni::Embedded::gc_disabled)
}
