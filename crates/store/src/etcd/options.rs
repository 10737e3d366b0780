//! Checks an etcd store's options and reads their files, before it connects.

use std::{
    fs,
    path::{Path, PathBuf},
};

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
    pub(super) fn certificates(&self) -> Result<Certificates, StoreError> {
        let read = |key, path: &Option<PathBuf>| {
            let path = path.as_ref();
            path.map(|path| read(key, path)).transpose()
        };
        Ok(Certificates {
            ca: read("etcd_ca", &self.ca)?,
            cert: read("etcd_cert", &self.cert)?,
            key: read("etcd_key", &self.key)?,
        })
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

/// What the files of the certificates hold, in PEM.
#[derive(PartialEq, Eq)]
pub(super) struct Certificates {
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
}

impl Certificates {
    /// For a connection.
    pub(super) fn config(&self) -> ClientTlsConfig {
        let config = match &self.ca {
            Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => config.identity(Identity::from_pem(cert, key)),
            _ => config,
        }
    }
}

fn read(key: &str, path: &Path) -> Result<String, StoreError> {
    fs::read_to_string(path).map_err(|error| {
        StoreError::Config(format!("{key}: cannot read {}: {error}", path.display()))
    })
}
