//! Reads the texts of objects into the model's types.

use std::{fmt::Display, net::IpAddr, str::FromStr};

use ratchet_model::{
    DeclaredEnd, InterfaceName, Mtu, NodeName, PodKey, Route as ModelRoute, Vni, WiringKind,
};

use crate::{EndpointRef, LinkEnd, LinkSpec, Route, TopologyLink};

/// A field has a value that the schema should have refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// The field.
    pub field: &'static str,
    /// What is wrong with its value.
    pub problem: String,
}

/// Names the field of an error.
fn of<E: Display>(field: &'static str) -> impl Fn(E) -> FieldError {
    move |error| FieldError {
        field,
        problem: error.to_string(),
    }
}

fn parsed<T: FromStr<Err: Display>>(field: &'static str, text: &str) -> Result<T, FieldError> {
    text.parse()
        .map_err(|error: T::Err| of(field)(format!("{text:?}: {error}")))
}

impl Route {
    /// The route in the model's form.
    ///
    /// # Errors
    /// When a text is no address.
    pub fn read(&self) -> Result<ModelRoute, FieldError> {
        let via = self.via.as_deref();
        Ok(ModelRoute {
            dst: parsed("routes.dst", &self.dst)?,
            via: via.map(|via| parsed("routes.via", via)).transpose()?,
            metric: self.metric,
        })
    }
}

impl From<&ModelRoute> for Route {
    fn from(route: &ModelRoute) -> Self {
        Self {
            dst: route.dst.to_string(),
            via: route.via.map(|via| via.to_string()),
            metric: route.metric,
        }
    }
}

impl LinkEnd {
    /// An end as it is declared, of which pod, node and VTEP are not resolved yet.
    pub fn of_declared(end: &DeclaredEnd) -> Self {
        let addresses = end.addresses.iter().flatten();
        Self {
            namespace: end.pod.namespace().to_owned(),
            pod: Some(end.pod.name().to_owned()),
            interface: end.interface.to_string(),
            addresses: addresses.map(ToString::to_string).collect(),
            mac: end.mac.map(|mac| mac.to_string()),
            routes: end.routes.iter().flatten().map(Route::from).collect(),
            ..Self::default()
        }
    }

    /// The pod, if there is one.
    ///
    /// # Errors
    /// When the names cannot be a pod's.
    pub fn pod_key(&self) -> Result<Option<PodKey>, FieldError> {
        let pod = self.pod.as_deref();
        pod.map(|pod| PodKey::new(&self.namespace, pod).map_err(of("pod")))
            .transpose()
    }

    /// The interface.
    ///
    /// # Errors
    /// When it has a name that an interface cannot have.
    pub fn interface_name(&self) -> Result<InterfaceName, FieldError> {
        self.interface.parse().map_err(of("interface"))
    }

    /// The pod's node, if it has one.
    ///
    /// # Errors
    /// When it has a name that a node cannot have.
    pub fn read_node(&self) -> Result<Option<NodeName>, FieldError> {
        let node = self.node.as_deref();
        node.map(|node| parsed("node", node)).transpose()
    }

    /// The greatest MTU that fits into the node's tunnels, if it is known.
    ///
    /// # Errors
    /// When no device can have it.
    pub fn read_tunnel_mtu(&self) -> Result<Option<Mtu>, FieldError> {
        mtu(self.tunnel_mtu)
    }

    /// The address at which the node's tunnels end, if it is known.
    ///
    /// # Errors
    /// When it is no address.
    pub fn vtep_address(&self) -> Result<Option<IpAddr>, FieldError> {
        let vtep = self.vtep.as_deref();
        vtep.map(|vtep| parsed("vtep", vtep)).transpose()
    }

