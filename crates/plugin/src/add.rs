//! ADD: the pod's network, and for Ratchet's pods their links on top.
//!
//! Every step is undone if a later one fails, and the first error is the one that is told. What a
//! killed process leaves is undone by the runtime's DEL: the state is written before each step that
//! needs undoing.

use std::time::{Duration, Instant};

use ratchet_cni::{
    Added, Cidr, CniResult, Dns, Error, Interface, IpConfig, Output, Rendered, Request, Version,
};
use ratchet_failpoint as failpoint;
use ratchet_protocol::{Attach, Attached, Attachment, Detach, FailureKind, Prepare, Reply};

use crate::{
    Ratchet,
    agent::{Question, Start},
    call::Call,
    codes::{AgentError, own},
    identity::Identity,
    netns::is_namespace,
    state::{Appended, Kept, Mode, Slot},
};

/// How long the agent may take for everything that one ADD asks.
const AGENT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take for undoing, which has a time of its own.
const UNDO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for another call on the same attachment.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// What a pod without any address reports, so that runtimes take its network for one.
const NO_ADDRESS: &str = "127.0.0.1/8";

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

/// The result so far, if we are chained; code 7 if the config does not fit to where the plugin
/// stands.
fn prev_result(call: &Call) -> Result<Option<CniResult>, Error> {
    let (prev, keys) = (call.request.config.prev_result()?, &call.keys);
    match (&prev, keys.boot()) {
        (Some(_), Some(_)) => Err(Error::invalid_config(
            "the config has \"delegate\" or \"boot_network\", but another plugin of the list has \
             made the pod's network",
        )
        .with_details(
            "behind another plugin, remove both keys; or put this plugin first in the \
                       list",
        )),
        (None, None) => Err(Error::invalid_config(
            "the config has no \"delegate\", and there is no \
                                                   prevResult",
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
    /// A pod that is not Ratchet's: its network is made as if we were not there.
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

    /// A pod that by what is visible here is Ratchet's; the agent has the last word.
    fn maybe_ours(&self) -> Result<Output, Error> {
        let call = &self.call;
        let attachment = call.attachment()?;
        require_netns(call.netns())?;
        let outer_dns = outer_dns(call)?;
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
        // It changes nothing, and so need not wait for the lock.
        let slot = self.claim()?;
        failpoint::pass("add.after_lock");
        let attach = Attach {
            attachment,
            netns: call.netns().into(),
            prepare,
        };
        if self.identity.is_visibly_ours() {
            // The agent only has to find no fault with it, and may do so while the record is
            // written.
            return self.ours(slot, attach, until, outer_dns, Some(question));
        }
        match is_ours(question) {
            Ok(true) => self.ours(slot, attach, until, outer_dns, None),
            Ok(false) => self.not_ours(Some(slot)),
            Err(error) => {
                discard(call, Some(slot));
                Err(error)
            }
        }
    }

    /// Ratchet's pod: first the network it boots with, then its links. Nothing is made before the
    /// agent has answered what it was asked.
    fn ours(
        &self,
        slot: Slot,
        attach: Attach,
        until: Instant,
        outer_dns: Option<Dns>,
        mut question: Option<Question<'_>>,
    ) -> Result<Output, Error> {
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
        let base = match (&self.prev, call.keys.boot()) {
            (Some(prev), _) => keep(call.record(Mode::Chained, &Rendered::default()))
                .map(|()| (prev.clone(), Rendered::default())),
            (None, Some(boot)) => {
                let added = boot.add(&call.caller, None, |rendered| {
                    keep(call.record(Mode::Boot, rendered))?;
                    expected = expected.take().or_else(|| call.agent().expect(&attach));
                    Ok(())
                });
                added.map(|added| (added.result, added.rendered))
            }
            (None, None) => Err(Error::internal(
                "there is neither a boot network nor a prevResult",
            )),
        };
        let (base, rendered) = match base {
            Ok(base) => base,
            // It has the last word, and no plugin was called.
            Err(_) if !ours => return self.not_ours(Some(slot)),
            Err(error) => {
                // The plugins have had their DEL; the agent has heard of nothing.
                discard(call, Some(slot));
                return Err(error);
            }
        };
        failpoint::pass("add.after_embedded");

        let attachment = attach.attachment.clone();
        let attached = match call.agent().ask(
            &ratchet_protocol::Request::Attach(attach),
            until,
            Start::OnDemand,
        ) {
            Ok(Reply::Attached(attached)) => attached,
            other => {
                // What exists already is somebody else's ADD, and stays.
                let is_ours = !matches!(&other, Err(error) if error.is(FailureKind::Exists));
                self.undo(slot, &rendered, is_ours.then_some(attachment));
                return Err(unexpected(other));
            }
        };
        failpoint::pass("add.after_attach");

        for reason in &attached.pending {
            call.console
                .warn(format_args!("a link is not up yet: {reason}"));
        }
        let (result, address) = self.result(base, &attached, outer_dns);
        if let Err(error) = slot.append(&Appended {
            interfaces: attached.interfaces,
            address,
        }) {
            self.undo(slot, &rendered, Some(attachment));
            return Err(error);
        }
        failpoint::pass("add.after_interfaces");
        Ok(Output::Result(result))
    }

    /// The base with our interfaces behind its own; and the address that was added so that runtimes
    /// see one.
    fn result(
        &self,
        base: CniResult,
        attached: &Attached,
        dns: Option<Dns>,
    ) -> (CniResult, Option<String>) {
        let (mut result, call) = (base, &self.call);
        let address = if has_address(&result, &call.request.invocation.ifname) {
            None
        } else {
            let first = attached.addresses.first().map(ToString::to_string);
            // Link addresses are not loopback's, so the one that is no link's is told from them.
            let address: Option<Cidr> = first.as_deref().unwrap_or(NO_ADDRESS).parse().ok();
            if let Some(address) = address {
                // Without an interface: containerd counts it as eth0's then.
                result.push_ip(IpConfig::new(address, None));
            }
            address.map(|address| address.to_string())
        };
        let has_mtu = call.request.config.version() >= Version::V1_1_0;
        for interface in &attached.interfaces {
            result.push_interface(Interface {
                name: interface.name.clone(),
                mac: interface.mac.map(|mac| mac.to_string()).unwrap_or_default(),
                mtu: if has_mtu { interface.mtu.into() } else { 0 },
                sandbox: call.netns().to_owned(),
                ..Interface::default()
            });
        }
        if let Some(dns) = dns {
            result.set_dns(dns);
        }
        (result, address)
    }

    /// The attachment's slot, empty: a second ADD without a DEL is refused, and the first one's
    /// network stays.
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
                .with_details("ADD came twice; DEL comes first"))
            }
        }
    }

    /// Undoes what an ADD of ours did. What cannot be undone now keeps its state, for the DEL that
    /// follows.
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

