//! ADD for Ratchet's pods: the network that the pod boots with, then its links.
//!
//! Everything that was made is undone when a later step fails.

use std::time::{Duration, Instant};

use ratchet_cni::{CniResult, Dns, Error, Output, Rendered};
use ratchet_failpoint as failpoint;
use ratchet_protocol::{Attach, Attached, Attachment, Client, Detach, Reply};

use super::{Add, discard, is_ours, result, unexpected};
use crate::{
    agent::{Question, Start},
    codes::own,
    state::{Appended, Mode, Slot},
};

/// How long the agent may take to undo an ADD, on top of the time for the ADD itself.
const UNDO_TIMEOUT: Duration = Duration::from_secs(10);

/// What ADD has and knows of a pod of Ratchet's before it makes anything.
pub(super) struct Ours<'q> {
    pub slot: Slot,
    pub attach: Attach,
    /// The deadline for the agent.
    pub until: Instant,
    pub outer_dns: Option<Dns>,
    /// What the agent has been asked and has not answered yet.
    pub question: Option<Question<'q>>,
}

/// The network that the links come on top of.
struct Base {
    result: CniResult,
    /// What the embedded plugins were given.
    rendered: Rendered,
    /// The connection on which the agent was told of the attach. While it is open, the agent keeps
    /// what it has written down.
    _expected: Option<Client>,
}

impl Add<'_> {
    /// Ratchet's pod: first the network it boots with, then its links. Nothing is made before the
    /// agent has answered the question.
    pub(super) fn ours(&self, ours: Ours) -> Result<Output, Error> {
        let (call, slot, attach) = (&self.call, ours.slot, ours.attach);
        let base = match self.base(&slot, &attach, ours.question) {
            Ok(Some(base)) => base,
            Ok(None) => return self.not_ours(Some(slot)),
            Err(error) => {
                // The plugins have had their DEL, and the agent was not asked to attach.
                discard(call, Some(slot));
                return Err(error);
            }
        };
        failpoint::pass("add.after_embedded");

        let attachment = attach.attachment.clone();
        let attached = match self.attach(attach, ours.until) {
            Ok(attached) => attached,
            Err(error) => {
                // An attachment that exists already is another ADD's, and stays.
                let is_ours = error.code != own::EXISTS;
                self.undo(slot, &base.rendered, is_ours.then_some(attachment));
                return Err(error);
            }
        };
        failpoint::pass("add.after_attach");

        for reason in &attached.pending {
            call.console
                .warn(format_args!("a link is not up yet: {reason}"));
        }
        let (result, address) = result::with_links(call, base.result, &attached, ours.outer_dns);
        if let Err(error) = slot.append(&Appended {
            interfaces: attached.interfaces,
            address,
        }) {
            self.undo(slot, &base.rendered, Some(attachment));
            return Err(error);
        }
        failpoint::pass("add.after_interfaces");
        Ok(Output::Result(result))
    }

    /// Makes the network that the pod boots with, or takes that of the plugin before. `None` if the
    /// agent answers that the pod is not Ratchet's: then no plugin was called.
    fn base(
        &self,
        slot: &Slot,
        attach: &Attach,
        mut question: Option<Question>,
    ) -> Result<Option<Base>, Error> {
        let call = &self.call;
        let mut ours = true;
        let mut keep = |record| {
            slot.save(&record, true)?;
            failpoint::pass("add.after_state");
            ours = question.take().map_or(Ok(ours), is_ours)?;
            if ours {
                Ok(())
            } else {
                Err(Error::internal(
                    "the agent does not take this pod for Ratchet's",
                ))
            }
        };
        // The agent writes down what it needs while the embedded plugins run.
        let mut expected = None;
        let made = match (&self.prev, call.keys.boot()) {
            (Some(prev), _) => keep(call.record(Mode::Chained, &Rendered::default()))
                .map(|()| (prev.clone(), Rendered::default())),
            (None, Some(boot)) => {
                let added = boot.add(&call.caller, None, |rendered| {
                    keep(call.record(Mode::Boot, rendered))?;
                    expected = expected.take().or_else(|| call.agent().expect(attach));
                    Ok(())
                });
                added.map(|added| (added.result, added.rendered))
            }
            (None, None) => Err(Error::internal(
                "there is neither a boot network nor a prevResult",
            )),
        };
        match made {
            Ok((result, rendered)) => Ok(Some(Base {
                result,
                rendered,
                _expected: expected,
            })),
            Err(_) if !ours => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has the agent attach the pod.
    fn attach(&self, attach: Attach, until: Instant) -> Result<Attached, Error> {
        let asked = ratchet_protocol::Request::Attach(attach);
        match self.call.agent().ask(&asked, until, Start::OnDemand) {
            Ok(Reply::Attached(attached)) => Ok(attached),
            answer => Err(unexpected(answer)),
        }
    }

    /// Undoes what ADD did for a pod of Ratchet's. If something cannot be undone now, the state
    /// stays for the DEL that follows.
    fn undo(&self, slot: Slot, rendered: &Rendered, attached: Option<Attachment>) {
        let (call, mut is_undone) = (&self.call, true);
        if let Some(attachment) = attached {
            let detach = Detach {
                attachment,
                netns: call.netns_path(),
            };
            let until = Instant::now() + UNDO_TIMEOUT;
            let asked = ratchet_protocol::Request::Detach(detach);
            if let Err(error) = call.agent().ask(&asked, until, Start::OnDemand) {
                call.console.warn(format_args!(
                    "the links of a failed ADD are left to DEL: {}",
                    Error::from(error)
                ));
                is_undone = false;
            }
        }
        failpoint::pass("add.after_rollback_detach");
        if let Err(error) = rendered.del(&call.caller) {
            call.console.warn(format_args!(
                "the network of a failed ADD is left to DEL: {error}"
            ));
            is_undone = false;
        }
        failpoint::pass("add.after_rollback_embedded");
        if is_undone {
            discard(call, Some(slot));
        }
    }
}
