//! A link, as all declarations of it together say.

use crate::{
    link::{End, Endpoint, Mtu, Vni},
    names::{LinkId, PodKey},
    reason::Reason,
    shape::Shape,
};

/// A link, as all declarations of it together say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its id.
    pub id: LinkId,
    /// The endpoint that sorts first.
    pub a: Endpoint,
    /// The other one.
    pub z: Endpoint,
    /// The MTU that was set, if one was.
    pub mtu: Option<Mtu>,
    /// The VNI that was set, if one was.
    pub vni: Option<Vni>,
    /// The pods that declare it.
    pub declared_by: Vec<PodKey>,
    /// Why it cannot be wired: its declarations contradict each other or another link's.
    pub problem: Option<Box<Reason>>,
    /// What will probably not work as the user expects.
    pub warnings: Vec<Reason>,
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
}
