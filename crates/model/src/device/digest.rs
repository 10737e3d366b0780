//! The digest of a device's configuration.

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use crate::link::{Mac, Mtu, Route};

/// A digest of an end's configuration, for [`Alias::config`](super::Alias::config).
pub fn config_digest(mac: Mac, mtu: Mtu, addresses: &[IpNet], routes: &[Route]) -> u32 {
    let digest = Sha256::digest(format!("{mac} {mtu} {addresses:?} {routes:?}"));
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}
