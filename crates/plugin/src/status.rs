//! STATUS: whether an ADD would be served now. Runtimes ask often and with a lock held, so the
//! answer comes within 2 s.

use std::time::{Duration, Instant};

use ratchet_cni::{Error, Request};

use crate::{Ratchet, agent::Start, call::Call};

/// The agent's share of these 2 s, its start included. An agent that needs longer goes on starting,
/// and the next STATUS finds it.
const AGENT_TIMEOUT: Duration = Duration::from_millis(1500);

/// See [`ratchet_cni::Plugin::status`].
pub(crate) fn status(plugin: &Ratchet, request: &Request) -> Result<(), Error> {
    let call = Call::strict(plugin, request)?;
    for embedded in call.keys.embedded() {
        embedded.status(&call.caller)?;
    }
    let asked = ratchet_protocol::Request::Status {
        settings: call.keys.settings.clone(),
    };
    let answer = call
        .agent()
        .ask(&asked, Instant::now() + AGENT_TIMEOUT, Start::OnDemand);
    answer.map_err(|error| {
        // Always 50: existing links work without agent and store.
        let Error { msg, details, .. } = error.into();
        Error::not_available(msg).with_details(details)
    })?;
    Ok(())
}
