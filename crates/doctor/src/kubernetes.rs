//! What a node of the store `kubernetes` needs of the API: that it answers, knows Ratchet's kinds,
//! lets the agent do its work, has the node's underlay as it is, and that a controller works.

mod read;
#[cfg(test)]
mod tests;

use std::time::Duration;

use ratchet_api::NodeUnderlaySpec;
use ratchet_engine::node_name;
use ratchet_kernel::{Kernel, Underlay};
use ratchet_model::{Mtu, NodeName, device::VXLAN_PORT};
use ratchet_protocol::{DEFAULT_STORE, Settings};
use ratchet_store::StoreUrl;

use crate::Check;

/// The namespace of the controller's Lease, as the controller has it by default.
const NAMESPACE: &str = "ratchet";

/// The Lease's name, as the controller has it by default.
const LEASE: &str = "ratchet-controller";

/// A Lease that has not been renewed for so long has no holder, even if clocks differ.
const RENEWED: Duration = Duration::from_secs(60);

/// The kinds of Ratchet, by their plural names: agents need the first two.
const KINDS: [&str; 5] = [
    "links",
    "nodeunderlays",
    "topologies",
    "vniblocks",
    "linkgrants",
];

/// How many of [`KINDS`] agents need.
const OF_AGENTS: usize = 2;

/// What the agent must be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Right {
    verb: &'static str,
    resource: &'static str,
    subresource: Option<&'static str>,
    /// Only to the object of the node's name.
    is_own: bool,
}

const RIGHTS: [Right; 5] = [
    Right::of("list", "links"),
    Right::of("watch", "links"),
    Right {
        subresource: Some("status"),
        ..Right::of("patch", "links")
    },
    Right::of("create", "nodeunderlays"),
    Right {
        is_own: true,
        ..Right::of("patch", "nodeunderlays")
    },
];

impl Right {
    const fn of(verb: &'static str, resource: &'static str) -> Self {
        Self {
            verb,
            resource,
            subresource: None,
            is_own: false,
        }
    }

    /// As `kubectl auth can-i` takes it.
    fn words(self) -> String {
        let Self { verb, resource, .. } = self;
        match self.subresource {
            Some(subresource) => format!("{verb} {resource}/{subresource}"),
            None => format!("{verb} {resource}"),
        }
    }
}

/// The controller's Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    /// Who has it; empty: nobody.
    name: String,
    /// For how long it has not been renewed, by the node's clock.
    age: Duration,
}

/// What the API said.
#[derive(Debug)]
struct Seen {
    /// The server's version.
    version: String,
    /// The plural names of Ratchet's kinds.
    kinds: Result<Vec<String>, String>,
    /// What of [`RIGHTS`] is refused.
    refused: Result<Vec<Right>, String>,
    /// The NodeUnderlay of this node.
    underlay: Result<Option<NodeUnderlaySpec>, String>,
    /// The controller's Lease.
    lease: Result<Option<Holder>, String>,
}

/// Which way the node runs, and with the store `kubernetes`, what the API says of it.
pub(crate) fn look(settings: &Settings) -> Vec<Check> {
    let store = settings.store.as_deref().unwrap_or(DEFAULT_STORE);
    let mut checks = vec![judge_way(store)];
    if !settings.store_declares() {
        return checks;
    }
    let node = match node_name(settings) {
        Ok(node) => node,
        Err(error) => {
            let hint = "set \"node\" to the name of the node's Node object";
            checks.push(Check::fail("node's name", error, hint));
            return checks;
        }
    };
    let kubeconfig = settings.kubeconfig.as_deref().unwrap_or("auto");
    let kernel = Kernel::new().ok().and_then(|kernel| {
        let parent = settings.parent_interface.as_deref();
        kernel.underlay(parent, settings.parent_address).ok()
    });
    match read::read(kubeconfig, &node) {
        Ok(seen) => checks.extend(judge(&seen, &node, kernel.as_ref())),
        Err(error) => checks.push(judge_silence(&error)),
    }
    checks
}

fn judge_way(store: &str) -> Check {
    let name = "this node runs";
    match store.parse::<StoreUrl>() {
        Ok(StoreUrl::Kubernetes) => Check::ok(
            name,
            "with Kubernetes: the controller makes Links of what pods and Topologies declare",
        ),
        Ok(StoreUrl::Etcd { .. }) => Check::ok(
            name,
            "with etcd: its agent makes links of what pods declare, with those of other nodes",
        ),
        Ok(StoreUrl::Sqlite(_)) => Check::ok(
            name,
            "with SQLite: its agent makes links of what pods declare, on this machine only",
        ),
        Err(error) => Check::fail(name, error.to_string(), "correct \"store\""),
    }
}

