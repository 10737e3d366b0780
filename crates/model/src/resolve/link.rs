//! A link, as all declarations of it together say.

use crate::{
    WiringKind,
    link::{DeclaredLink, End, Endpoint, Mac, Mtu, Vni},
    names::{LinkId, PodKey},
    reason::Reason,
    shape::Shape,
};

/// A link, as all declarations of it together say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its id.
    pub id: LinkId,
    /// The end `A`.
    pub a: Endpoint,
    /// The other one.
    pub z: Endpoint,
    /// The MTU that was set, if one was.
    pub mtu: Option<Mtu>,
    /// The VNI that was set, if one was.
    pub vni: Option<Vni>,
    /// How it is to be wired, if that was set.
    pub wiring: Option<WiringKind>,
    /// The pods that declare it.
    pub declared_by: Vec<PodKey>,
    /// Why nothing is made of it and nothing of it stays: a pod has not consented, or an interface
    /// is not its. Only its declarers have to do with it then.
    pub barred: Option<Box<Reason>>,
    /// Why it cannot be wired: its declarations contradict each other or another link's.
    pub problem: Option<Box<Reason>>,
    /// What will probably not work as the user expects.
    pub warnings: Vec<Reason>,
    /// The same, for a declarer alone.
    pub remarks: Vec<(PodKey, Reason)>,
}

impl Link {
    /// Its shape. What can be declared is a cable.
    pub fn shape(&self) -> Shape {
        Shape::Cable
    }

    /// One of the endpoints.
    pub fn endpoint(&self, end: End) -> &Endpoint {
        match end {
            End::A => &self.a,
            End::Z => &self.z,
        }
    }

    /// Both endpoints.
    pub fn endpoints(&self) -> [&Endpoint; 2] {
        [&self.a, &self.z]
    }

    /// Whether a pod has to do with it: it is at one of its ends, unless the link is barred and
    /// the pod does not declare it.
    pub fn concerns(&self, pod: &PodKey) -> bool {
        let is_end = self.a.pod == *pod || self.z.pod == *pod;
        is_end && (self.barred.is_none() || self.declared_by.contains(pod))
    }

    /// Whether only pods of other namespaces than that of a pod declare it.
    pub fn is_foreign_to(&self, pod: &PodKey) -> bool {
        let mut declarers = self.declared_by.iter();
        declarers.all(|declarer| declarer.namespace() != pod.namespace())
    }

    /// The pods whose users are told of what is wrong with it: its declarers, and unless it is
    /// barred, those of their namespaces.
    pub fn audience(&self) -> impl Iterator<Item = &PodKey> {
        let is_told = |pod: &PodKey| {
            self.declared_by.contains(pod)
                || self.barred.is_none()
                    && self
                        .declared_by
                        .iter()
                        .any(|declarer| declarer.namespace() == pod.namespace())
        };
        let both = [
            Some(&self.a.pod),
            Some(&self.z.pod).filter(|z| **z != self.a.pod),
        ];
        both.into_iter().flatten().filter(move |pod| is_told(pod))
    }

    /// Whether the ends in a pod are as that pod alone declares the link: then what is wrong with
    /// them is its own doing.
    pub fn is_as_declared(&self, by: &DeclaredLink) -> bool {
        let is_as = |end: End| {
            let is = self.endpoint(end);
            let said = [&by.local, &by.remote]
                .into_iter()
                .find(|said| said.pod == is.pod && said.interface == is.interface);
            said.is_some_and(|said| {
                is.addresses == said.addresses.clone().unwrap_or_default()
                    && is.routes == said.routes.clone().unwrap_or_default()
                    && is.mac == said.mac.unwrap_or_else(|| Mac::derive(self.id, end))
            })
        };
        let mut own = End::BOTH
            .into_iter()
            .filter(|end| self.endpoint(*end).pod == by.local.pod);
        self.mtu == by.mtu && own.all(is_as)
    }
}
