//! CHECK: our interfaces by the agent, the embedded plugins' by themselves.
//!
//! `prevResult`, the final result of the runtime's chain, says what should be there. The state says
//! which part of it is ours.

use std::time::{Duration, Instant};

use ratchet_cni::{CniResult, Error, Object, Rendered, Request, set_members};
use ratchet_protocol::Check;
use serde_json::value::RawValue;

use crate::{
    Ratchet,
    agent::Start,
    call::Call,
    identity::Identity,
    state::{Kept, Record},
};

const AGENT_TIMEOUT: Duration = Duration::from_secs(30);
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// See [`ratchet_cni::Plugin::check`].
pub(crate) fn check(plugin: &Ratchet, request: &Request) -> Result<(), Error> {
    let call = Call::strict(plugin, request)?;
    let Some(prev) = request.config.prev_result()? else {
        return Err(
            Error::invalid_config("Required prevResult missing").with_details(
                "CHECK compares with the result of ADD, which the runtime keeps and passes",
            ),
        );
    };
    let record = record(&call)?;
    let (ours, rendered) = match &record {
        Some(record) => (record.mode.is_ours(), record.rendered.clone()),
        None => guess(&call)?,
    };
    if ours {
        let interfaces = record
            .as_ref()
            .map(|record| record.appended.interfaces.clone())
            .unwrap_or_default();
        let asked = Check {
            attachment: call.attachment()?,
            netns: call.netns().into(),
            interfaces,
        };
        let until = Instant::now() + AGENT_TIMEOUT;
        call.agent().ask(
            &ratchet_protocol::Request::Check(asked),
            until,
            Start::OnDemand,
        )?;
    }
    let theirs = match &record {
        Some(record) => without_ours(&call, prev, record)?,
        None => prev,
    };
    rendered.check(&call.caller, &theirs)
}

/// The state of the ADD. Waits for a running call, but keeps no lock: CHECK changes nothing.
fn record(call: &Call) -> Result<Option<Box<Record>>, Error> {
    let slot = call
        .attachments
        .claim_existing(&call.key()?, LOCK_TIMEOUT)?;
    let Some(slot) = slot else { return Ok(None) };
    match slot.load() {
        Kept::Record(record) => Ok(Some(record)),
        Kept::Unreadable(why) => {
            call.console.warn(format_args!(
                "the state of this attachment's ADD cannot be read: {why}"
            ));
            Ok(None)
        }
        Kept::Nothing => {
            // The look has made a lock file. Remove it with its directories.
            slot.remove()?;
            Ok(None)
        }
    }
}

/// Without state: what ADD would do now. The agent knows whether there is an attachment.
fn guess(call: &Call) -> Result<(bool, Rendered), Error> {
    let request = call.request;
    let ours =
        Identity::of(&request.invocation, &request.config, call.keys.use_labels)?.is_visibly_ours();
    let embedded = if ours {
        call.keys.boot()
    } else {
        call.keys.delegate.as_ref()
    };
    let rendered = embedded
        .map(|embedded| embedded.render(&call.caller, None))
        .transpose()?;
    Ok((ours, rendered.unwrap_or_default()))
}

/// The result as the embedded plugins know it: without our interfaces and without the address that
/// we added.
fn without_ours(call: &Call, prev: CniResult, record: &Record) -> Result<CniResult, Error> {
    let prev = match &record.appended.address {
        Some(address) => without_address(call, address)?.unwrap_or(prev),
        None => prev,
    };
    let is_ours = |name: &str| {
        record
            .appended
            .interfaces
            .iter()
            .any(|interface| interface.name == name)
    };
    Ok(prev.without_interfaces(|_, interface| {
        interface.sandbox == call.netns() && is_ours(&interface.name)
    }))
}

/// `prevResult` without the first entry of this address that has no interface. All else stays byte
/// for byte.
fn without_address(call: &Call, address: &str) -> Result<Option<CniResult>, Error> {
    let config = &call.request.config;
    let Some(raw) = config.raw_key("prevResult") else {
        return Ok(None);
    };
    let decoded = |text: &str| Object::parse(text).ok();
    let ips =
        decoded(raw.get()).and_then(|prev| prev.decode::<Vec<Box<RawValue>>>("ips").ok().flatten());
    let Some(mut ips) = ips else { return Ok(None) };
    let is_it = |ip: &RawValue| {
        decoded(ip.get()).is_some_and(|ip| {
            let interface = ip.decode::<i64>("interface").ok().flatten();
            interface.is_none()
                && ip.decode::<String>("address").ok().flatten().as_deref() == Some(address)
        })
    };
    let Some(at) = ips.iter().position(|ip| is_it(ip)) else {
        return Ok(None);
    };
    ips.remove(at);
    let Ok(ips) = serde_json::value::to_raw_value(&ips) else {
        return Ok(None);
    };
    CniResult::parse(&set_members(raw.get(), &[("ips", &ips)])?, config.version()).map(Some)
}
