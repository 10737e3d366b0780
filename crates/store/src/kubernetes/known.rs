//! One Link as this node's agent uses it. Pure.

use std::net::IpAddr;

use ratchet_api::{EndState, FieldError, Link, LinkEnd, LinkEndStatus};
use ratchet_model::{
    DeclaredEnd, DeclaredLink, End, Identity, LinkId, Location, Mtu, NodeName, PodKey, Vni,
    WiringKind,
};

/// A Link, read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct KnownLink {
    /// Its namespace and name.
    pub key: LinkKey,
    /// Its generation.
    pub generation: i64,
    /// The link's id.
    pub id: LinkId,
    /// Whether the id is that of the object and not of the pods, since these may be replaced by
    /// others.
    pub has_slot: bool,
    /// Its ends `a` and `b`.
    pub ends: [KnownEnd; 2],
    /// The MTU that is declared.
    pub mtu: Option<Mtu>,
    pub wiring: Option<WiringKind>,
    /// Its VNI.
    pub vni: Option<Vni>,
    /// It is being deleted: nothing of it is wanted.
    pub is_ending: bool,
}

/// A Link's namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LinkKey {
    pub namespace: String,
    pub name: String,
}

/// Which end of a Link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    A,
    B,
}

impl Side {
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The field of spec and status.
    pub fn field(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// An end of a Link.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct KnownEnd {
    pub declared: DeclaredEnd,
    /// Where its pod is, once that is known.
    pub place: Option<EndPlace>,
    /// What the agent of that node last said.
    pub status: Option<LinkEndStatus>,
}

/// Where the pod of an end is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndPlace {
    pub node: NodeName,
    pub pod_uid: String,
    /// Where the node's tunnels end, and what fits into them; none: not known yet.
    pub tunnels: Option<(IpAddr, Mtu)>,
}

impl KnownLink {
    /// Reads a Link; `None` while one of its pods is not known.
    ///
    /// # Errors
    /// A field has a value that the schema should have refused.
    pub fn read(link: &Link) -> Result<Option<Self>, FieldError> {
        let (spec, metadata) = (&link.spec, &link.metadata);
        let status = link.status.clone().unwrap_or_default();
        let a = KnownEnd::read(&spec.a, status.a)?;
        let b = KnownEnd::read(&spec.b, status.b)?;
        let Some((a, b)) = a.zip(b) else {
            return Ok(None);
        };
        let key = LinkKey {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        };
        let has_slot = spec.a.slot.is_some() || spec.b.slot.is_some();
        Ok(Some(Self {
            generation: metadata.generation.unwrap_or_default(),
            id: match has_slot {
                true => LinkId::of_object(&key.namespace, &key.name),
                false => DeclaredLink::new(a.declared.clone(), b.declared.clone()).id(),
            },
            has_slot,
            key,
            ends: [a, b],
            mtu: spec.read_mtu()?,
            wiring: spec.read_wiring()?,
            vni: spec.read_vni()?,
            is_ending: metadata.deletion_timestamp.is_some(),
        }))
    }

    /// Whether facts that follow from it are the same: all but what was said of its ends.
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        let silent = |link: &Self| Self {
            generation: 0,
            ends: link.ends.clone().map(|end| KnownEnd {
                status: None,
                ..end
            }),
            ..link.clone()
        };
        silent(self) == silent(other)
    }

    /// The two ends in both orders.
    pub fn views(&self) -> [(&KnownEnd, &KnownEnd); 2] {
        let [a, b] = &self.ends;
        [(a, b), (b, a)]
    }

    /// The pods of its ends.
    pub fn pods(&self) -> impl Iterator<Item = &PodKey> {
        self.ends.iter().map(|end| &end.declared.pod)
    }

    /// The link as the pod of one end declares it. Each pod declares its own end, so that nothing
    /// is left to be agreed on: the controller has decided what counts.
    pub fn declared(&self, local: &KnownEnd, remote: &KnownEnd) -> DeclaredLink {
        let DeclaredEnd { pod, interface, .. } = remote.declared.clone();
        let is_b = local.declared == self.ends[1].declared;
        let identity = Identity {
            link: self.id,
            local: if is_b { End::Z } else { End::A },
        };
        DeclaredLink {
            mtu: self.mtu,
            wiring: self.wiring,
            identity: self.has_slot.then_some(identity),
            ..DeclaredLink::new(local.declared.clone(), DeclaredEnd::bare(pod, interface))
        }
    }
}

impl KnownEnd {
    fn read(end: &LinkEnd, status: Option<LinkEndStatus>) -> Result<Option<Self>, FieldError> {
        let Some(declared) = end.declared()? else {
            return Ok(None);
        };
        let tunnels = end.vtep_address()?.zip(end.read_tunnel_mtu()?);
        let place = match (end.read_node()?, &end.pod_uid) {
            (Some(node), Some(pod_uid)) => Some(EndPlace {
                node,
                pod_uid: pod_uid.clone(),
                tunnels,
            }),
            _ => None,
        };
        Ok(Some(Self {
            declared,
            place,
            status,
        }))
    }

    /// Whether its pod is on a node.
    pub fn is_on(&self, node: &NodeName) -> bool {
        self.place.as_ref().is_some_and(|place| place.node == *node)
    }

    /// Where its pod is, and in which sandbox, as the agent of its node has said.
    pub fn location(&self) -> Option<Location> {
        let (place, said) = self.place.as_ref().zip(self.status.as_ref())?;
        let is_there = said.pod_uid == place.pod_uid && said.state != EndState::Removed;
        let sandbox = said.sandbox.as_ref().filter(|_| is_there)?;
        let (vtep, mtu) = place.tunnels?;
        Some(Location {
            node: place.node.clone(),
            vtep,
            sandbox: sandbox.parse().ok()?,
            mtu,
            leaving: false,
        })
    }

    /// Whether the agent of its node has said that nothing is left of it.
    pub fn is_removed(&self) -> bool {
        let said = self.status.as_ref().zip(self.place.as_ref());
        said.is_some_and(|(said, place)| {
            said.state == EndState::Removed && said.pod_uid == place.pod_uid
        })
    }
}