/// Removes the state of an ADD that has come to nothing.
fn discard(call: &Call, slot: Option<Slot>) {
    if let Some(Err(error)) = slot.map(Slot::remove) {
        call.console.warn(error);
    }
}

/// What the agent says of a pod, once it has found no fault with it.
fn is_ours(question: Question<'_>) -> Result<bool, Error> {
    match question.finish(Start::OnDemand) {
        Ok(Reply::Prepared(prepared)) => {
            failpoint::pass("add.after_prepare");
            Ok(prepared.ours)
        }
        other => Err(unexpected(other)),
    }
}

/// An answer that is none to what was asked.
fn unexpected(answer: Result<Reply, AgentError>) -> Error {
    match answer {
        Err(error) => error.into(),
        Ok(_) => Error::new(
            own::PROTOCOL,
            "the agent answered something else than was asked; restart it",
        ),
    }
}

/// Whether a runtime would find an address of the pod: containerd takes one on CNI_IFNAME, or on no
/// interface.
fn has_address(result: &CniResult, ifname: &str) -> bool {
    let interfaces = result.interfaces();
    result.ips().iter().any(|ip| {
        let Some(index) = ip.interface else {
            return true;
        };
        let interface = usize::try_from(index)
            .ok()
            .and_then(|index| interfaces.get(index));
        interface.is_some_and(|interface| interface.name == ifname && !interface.sandbox.is_empty())
    })
}

/// The config's own name resolution, if it has any: it goes before the embedded plugin's.
fn outer_dns(call: &Call) -> Result<Option<Dns>, Error> {
    let Some(raw) = call.request.config.raw_key("dns") else {
        return Ok(None);
    };
    let result = CniResult::parse(&format!("{{\"dns\":{}}}", raw.get()), Version::NEWEST).map_err(
        |error| {
            Error::invalid_config("invalid value of the config's key \"dns\"")
                .with_details(error.to_string())
        },
    )?;
    Ok(Some(result.dns().clone()).filter(|dns| !dns.is_empty()))
}

/// Refuses a CNI_NETNS that is no network namespace before anything is made.
fn require_netns(netns: &str) -> Result<(), Error> {
    let problem = match is_namespace(netns) {
        Ok(true) => return Ok(()),
        Ok(false) => "it is no namespace",
        Err(error) => error.desc(),
    };
    Err(Error::invalid_netns(format!(
        "CNI_NETNS {netns:?} cannot be used: {problem}"
    )))
}
