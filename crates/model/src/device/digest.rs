//! The digest of a device's configuration, which its alias holds.
//!
//! A device whose digest is not the wanted one is configured again. So the digest of a
//! configuration must not change when Ratchet does: it is made of bytes that are defined here, and
//! golden tests check it.
//!
//! The bytes are the [`VERSION`], then one field for each property that is set. A field is a tag (1
//! byte), the length of the value (1 byte) and the value; numbers are big endian. A property that
//! is not set has no field: a new property, with a tag of its own, changes the digest only of links
//! that have it. Each address and each route has a field, in the order of the declaration.
//!
//! The version only changes if a configuration that was encoded before must be encoded differently.
//! Then [`WantedEnd::is_complete`](super::WantedEnd::is_complete) must accept both, as it does for
//! [`unversioned_digest`].

use std::net::IpAddr;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use crate::link::{Mac, Mtu, Route};

/// The version of the encoding.
const VERSION: u8 = 1;

/// The properties of a device.
mod tag {
    /// Ethernet address: 6 bytes.
    pub const MAC: u8 = 1;
    /// MTU: 4 bytes.
    pub const MTU: u8 = 2;
    /// An address: its prefix length (1 byte), then 4 or 16 bytes.
    pub const ADDRESS: u8 = 3;
    /// A route: the fields of [`route_tag`](super::route_tag).
    pub const ROUTE: u8 = 4;
}

/// The properties of a route.
mod route_tag {
    /// Destination: as an address.
    pub const DST: u8 = 1;
    /// Next hop: 4 or 16 bytes.
    pub const VIA: u8 = 2;
    /// Metric: 4 bytes.
    pub const METRIC: u8 = 3;
}

/// The configuration of a device.
#[derive(Debug, Clone, Copy)]
pub struct Configuration<'a> {
    /// Ethernet address.
    pub mac: Mac,
    /// MTU.
    pub mtu: Mtu,
    /// Addresses.
    pub addresses: &'a [IpNet],
    /// Routes.
    pub routes: &'a [Route],
}

/// The digest of a configuration, for [`Alias::config`](super::Alias::config): the first 4 bytes of
/// the SHA-256 of its bytes. Never [`Alias::UNFINISHED`](super::Alias::UNFINISHED).
pub fn config_digest(configuration: &Configuration<'_>) -> u32 {
    first_of_sha256(&encode(configuration)).max(1)
}

/// The digest that releases before the versioned encoding (0.1.0) gave a configuration: of what
/// Rust's `Debug` made of it. Their devices are complete and must not be configured again.
pub(super) fn unversioned_digest(configuration: &Configuration<'_>) -> u32 {
    let Configuration {
        mac,
        mtu,
        addresses,
        routes,
    } = configuration;
    let list = |texts: Vec<String>| texts.join(", ");
    let option =
        |text: Option<String>| text.map_or("None".to_owned(), |text| format!("Some({text})"));
    let addresses = list(addresses.iter().map(IpNet::to_string).collect());
    let route = |Route { dst, via, metric }: &Route| {
        let via = option(via.map(|via| via.to_string()));
        let metric = option(metric.map(|metric| metric.to_string()));
        format!("Route {{ dst: {dst}, via: {via}, metric: {metric} }}")
    };
    let routes = list(routes.iter().map(route).collect());
    first_of_sha256(format!("{mac} {mtu} [{addresses}] [{routes}]").as_bytes())
}

fn first_of_sha256(bytes: &[u8]) -> u32 {
    let digest = Sha256::digest(bytes);
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

fn encode(configuration: &Configuration<'_>) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    field(&mut bytes, tag::MAC, |value| {
        value.extend(configuration.mac.bytes());
    });
    field(&mut bytes, tag::MTU, |value| {
        value.extend(configuration.mtu.bytes().to_be_bytes());
    });
    for address in configuration.addresses {
        field(&mut bytes, tag::ADDRESS, |value| push_net(value, address));
    }
    for route in configuration.routes {
        field(&mut bytes, tag::ROUTE, |value| push_route(value, route));
    }
    bytes
}

/// Appends a field.
fn field(bytes: &mut Vec<u8>, tag: u8, push_value: impl FnOnce(&mut Vec<u8>)) {
    bytes.extend([tag, 0]);
    let start = bytes.len();
    push_value(bytes);
    let length = bytes.len() - start;
    bytes[start - 1] = u8::try_from(length).expect("the longest value, a route, has 43 bytes");
}

fn push_route(bytes: &mut Vec<u8>, route: &Route) {
    field(bytes, route_tag::DST, |value| push_net(value, &route.dst));
    if let Some(via) = route.via {
        field(bytes, route_tag::VIA, |value| push_ip(value, via));
    }
    if let Some(metric) = route.metric {
        field(bytes, route_tag::METRIC, |value| {
            value.extend(metric.to_be_bytes());
        });
    }
}

