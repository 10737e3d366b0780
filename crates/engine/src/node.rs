//! This node: the settings that were asked for, and what they come to here, with defaults filled
//! in and the underlay looked up.

use std::{net::IpAddr, time::Duration};

use ratchet_kernel::Underlay;
use ratchet_model::{
    Mtu, NodeName, Reason, Vni, VniRange,
    declaration::CrossNamespace,
    wiring::{Node, Vtep},
};
use ratchet_protocol::{Difference, Failure, FailureKind, Settings};

use crate::{
    kernel::Kernel,
    retry::{Retry, Tried},
};

/// The MTU, in bytes, that an underlay is taken to have which was never known: Ethernet's. It gives
/// links within the node an MTU, unless their declaration or the settings name one.
const USUAL_UNDERLAY_MTU: u32 = 1500;

/// This node, as its settings and its kernel say.
pub(crate) struct ThisNode {
    asked: Settings,
    managed: bool,
    /// The network by whose config an agent on demand has its settings, once one has attached.
    network: Option<String>,
    name: Result<NodeName, Reason>,
    underlay: Result<Underlay, Reason>,
    /// The underlay as it was known last. Tunnels stay on it while it is gone.
    last: Option<Underlay>,
}

/// What a node allows its pods with pods of other namespaces. It is in their records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// Which links are allowed.
    pub cross_namespace: CrossNamespace,
    /// How many links that only the others declare, if not the default.
    pub max_foreign_links: Option<usize>,
}

/// What comes of a config's settings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Agreement {
    /// They are the agent's.
    Same,
    /// They are the agent's from now on.
    TakenOver {
        /// Whether they name another store, or another way to it.
        other_store: bool,
    },
}

impl ThisNode {
    /// A node whose kernel has not been asked yet. One that is `managed` keeps its settings.
    pub fn new(asked: Settings, managed: bool) -> Self {
        let name = named(&asked);
        let underlay = Err(Reason::AgentStarting {});
        Self {
            asked,
            managed,
            network: None,
            name,
            underlay,
            last: None,
        }
    }

    /// Looks up the name and the underlay again; an underlay that has changed changes links.
    pub fn look(&mut self, kernel: &dyn Kernel) {
        let name = named(&self.asked);
        let underlay = find_underlay(&self.asked, kernel);
        if (&name, &underlay) != (&self.name, &self.underlay) {
            match name.as_ref().and(underlay.as_ref()) {
                Ok(underlay) => {
                    tracing::info!(settings = ?self.asked, ?name, ?underlay, "this node")
                }
                Err(reason) => tracing::error!(%reason, "tunnels cannot be made on this node"),
            }
        }
        if let Ok(underlay) = &underlay {
            self.last = Some(underlay.clone());
        }
        (self.name, self.underlay) = (name, underlay);
    }

    /// The settings in force: those asked for, and what the others come to, as far as it is known.
    pub fn settings(&self) -> Settings {
        let (asked, underlay) = (self.asked.clone().or_defaults(), self.last.as_ref());
        Settings {
            node: self.name.as_ref().ok().cloned(),
            parent_interface: underlay
                .map(|underlay| underlay.interface.clone())
                .or(asked.parent_interface),
            parent_address: underlay
                .map(|underlay| underlay.address)
                .or(asked.parent_address),
            ..asked
        }
    }

    /// For how long other agents wait for a sign of life of this one; none: for ever.
    pub fn timeout(&self) -> Option<Duration> {
        let timeout = self.settings().node_timeout;
        let seconds = timeout.filter(|seconds| *seconds > 0)?;
        Some(Duration::from_secs(seconds.into()))
    }

    /// What is wrong with a VNI that a pod declares, if anything is.
    pub fn refuse_vni(&self, vni: Vni) -> Option<Reason> {
        let range = self
            .settings()
            .declared_vni_range
            .unwrap_or(VniRange::DECLARABLE);
        (!range.contains(vni)).then_some(Reason::VniNotDeclarable { vni, range })
    }

    /// Its name.
    pub fn name(&self) -> Tried<&NodeName> {
        let failed = |reason: &Reason| Retry::Node(failure(reason));
        self.name.as_ref().map_err(failed)
    }

    /// Whether tunnels can be made. If not, those that exist stay as they are.
    pub fn has_underlay(&self) -> bool {
        self.underlay.is_ok()
    }

    /// What wiring must know of it. Its VTEP is the one that was known last.
    pub fn wiring(&self) -> Tried<Node> {
        let underlay = self.last.as_ref();
        let mtu = underlay.map_or_else(
            || Mtu::within_underlay(USUAL_UNDERLAY_MTU, IpAddr::from([0, 0, 0, 0])),
            |underlay| Mtu::within_underlay(underlay.mtu, underlay.address),
        );
        Ok(Node {
            name: self.name()?.clone(),
            vtep: underlay.map(|underlay| Vtep {
                address: underlay.address,
                parent: underlay.index,
            }),
            mtu,
            default_mtu: self.asked.mtu,
            default_wiring: self.asked.wiring.unwrap_or_default(),
            full: None,
        })
    }

    /// How many devices of links it may have.
    pub fn max_devices(&self) -> usize {
        self.asked.quotas().devices
    }

    /// What it allows to pods of other namespaces.
    pub fn terms(&self) -> Terms {
        let limit = self.asked.max_foreign_links;
        Terms {
            cross_namespace: self.asked.cross_namespace.unwrap_or_default(),
            max_foreign_links: limit.map(|_| self.asked.quotas().foreign_links),
        }
    }