fn judge_silence(error: &str) -> Check {
    let hint = "links that are up stay up, new ones wait; correct \"kubeconfig\", or see to the \
                API server";
    Check::fail("Kubernetes API", error, hint)
}

fn judge(seen: &Seen, node: &NodeName, underlay: Option<&Underlay>) -> Vec<Check> {
    let found = format!("it answers, version {}", seen.version);
    vec![
        Check::ok("Kubernetes API", found),
        judge_kinds(&seen.kinds),
        judge_rights(&seen.refused, node),
        judge_underlay(&seen.underlay, node, underlay),
        judge_lease(&seen.lease),
    ]
}

fn judge_kinds(kinds: &Result<Vec<String>, String>) -> Check {
    let name = "Ratchet's kinds";
    let kinds = match kinds {
        Ok(kinds) => kinds,
        Err(error) => return Check::warn(name, error, "run doctor again"),
    };
    let is_missing = |kind: &&&str| !kinds.iter().any(|there| there == **kind);
    let missing: Vec<&str> = KINDS.iter().filter(is_missing).copied().collect();
    let found = format!("the API lacks {} of ratchet.dev", missing.join(", "));
    let hint = "kubectl apply -f deploy/crds.yaml";
    if missing.is_empty() {
        Check::ok(name, "the API has them")
    } else if KINDS[..OF_AGENTS].iter().any(|kind| missing.contains(kind)) {
        Check::fail(name, found, hint)
    } else {
        Check::warn(name, found, hint)
    }
}

fn judge_rights(refused: &Result<Vec<Right>, String>, node: &NodeName) -> Check {
    let name = "agent's rights";
    let refused = match refused {
        Ok(refused) => refused,
        Err(error) => return Check::warn(name, error, "run doctor again"),
    };
    let words: Vec<String> = refused.iter().map(|right| right.words()).collect();
    if words.is_empty() {
        let found = "it may read Links, and write their status and its NodeUnderlay";
        return Check::ok(name, found);
    }
    let found = format!("node {node}'s agent may not: {}", words.join(", "));
    Check::fail(name, found, "give its account these rights of ratchet.dev")
}

/// `underlay`: as the kernel has it; `None` has a check of its own.
fn judge_underlay(
    published: &Result<Option<NodeUnderlaySpec>, String>,
    node: &NodeName,
    underlay: Option<&Underlay>,
) -> Check {
    let name = "NodeUnderlay";
    let published = match published {
        Ok(Some(published)) => published,
        Ok(None) => {
            let found = format!("the API has none of node {node}: other nodes do not reach it");
            let hint = "start the agent, which writes it; if it runs, read its log";
            return Check::fail(name, found, hint);
        }
        Err(error) => return Check::warn(name, error, "doctor needs get on nodeunderlays"),
    };
    let NodeUnderlaySpec {
        vtep, mtu, port, ..
    } = published;
    let found = format!("{node}: tunnels end at {vtep}, UDP {port}, with MTU {mtu}");
    let Some(underlay) = underlay else {
        let hint = "see the check of the underlay";
        return Check::warn(name, format!("{found}; the node's own is not known"), hint);
    };
    let room = Mtu::within_underlay(underlay.mtu, underlay.address).bytes();
    let address = underlay.address;
    if vtep.parse() == Ok(address) && *mtu == room && *port == VXLAN_PORT {
        return Check::ok(name, found);
    }
    let found = format!("{found}; the node has {address}, UDP {VXLAN_PORT}, MTU {room}");
    let hint = "the agent corrects it within ten minutes, or when it is started again; if it does \
                not, another node's agent may have this node's name (\"node\")";
    Check::fail(name, found, hint)
}

fn judge_lease(lease: &Result<Option<Holder>, String>) -> Check {
    let name = "controller";
    let hint = "links that are up stay up, new ones wait; start ratchet controller, see \
                docs/kubernetes.md";
    match lease {
        Err(error) => {
            let hint = format!("doctor needs get on leases in the namespace {NAMESPACE}");
            Check::warn(name, error, hint)
        }
        Ok(None) => {
            let found = format!("none has led yet: there is no Lease {NAMESPACE}/{LEASE}");
            Check::warn(name, found, hint)
        }
        Ok(Some(holder)) if holder.name.is_empty() => Check::warn(
            name,
            format!("none holds the Lease {NAMESPACE}/{LEASE}"),
            hint,
        ),
        Ok(Some(Holder { name: holder, age })) if *age > RENEWED => {
            let seconds = age.as_secs();
            let found = format!("{holder} holds the Lease, and has not renewed it for {seconds} s");
            Check::warn(name, found, hint)
        }
        Ok(Some(holder)) => Check::ok(name, format!("{} leads", holder.name)),
    }
}
