//! Checks an etcd store's options and reads their files, before it connects.

use std::{fs, path::Path};

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::{EtcdOptions, StoreError};

impl EtcdOptions {
    /// Refuses options that contradict each other or the URL, and names their keys.
    pub(super) fn check(&self, tls: bool) -> Result<(), StoreError> {
        let refuse = |why: &str| Err(StoreError::Config(why.to_owned()));
        if !tls && (self.ca.is_some() || self.cert.is_some() || self.key.is_some()) {
            return refuse(
                "etcd_ca, etcd_cert and etcd_key need TLS: write etcds:// instead of etcd:// in \
                 the key `store`",
            );
        }
        if self.cert.is_some() != self.key.is_some() {
            return refuse("etcd_cert and etcd_key go together: give both or none");
        }
        if self.user.is_some() != self.password_file.is_some() {
            return refuse("etcd_user and etcd_password_file go together: give both or none");
        }
        if !self.prefix.starts_with('/')
            || self.prefix.trim_end_matches('/').is_empty()
            || !self.prefix.is_ascii()
        {
            return refuse("etcd_prefix: expected a path such as /ratchet");
        }
        Ok(())
    }

    /// Certificates, read from their files.
    pub(super) fn tls(&self) -> Result<ClientTlsConfig, StoreError> {
        let mut config = ClientTlsConfig::new();
        config = match &self.ca {
            Some(ca) => config.ca_certificate(Certificate::from_pem(read("etcd_ca", ca)?)),
            None => config.with_native_roots(),
        };
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            config = config.identity(Identity::from_pem(
                read("etcd_cert", cert)?,
                read("etcd_key", key)?,
            ));
        }
        Ok(config)
    }

    /// User and password.
    pub(super) fn credentials(&self) -> Result<Option<(String, String)>, StoreError> {
        let (Some(user), Some(file)) = (&self.user, &self.password_file) else {
            return Ok(None);
        };
        let password = read("etcd_password_file", file)?;
        Ok(Some((
            user.clone(),
            password.trim_end_matches(['\r', '\n']).to_owned(),
        )))
    }
}

fn read(key: &str, path: &Path) -> Result<String, StoreError> {
    fs::read_to_string(path).map_err(|error| {
        StoreError::Config(format!("{key}: cannot read {}: {error}", path.display()))
    })
}
