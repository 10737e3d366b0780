//! The options for opening a store.

use std::path::PathBuf;

use ratchet_model::{NodeName, VniRange};

use crate::StoreUrl;

/// Which store to open, and how. `url.into()` has defaults for everything except the URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// The store.
    pub url: StoreUrl,
    /// How to reach an etcd cluster. Other stores ignore it.
    pub etcd: EtcdOptions,
    /// `vni_range`: from these, links that declare no VNI get one.
    pub vnis: VniRange,
    /// `kubeconfig`: how to reach the Kubernetes API. Other stores ignore it.
    pub kubeconfig: String,
    /// The node whose links the store `kubernetes` tells of. Other stores ignore it.
    pub node: Option<NodeName>,
}

impl From<StoreUrl> for StoreOptions {
    fn from(url: StoreUrl) -> Self {
        Self {
            url,
            etcd: EtcdOptions::default(),
            vnis: VniRange::AUTOMATIC,
            kubeconfig: "auto".to_owned(),
            node: None,
        }
    }
}

impl StoreOptions {
    /// Options from the keys and values of a configuration. Keys of no store are ignored.
    pub fn new<'a>(
        url: StoreUrl,
        entries: impl IntoIterator<Item = (&'a str, Option<String>)>,
    ) -> Self {
        let mut options = Self::from(url);
        for (key, value) in entries {
            match (key, value) {
                // The table of settings has read it already.
                ("vni_range", Some(value)) => options.vnis = value.parse().unwrap_or_default(),
                ("kubeconfig", Some(value)) => options.kubeconfig = value,
                (key, Some(value)) => options.etcd.set(key, value),
                (_, None) => {}
            }
        }
        options
    }
}

/// How to reach an etcd cluster: the configuration's keys `etcd_…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdOptions {
    /// `etcd_ca`: a file with the CA certificates for the servers. `None`: the system's.
    pub ca: Option<PathBuf>,
    /// `etcd_cert`: a file with the client's certificate.
    pub cert: Option<PathBuf>,
    /// `etcd_key`: a file with its private key.
    pub key: Option<PathBuf>,
    /// `etcd_user`: the user to log in as.
    pub user: Option<String>,
    /// `etcd_password_file`: a file with the user's password.
    pub password_file: Option<PathBuf>,
    /// `etcd_prefix`: the prefix of all keys.
    pub prefix: String,
}

impl Default for EtcdOptions {
    fn default() -> Self {
        Self {
            ca: None,
            cert: None,
            key: None,
            user: None,
            password_file: None,
            prefix: "/ratchet".into(),
        }
    }
}

impl EtcdOptions {
    fn set(&mut self, key: &str, value: String) {
        match key {
            "etcd_ca" => self.ca = Some(value.into()),
            "etcd_cert" => self.cert = Some(value.into()),
            "etcd_key" => self.key = Some(value.into()),
            "etcd_user" => self.user = Some(value),
            "etcd_password_file" => self.password_file = Some(value.into()),
            "etcd_prefix" => self.prefix = value,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_become_options_by_their_keys() {
        let url: StoreUrl = "etcds://a".parse().unwrap();
        let keys = [
            "store",
            "etcd_ca",
            "etcd_cert",
            "etcd_key",
            "etcd_user",
            "etcd_password_file",
            "etcd_prefix",
        ];
        let entries = keys.map(|key| (key, Some(key.to_owned())));
        let range = [("vni_range", Some("20-30".to_owned()))];
        let options = StoreOptions::new(url.clone(), entries.into_iter().chain(range));
        let etcd = EtcdOptions {
            ca: Some("etcd_ca".into()),
            cert: Some("etcd_cert".into()),
            key: Some("etcd_key".into()),
            user: Some("etcd_user".into()),
            password_file: Some("etcd_password_file".into()),
            prefix: "etcd_prefix".into(),
        };
        assert_eq!(
            options,
            StoreOptions {
                url: url.clone(),
                etcd,
                vnis: "20-30".parse().unwrap(),
                kubeconfig: "auto".to_owned(),
                node: None,
            }
        );
        assert_eq!(
            StoreOptions::new(url.clone(), keys.map(|key| (key, None))),
            url.into()
        );
    }
}