    /// Why it cannot do all that it should, if so.
    pub fn trouble(&self) -> Option<&Reason> {
        self.name.as_ref().err().or(self.underlay.as_ref().err())
    }

    /// The same, for a client.
    pub fn failure(&self) -> Option<Failure> {
        self.trouble().map(failure)
    }

    /// Holds a config's settings against the agent's, and changes nothing. A managed agent refuses
    /// what differs; one that was started on demand would take it over. Returns whether they are
    /// the agent's.
    ///
    /// # Errors
    /// When the two disagree, or the node cannot work with the settings. That its underlay is gone
    /// for a while is no error, as links within the node need none. But an agent that was started
    /// on demand has its settings from a config: if it has never found the underlay that they name,
    /// the config is wrong, and its author is told.
    pub fn agrees(&mut self, asked: &Settings, kernel: &dyn Kernel) -> Result<bool, Failure> {
        Ok(self.compare(asked, kernel)?.is_none())
    }

    /// The same for a network that attaches a sandbox: an agent on demand takes over what differs.
    /// `is_used` says whether a network has a sandbox here.
    ///
    /// # Errors
    /// As [`Self::agrees`]; and when the settings in force are those of another network that is
    /// used: a node has one agent, and its links would move from store to store with each call.
    pub fn agree_on(
        &mut self,
        (network, asked): (&str, &Settings),
        is_used: impl Fn(&str) -> bool,
        kernel: &dyn Kernel,
    ) -> Result<Agreement, Failure> {
        let Some((differences, next)) = self.compare(asked, kernel)? else {
            self.network.get_or_insert_with(|| network.to_owned());
            return Ok(Agreement::Same);
        };
        if let Some(first) = self.network.as_deref()
            && first != network
            && is_used(first)
        {
            let text = format!(
                "this node's agent has the settings of the CNI config {first}, and the config \
                 {network} disagrees: {differences}; a node has one agent, so make the two agree"
            );
            return Err(Failure::new(FailureKind::Invalid, text));
        }
        tracing::info!(
            network,
            differences,
            "the config has changed; taking it over"
        );
        let other_store = !self.settings().same_store(&next.settings());
        *self = Self {
            network: Some(network.to_owned()),
            ..next
        };
        Ok(Agreement::TakenOver { other_store })
    }

    /// Where a config differs, and what this node would be by its settings.
    fn compare(
        &mut self,
        asked: &Settings,
        kernel: &dyn Kernel,
    ) -> Result<Option<(String, Self)>, Failure> {
        if self.trouble().is_some() {
            self.look(kernel);
        }
        self.name()?;
        let differences = self.differences(&self.settings(), asked);
        if differences.is_empty() {
            return match self.failure() {
                Some(failure) if !self.managed && self.last.is_none() => Err(failure),
                _ => Ok(None),
            };
        }
        let list: Vec<String> = differences.iter().map(ToString::to_string).collect();
        let differences = list.join(", ");
        if self.managed {
            return Err(Failure::new(
                FailureKind::Invalid,
                format!(
                    "this node's agent (pid {}, started with its own settings) and the CNI config \
                     disagree: {differences}; make them agree and restart the agent",
                    std::process::id(),
                ),
            ));
        }
        let mut next = Self::new(self.asked.overridden_by(asked), self.managed);
        next.look(kernel);
        match next.failure() {
            Some(failure) => Err(failure),
            None => Ok(Some((differences, next))),
        }
    }

    /// Where a config says something else. Before the underlay is known, a config may name it where
    /// the agent's settings leave it open.
    fn differences(&self, have: &Settings, asked: &Settings) -> Vec<Difference> {
        let mut asked = asked.clone();
        if self.last.is_none() {
            asked.parent_interface = asked
                .parent_interface
                .filter(|_| have.parent_interface.is_some());
            asked.parent_address = asked
                .parent_address
                .filter(|_| have.parent_address.is_some());
        }
        have.differences(&asked)
    }
}

/// The node's name: as set, or the host's.
///
/// # Errors
/// When the host's name cannot be read or is no name of a node. The text says what to do.
pub fn node_name(settings: &Settings) -> Result<NodeName, String> {
    if let Some(name) = &settings.node {
        return Ok(name.clone());
    }
    let name = nix::unistd::gethostname()
        .map_err(|e| format!("cannot read the host's name: {e}; set \"node\""))?;
    name.to_string_lossy()
        .parse()
        .map_err(|e: ratchet_model::NameError| format!("{e}; set \"node\""))
}

fn named(settings: &Settings) -> Result<NodeName, Reason> {
    node_name(settings).map_err(|error| Reason::NodeNameInvalid { error })
}

/// What keeps the node from working, as the socket's clients see it.
fn failure(reason: &Reason) -> Failure {
    let kind = match reason {
        Reason::AgentStarting {} => FailureKind::TryLater,
        _ => FailureKind::Invalid,
    };
    Failure::because(kind, reason)
}

fn find_underlay(settings: &Settings, kernel: &dyn Kernel) -> Result<Underlay, Reason> {
    kernel
        .underlay(
            settings.parent_interface.as_deref(),
            settings.parent_address,
        )
        .map_err(|e| Reason::UnderlayUnknown {
            error: e.to_string(),
        })
}

#[cfg(test)]
mod tests;
