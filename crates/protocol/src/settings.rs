//! The settings that an agent must share with every config on its node.

use std::net::IpAddr;

use ratchet_model::{Mtu, NodeName};
use serde::{Deserialize, Serialize};

/// What a config (or the agent's command line) says about store, node and underlay. What is `None` was not said: it is the
/// default for an agent, and of no matter when a config is held against an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The store's URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// The node's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The underlay's interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_interface: Option<String>,
    /// The underlay's address: the node's VTEP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_address: Option<IpAddr>,
    /// The MTU of links that set none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Mtu>,
}

impl Settings {
    /// Where `asked` says something other than these settings do: key, what is set, what is asked for.
    pub fn differences(&self, asked: &Settings) -> Vec<(&'static str, String, String)> {
        fn compare<T: PartialEq + ToString>(
            key: &'static str,
            have: Option<&T>,
            asked: Option<&T>,
        ) -> Option<(&'static str, String, String)> {
            let asked = asked?;
            (have != Some(asked))
                .then(|| (key, have.map_or_else(|| "not set".to_string(), T::to_string), asked.to_string()))
        }
        [
            compare("store", self.store.as_ref(), asked.store.as_ref()),
            compare("node", self.node.as_ref(), asked.node.as_ref()),
            compare("parent_interface", self.parent_interface.as_ref(), asked.parent_interface.as_ref()),
            compare("parent_address", self.parent_address.as_ref(), asked.parent_address.as_ref()),
            compare("mtu", self.mtu.as_ref(), asked.mtu.as_ref()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// These settings with what `asked` says in their place.
    pub fn overridden_by(&self, asked: &Settings) -> Settings {
        let asked = asked.clone();
        Settings {
            store: asked.store.or_else(|| self.store.clone()),
            node: asked.node.or_else(|| self.node.clone()),
            parent_interface: asked.parent_interface.or_else(|| self.parent_interface.clone()),
            parent_address: asked.parent_address.or(self.parent_address),
            mtu: asked.mtu.or(self.mtu),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_can_differ() {
        let agent =
            Settings { store: Some("sqlite:/a".into()), node: Some("n1".parse().unwrap()), ..Settings::default() };
        assert_eq!(agent.differences(&Settings::default()), []);
        let asked = Settings { store: Some("sqlite:/b".into()), mtu: Mtu::try_from(1400).ok(), ..Settings::default() };
        assert_eq!(
            agent.differences(&asked),
            [
                ("store", "sqlite:/a".to_string(), "sqlite:/b".to_string()),
                ("mtu", "not set".to_string(), "1400".to_string())
            ]
        );
        assert_eq!(agent.overridden_by(&asked).differences(&asked), []);
        assert_eq!(agent.overridden_by(&asked).node, agent.node);
    }
}
