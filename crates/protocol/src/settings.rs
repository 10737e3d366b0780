//! The settings that an agent must share with every config on its node.

use std::net::IpAddr;

use ratchet_model::{Mtu, NodeName};
use serde::{Deserialize, Serialize};

/// What a config (or the agent's command line) says about store, node and underlay. What is `None`
/// was not said: it is the default for an agent, and of no matter when a config is held against an
/// agent.
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
    /// File with the certificates of the authorities that may vouch for etcd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_ca: Option<String>,
    /// File with the certificate to show to etcd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_cert: Option<String>,
    /// File with its private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_key: Option<String>,
    /// The user to log in to etcd as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_user: Option<String>,
    /// File with the user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_password_file: Option<String>,
    /// What all of Ratchet's keys in etcd begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_prefix: Option<String>,
    /// After how many seconds without a sign of life from this node's agent the other agents
    /// remove its pods; 0: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_timeout: Option<u32>,
    /// How the Kubernetes API is reached, for pods' labels: the path of a kubeconfig, or `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<String>,
}

impl Settings {
    /// All of them by the config's keys. The agent's command line has options of the same names,
    /// with `-` for `_`.
    pub fn entries(&self) -> [(&'static str, Option<String>); 13] {
        [
            ("store", self.store.clone()),
            ("node", self.node.as_ref().map(ToString::to_string)),
            ("parent_interface", self.parent_interface.clone()),
            (
                "parent_address",
                self.parent_address.map(|address| address.to_string()),
            ),
            ("mtu", self.mtu.map(|mtu| mtu.to_string())),
            ("etcd_ca", self.etcd_ca.clone()),
            ("etcd_cert", self.etcd_cert.clone()),
            ("etcd_key", self.etcd_key.clone()),
            ("etcd_user", self.etcd_user.clone()),
            ("etcd_password_file", self.etcd_password_file.clone()),
            ("etcd_prefix", self.etcd_prefix.clone()),
            (
                "node_timeout",
                self.node_timeout.map(|seconds| seconds.to_string()),
            ),
            ("kubeconfig", self.kubeconfig.clone()),
        ]
    }

    /// Where `asked` says something other than these settings do: key, what is set, what is asked
    /// for.
    pub fn differences(&self, asked: &Settings) -> Vec<(&'static str, String, String)> {
        let pairs = self.entries().into_iter().zip(asked.entries());
        pairs
            .filter_map(|((key, have), (_, asked))| {
                let asked = asked?;
                let differs = have.as_ref() != Some(&asked);
                differs.then(|| (key, have.unwrap_or_else(|| "not set".to_owned()), asked))
            })
            .collect()
    }

    /// These settings with what `asked` says in their place.
    pub fn overridden_by(&self, asked: &Settings) -> Settings {
        let (have, asked) = (self.clone(), asked.clone());
        Settings {
            store: asked.store.or(have.store),
            node: asked.node.or(have.node),
            parent_interface: asked.parent_interface.or(have.parent_interface),
            parent_address: asked.parent_address.or(have.parent_address),
            mtu: asked.mtu.or(have.mtu),
            etcd_ca: asked.etcd_ca.or(have.etcd_ca),
            etcd_cert: asked.etcd_cert.or(have.etcd_cert),
            etcd_key: asked.etcd_key.or(have.etcd_key),
            etcd_user: asked.etcd_user.or(have.etcd_user),
            etcd_password_file: asked.etcd_password_file.or(have.etcd_password_file),
            etcd_prefix: asked.etcd_prefix.or(have.etcd_prefix),
            node_timeout: asked.node_timeout.or(have.node_timeout),
            kubeconfig: asked.kubeconfig.or(have.kubeconfig),
        }
    }

    /// Whether the two name the same store, and the same way to it.
    pub fn same_store(&self, other: &Settings) -> bool {
        let of_store = |settings: &Settings| {
            let entries = settings.entries().into_iter();
            entries
                .filter(|(key, _)| *key == "store" || key.starts_with("etcd_"))
                .collect::<Vec<_>>()
        };
        of_store(self) == of_store(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_can_differ() {
        let agent = Settings {
            store: Some("sqlite:/a".into()),
            node: Some("n1".parse().unwrap()),
            ..Settings::default()
        };
        assert_eq!(agent.differences(&Settings::default()), []);
        let asked = Settings {
            store: Some("sqlite:/b".into()),
            mtu: Mtu::try_from(1400).ok(),
            ..Settings::default()
        };
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
