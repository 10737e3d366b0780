//! Endpoints as a Topology writes them.

use std::{fmt, str::FromStr};

use ratchet_model::{InterfaceName, NameError, PodKey};

/// An endpoint: `pod:interface`, or `namespace/pod:interface`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointRef {
    /// The namespace, if it is written.
    pub namespace: Option<String>,
    /// The name of a slot of the Topology, or of a pod.
    pub pod: String,
    /// The interface.
    pub interface: InterfaceName,
}

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It does not have the form.
    #[error("endpoint {0:?}: expected pod:interface or namespace/pod:interface, such as r1:eth1")]
    Form(String),
    /// A name in it cannot be one.
    #[error("endpoint {endpoint:?}: {error}")]
    Name {
        /// The endpoint.
        endpoint: String,
        /// What is wrong with which name.
        error: NameError,
    },
}

impl EndpointRef {
    /// The pod, if the endpoint's pod is no slot. `namespace` is the Topology's.
    ///
    /// # Errors
    /// When a name cannot be one. An endpoint that was read from a text has good names.
    pub fn pod_key(&self, namespace: &str) -> Result<PodKey, NameError> {
        PodKey::new(self.namespace.as_deref().unwrap_or(namespace), &self.pod)
    }
}

impl FromStr for EndpointRef {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let form = || EndpointError::Form(text.to_owned());
        let name = |error| EndpointError::Name {
            endpoint: text.to_owned(),
            error,
        };
        let (pod, interface) = text.split_once(':').ok_or_else(form)?;
        let (namespace, pod) = match pod.split_once('/') {
            Some((namespace, pod)) => (Some(namespace), pod),
            None => (None, pod),
        };
        if pod.contains('/') || pod.is_empty() || namespace == Some("") || interface.is_empty() {
            return Err(form());
        }
        let endpoint = Self {
            namespace: namespace.map(ToOwned::to_owned),
            pod: pod.to_owned(),
            interface: interface.parse().map_err(name)?,
        };
        endpoint.pod_key("default").map_err(name)?;
        Ok(endpoint)
    }
}

impl fmt::Display for EndpointRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        write!(f, "{}:{}", self.pod, self.interface)
    }
}

#[cfg(test)]
mod tests;