    /// What is declared of the end, in the model's form; `None` while there is no pod.
    ///
    /// # Errors
    /// The first field whose value cannot be read.
    pub fn declared(&self) -> Result<Option<DeclaredEnd>, FieldError> {
        let Some(pod) = self.pod_key()? else {
            return Ok(None);
        };
        let addresses = self.addresses.iter();
        let addresses = addresses.map(|text| parsed("addresses", text));
        let mac = self.mac.as_deref();
        Ok(Some(DeclaredEnd {
            pod,
            interface: self.interface_name()?,
            addresses: Some(addresses.collect::<Result<_, _>>()?),
            mac: mac.map(|mac| mac.parse().map_err(of("mac"))).transpose()?,
            routes: Some(
                self.routes
                    .iter()
                    .map(Route::read)
                    .collect::<Result<_, _>>()?,
            ),
        }))
    }
}

/// An MTU of an object in the model's form.
fn mtu(bytes: Option<u32>) -> Result<Option<Mtu>, FieldError> {
    let read = bytes.map(Mtu::try_from).transpose();
    read.map_err(of("mtu"))
}

/// A VNI of an object in the model's form.
fn vni(number: Option<u32>) -> Result<Option<Vni>, FieldError> {
    let read = number.map(Vni::try_from).transpose();
    read.map_err(of("vni"))
}

/// The wiring of an object in the model's form.
fn wiring(text: Option<&str>) -> Result<Option<WiringKind>, FieldError> {
    text.map(|text| parsed("wiring", text)).transpose()
}

impl LinkSpec {
    /// The wiring in the model's form.
    ///
    /// # Errors
    /// When there is no such wiring.
    pub fn read_wiring(&self) -> Result<Option<WiringKind>, FieldError> {
        wiring(self.wiring.as_deref())
    }

    /// The MTU in the model's form.
    ///
    /// # Errors
    /// When no device can have it.
    pub fn read_mtu(&self) -> Result<Option<Mtu>, FieldError> {
        mtu(self.mtu)
    }

    /// The VNI in the model's form.
    ///
    /// # Errors
    /// When it is none.
    pub fn read_vni(&self) -> Result<Option<Vni>, FieldError> {
        vni(self.vni)
    }
}

/// What a Topology says of one end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyEnd<'a> {
    /// Slot or pod, and interface.
    pub endpoint: EndpointRef,
    /// Addresses with their prefix length.
    pub addresses: &'a [String],
    /// The MAC address, if it is given.
    pub mac: Option<&'a str>,
    /// Routes out of the interface.
    pub routes: &'a [Route],
}

impl TopologyLink {
    /// The two ends, in the order of `endpoints`.
    ///
    /// # Errors
    /// When there are not two endpoints, or one of them cannot be read.
    pub fn ends(&self) -> Result<[TopologyEnd<'_>; 2], FieldError> {
        let [first, second] = &self.endpoints[..] else {
            let problem = format!("expected two, found {}", self.endpoints.len());
            return Err(of("endpoints")(problem));
        };
        Ok([self.end(0, first)?, self.end(1, second)?])
    }

    fn end(&self, index: usize, endpoint: &str) -> Result<TopologyEnd<'_>, FieldError> {
        let mac = self.macs.get(index).map(String::as_str);
        Ok(TopologyEnd {
            endpoint: endpoint.parse().map_err(of("endpoints"))?,
            addresses: self.addresses.get(index).map_or(&[], Vec::as_slice),
            mac: mac.filter(|mac| !mac.is_empty()),
            routes: self.routes.get(index).map_or(&[], Vec::as_slice),
        })
    }

    /// The wiring in the model's form.
    ///
    /// # Errors
    /// When there is no such wiring.
    pub fn read_wiring(&self) -> Result<Option<WiringKind>, FieldError> {
        wiring(self.wiring.as_deref())
    }

    /// The MTU in the model's form.
    ///
    /// # Errors
    /// When no device can have it.
    pub fn read_mtu(&self) -> Result<Option<Mtu>, FieldError> {
        mtu(self.mtu)
    }

    /// The VNI in the model's form.
    ///
    /// # Errors
    /// When it is none.
    pub fn read_vni(&self) -> Result<Option<Vni>, FieldError> {
        vni(self.vni)
    }
}

#[cfg(test)]
mod tests;
