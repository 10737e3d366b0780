//! What a cluster is reached with: a connection for each member, certificates, and a password.
//! Their files may be renewed at any time. The password is read for each login, and certificates
//! again after a failure, so a renewal needs no restart.
//!
//! This module makes no calls.

use std::sync::{Mutex, PoisonError, RwLock};

use tonic::transport::{Channel, Endpoint};

use super::{error, options::Certificates, rpc};
use crate::{EtcdOptions, HostPort, StoreError};

/// The ways to the members of a cluster.
pub(super) struct Access {
    hosts: Vec<HostPort>,
    tls: bool,
    options: EtcdOptions,
    connected: RwLock<Connected>,
    /// The user and the last password that could be read.
    credentials: Mutex<Option<(String, String)>>,
}

struct Connected {
    /// One a member. It connects when it is first used, and again (with a new look-up of the name)
    /// after it was lost.
    channels: Vec<Channel>,
    /// What the channels were made with.
    certificates: Option<Certificates>,
}

impl Access {
    /// To these members. Nothing is sent yet. `url` is for messages.
    pub(super) fn new(
        url: &str,
        hosts: &[HostPort],
        tls: bool,
        options: &EtcdOptions,
    ) -> Result<Self, StoreError> {
        let certificates = tls.then(|| options.certificates()).transpose()?;
        let connected = connect(hosts, certificates)
            .map_err(|e| StoreError::Config(format!("store {url}: {}", error::chain(&e))))?;
        Ok(Self {
            hosts: hosts.to_owned(),
            tls,
            options: options.clone(),
            connected: RwLock::new(connected),
            credentials: Mutex::new(options.credentials()?),
        })
    }

    /// The members.
    pub(super) fn hosts(&self) -> &[HostPort] {
        &self.hosts
    }

    /// The connection to a member, by its index.
    pub(super) fn channel(&self, index: usize) -> Channel {
        let connected = self.connected.read();
        connected.unwrap_or_else(PoisonError::into_inner).channels[index].clone()
    }

    /// Whether a login is needed.
    pub(super) fn has_user(&self) -> bool {
        self.options.user.is_some()
    }

    /// User and password as they are now. A file that cannot be read at this moment changes
    /// nothing.
    pub(super) fn credentials(&self) -> Option<(String, String)> {
        let last = self.credentials.lock();
        let mut last = last.unwrap_or_else(PoisonError::into_inner);
        if let Ok(read) = self.options.credentials() {
            *last = read;
        }
        last.clone()
    }

    /// Replaces all connections if the files of the certificates have changed since they were made.
    /// Returns whether they have. Files that do not fit each other, as in the middle of a renewal,
    /// are left for the next time.
    pub(super) fn renew(&self) -> bool {
        if !self.tls {
            return false;
        }
        let Ok(now) = self.options.certificates() else {
            return false;
        };
        let connected = self.connected.write();
        let mut connected = connected.unwrap_or_else(PoisonError::into_inner);
        if connected.certificates.as_ref() == Some(&now) {
            return false;
        }
        let Ok(renewed) = connect(&self.hosts, Some(now)) else {
            return false;
        };
        *connected = renewed;
        true
    }
}

fn connect(
    hosts: &[HostPort],
    certificates: Option<Certificates>,
) -> Result<Connected, tonic::transport::Error> {
    let channel = |host: &HostPort| {
        let scheme = if certificates.is_some() {
            "https"
        } else {
            "http"
        };
        let endpoint = rpc::timed(Endpoint::from_shared(format!("{scheme}://{host}"))?);
        let endpoint = match &certificates {
            Some(certificates) => endpoint.tls_config(certificates.config())?,
            None => endpoint,
        };
        Ok(endpoint.connect_lazy())
    };
    Ok(Connected {
        channels: hosts.iter().map(channel).collect::<Result<_, _>>()?,
        certificates,
    })
}