fn push_net(bytes: &mut Vec<u8>, net: &IpNet) {
    bytes.push(net.prefix_len());
    push_ip(bytes, net.addr());
}

fn push_ip(bytes: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => bytes.extend(ip.octets()),
        IpAddr::V6(ip) => bytes.extend(ip.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Owned {
        mtu: u32,
        addresses: Vec<IpNet>,
        routes: Vec<Route>,
    }

    impl Owned {
        fn new(mtu: u32, addresses: &[&str], routes: &[(&str, Option<&str>, Option<u32>)]) -> Self {
            let route = |(dst, via, metric): &(&str, Option<&str>, Option<u32>)| Route {
                dst: dst.parse().unwrap(),
                via: via.map(|via| via.parse().unwrap()),
                metric: *metric,
            };
            Self {
                mtu,
                addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
                routes: routes.iter().map(route).collect(),
            }
        }

        fn get(&self) -> Configuration<'_> {
            Configuration {
                mac: "02:0a:00:00:00:01".parse().unwrap(),
                mtu: self.mtu.try_into().unwrap(),
                addresses: &self.addresses,
                routes: &self.routes,
            }
        }
    }

    fn samples() -> [Owned; 5] {
        let both = ["10.0.0.1/30", "fd00::1/64"];
        let routes = [
            ("10.9.0.0/16", Some("10.0.0.2"), Some(5)),
            ("fd01::/48", Some("fd00::2"), None),
            ("192.0.2.0/24", None, None),
        ];
        [
            Owned::new(1450, &[], &[]),
            Owned::new(1450, &both[..1], &[]),
            Owned::new(1450, &both, &[]),
            Owned::new(1450, &both, &routes),
            Owned::new(65535, &both[1..], &routes[2..]),
        ]
    }

    /// These values are on devices of running nodes: if this test fails, an upgrade configures all
    /// of them again. Correct the code, not the values.
    #[test]
    fn digests_never_change() {
        let digests = samples().map(|sample| config_digest(&sample.get()));
        let golden = [
            0x66f5_db3a,
            0x52ba_3cf9,
            0x4cc5_2361,
            0x136b_3949,
            0xf3c4_ff8e,
        ];
        assert_eq!(digests, golden);
    }

    /// The values were computed by the code of release 0.1.0.
    #[test]
    fn digests_of_the_first_release_are_known() {
        let digests = samples().map(|sample| unversioned_digest(&sample.get()));
        let golden = [
            0xbd16_c7ca,
            0xc74a_d91b,
            0x0bf6_799b,
            0x094f_94cc,
            0xc9c5_3c36,
        ];
        assert_eq!(digests, golden);
    }

    #[test]
    fn a_property_that_is_not_set_has_no_bytes() {
        let hex = |bytes: Vec<u8>| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
        let [bare, _, _, full, _] = samples().map(|sample| hex(encode(&sample.get())));
        let mac_and_mtu = "01 0106020a00000001 0204000005aa";
        let addresses = "0305 1e0a000001 0311 40fd000000000000000000000000000001";
        let routes = "0413 0105100a090000 02040a000002 030400000005 \
                      0425 011130fd010000000000000000000000000000 \
                      0210fd000000000000000000000000000002 \
                      0407 010518c0000200";
        let spaceless = |parts: &[&str]| parts.concat().replace(' ', "");
        assert_eq!(bare, spaceless(&[mac_and_mtu]));
        assert_eq!(full, spaceless(&[mac_and_mtu, addresses, routes]));
    }

    /// No configuration is taken for another one, and none for an unfinished device.
    #[test]
    fn digests_differ() {
        let one = Owned::new(1450, &["10.0.0.1/30"], &[("10.9.0.0/16", None, None)]);
        let others = [
            Owned::new(1451, &["10.0.0.1/30"], &[("10.9.0.0/16", None, None)]),
            Owned::new(1450, &["10.0.0.1/31"], &[("10.9.0.0/16", None, None)]),
            Owned::new(1450, &["10.0.0.1/30"], &[("10.9.0.0/17", None, None)]),
            Owned::new(1450, &["10.0.0.1/30"], &[("10.9.0.0/16", None, Some(0))]),
            Owned::new(1450, &["10.0.0.1/30", "10.9.0.0/16"], &[]),
        ];
        for other in &others {
            assert_ne!(encode(&one.get()), encode(&other.get()));
            assert_ne!(config_digest(&one.get()), config_digest(&other.get()));
        }
    }
}
