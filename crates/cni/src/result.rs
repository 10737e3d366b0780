//! The result of an ADD in memory, and what a plugin does with it.
//!
//! `result_json` reads and writes JSON, `convert` changes the version. Nothing here renumbers
//! interfaces or reorders addresses, because other parts of the result hold indices into these
//! lists.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::value::RawValue;

use crate::{address::Cidr, version::Version};

/// Members that are in no version of the specification, kept as their original text.
#[derive(Debug, Clone, Default)]
pub struct Extra(pub(crate) BTreeMap<String, Box<RawValue>>);

impl PartialEq for Extra {
    fn eq(&self, other: &Self) -> bool {
        let texts = |extra: &Self| -> Vec<(String, String)> {
            extra
                .0
                .iter()
                .map(|(key, value)| (key.clone(), value.get().to_owned()))
                .collect()
        };
        texts(self) == texts(other)
    }
}

/// The result of an ADD, in one version of the specification.
#[derive(Debug, Clone, PartialEq)]
pub struct CniResult {
    pub(crate) version: Version,
    pub(crate) body: Body,
    pub(crate) dns: Dns,
    pub(crate) extra: Extra,
}

/// The two shapes that a result has had.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    /// 0.1.0 and 0.2.0.
    Legacy {
        ip4: Option<LegacyIp>,
        ip6: Option<LegacyIp>,
    },
    /// 0.3.0 and later.
    Lists(Lists),
}

/// The lists of a result of 0.3.0 or later.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Lists {
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) ips: Vec<IpConfig>,
    pub(crate) routes: Vec<Route>,
}

/// The only address of its family in a result of 0.1.0 or 0.2.0.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LegacyIp {
    pub(crate) ip: Cidr,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) routes: Vec<Route>,
    pub(crate) extra: Extra,
}

/// An interface that the attachment made or uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address; empty if unknown.
    pub mac: String,
    /// Its MTU; 0 if unknown. Since 1.1.0.
    pub mtu: i64,
    /// Its namespace, exactly as in CNI_NETNS; empty for the node's.
    pub sandbox: String,
    /// Since 1.1.0.
    pub socket_path: String,
    /// Since 1.1.0.
    pub pci_id: String,
    /// Members that are in no version.
    pub extra: Extra,
}

/// An address that the attachment has.
#[derive(Debug, Clone, PartialEq)]
pub struct IpConfig {
    /// "4" or "6". Printed only in 0.3.0 to 0.4.0, unchanged.
    pub version: String,
    /// The index into the list of interfaces.
    pub interface: Option<i64>,
    /// The address with its prefix length.
    pub address: Cidr,
    /// The default gateway of its subnet.
    pub gateway: Option<IpAddr>,
    /// Members that are in no version.
    pub extra: Extra,
}

/// A route that the attachment has.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The destination.
    pub dst: Cidr,
    /// The gateway.
    pub gw: Option<IpAddr>,
    /// 0 if unset.
    pub mtu: i64,
    /// 0 if unset.
    pub adv_mss: i64,
    /// 0 if unset.
    pub priority: i64,
    /// The routing table.
    pub table: Option<i64>,
    /// The scope.
    pub scope: Option<i64>,
    /// Members that are in no version.
    pub extra: Extra,
}

/// The name resolution that the attachment offers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dns {
    /// Addresses of name servers.
    pub nameservers: Vec<String>,
    /// The local domain; empty if unset.
    pub domain: String,
    /// Search domains.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
    /// Members that are in no version.
    pub extra: Extra,
}

impl Dns {
    /// Whether all of it is empty.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl IpConfig {
    /// An address on the interface of this index.
    pub fn new(address: Cidr, interface: Option<usize>) -> Self {
        let interface = interface.and_then(|index| i64::try_from(index).ok());
        Self {
            version: String::new(),
            interface,
            address,
            gateway: None,
            extra: Extra::default(),
        }
    }
}

impl Route {
    /// A route without any of the optional attributes.
    pub fn new(dst: Cidr, gw: Option<IpAddr>) -> Self {
        let extra = Extra::default();
        Self {
            dst,
            gw,
            mtu: 0,
            adv_mss: 0,
            priority: 0,
            table: None,
            scope: None,
            extra,
        }
    }
}

impl CniResult {
    /// An empty result.
    pub fn new(version: Version) -> Self {
        let body = match version.is_legacy() {
            true => Body::Legacy {
                ip4: None,
                ip6: None,
            },
            false => Body::Lists(Lists::default()),
        };
        Self {
            version,
            body,
            dns: Dns::default(),
            extra: Extra::default(),
        }
    }

    /// The version it is in.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The interfaces, in order. A result of 0.1.0 or 0.2.0 has none.
    pub fn interfaces(&self) -> &[Interface] {
        match &self.body {
            Body::Legacy { .. } => &[],
            Body::Lists(lists) => &lists.interfaces,
        }
    }

    /// The addresses, in order; those of 0.1.0 and 0.2.0 with v4 first.
    pub fn ips(&self) -> Vec<IpConfig> {
        match &self.body {
            Body::Legacy { .. } => self.lifted().ips,
            Body::Lists(lists) => lists.ips.clone(),
        }
    }

    /// The routes, in order.
    pub fn routes(&self) -> Vec<Route> {
        match &self.body {
            Body::Legacy { .. } => self.lifted().routes,
            Body::Lists(lists) => lists.routes.clone(),
        }
    }

    /// The name resolution.
    pub fn dns(&self) -> &Dns {
        &self.dns
    }

    /// Replaces the name resolution.
    pub fn set_dns(&mut self, dns: Dns) {
        self.dns = dns;
    }

    /// Appends an interface and returns its index. The others keep their indices.
    ///
    /// A result of 0.1.0 or 0.2.0 has no interfaces, so it becomes one of 0.4.0.
    pub fn push_interface(&mut self, interface: Interface) -> usize {
        let interfaces = &mut self.lists_mut().interfaces;
        interfaces.push(interface);
        interfaces.len() - 1
    }

    /// Appends an address. A result of 0.1.0 or 0.2.0 becomes one of 0.4.0.
    pub fn push_ip(&mut self, mut ip: IpConfig) {
        // The caller need not care about the version: a family does not print what it does not
        // have.
        ip.version = if ip.address.is_ipv4() { "4" } else { "6" }.into();
        self.lists_mut().ips.push(ip);
    }

    /// Appends a route. A result of 0.1.0 or 0.2.0 becomes one of 0.4.0.
    pub fn push_route(&mut self, route: Route) {
        self.lists_mut().routes.push(route);
    }

    /// The index of the interface of this name in this sandbox (verbatim, as in CNI_NETNS).
    pub fn find_interface(&self, name: &str, sandbox: &str) -> Option<usize> {
        self.interfaces()
            .iter()
            .position(|interface| interface.name == name && interface.sandbox == sandbox)
    }

    /// The addresses that point to the interface of this index.
    pub fn ips_of(&self, index: usize) -> Vec<IpConfig> {
        let wanted = i64::try_from(index).ok();
        self.ips()
            .into_iter()
            .filter(|ip| ip.interface.is_some() && ip.interface == wanted)
            .collect()
    }

    /// Removes the interfaces for which `remove` is true, with their addresses, and adapts the
    /// indices of the other addresses.
    ///
    /// For an embedded plugin that must not see what others appended. Never for a result that is
    /// printed. Invalid indices stay as they are.
    #[must_use]
    pub fn without_interfaces(&self, mut remove: impl FnMut(usize, &Interface) -> bool) -> Self {
        let mut result = self.clone();
        let Body::Lists(lists) = &mut result.body else {
            return result;
        };
        let mut kept = 0;
        let places: Vec<Option<i64>> = lists
            .interfaces
            .iter()
            .enumerate()
            .map(|(index, interface)| {
                if remove(index, interface) {
                    return None;
                }
                kept += 1;
                Some(kept - 1)
            })
            .collect();
        let mut at = 0;
        lists.interfaces.retain(|_| {
            at += 1;
            places[at - 1].is_some()
        });
        lists.ips.retain_mut(|ip| {
            let place = ip
                .interface
                .and_then(|index| usize::try_from(index).ok())
                .and_then(|index| places.get(index));
            match place {
                None => true,
                Some(None) => false,
                Some(place) => {
                    ip.interface = *place;
                    true
                }
            }
        });
        result
    }

    /// The lists. A result without lists is converted first.
    fn lists_mut(&mut self) -> &mut Lists {
        if let Body::Legacy { .. } = self.body {
            self.body = Body::Lists(self.lifted());
            self.version = Version::V0_4_0;
        }
        match &mut self.body {
            Body::Lists(lists) => lists,
            Body::Legacy { .. } => unreachable!("lifted above"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn interface(name: &str) -> Interface {
        Interface {
            name: name.into(),
            sandbox: "/ns".into(),
            ..Interface::default()
        }
    }

    fn sample() -> CniResult {
        let mut result = CniResult::new(Version::V1_0_0);
        for name in ["veth", "eth0", "eth1"] {
            result.push_interface(interface(name));
        }
        result.push_ip(IpConfig::new(cidr("10.0.0.2/24"), Some(1)));
        result.push_ip(IpConfig::new(cidr("10.1.0.2/24"), Some(2)));
        result.push_ip(IpConfig::new(cidr("fd00::2/64"), Some(1)));
        result.push_ip(IpConfig::new(cidr("fd00::3/64"), None));
        result
    }

    #[test]
    fn addresses_are_found_by_their_interface() {
        let result = sample();
        assert_eq!(result.find_interface("eth0", "/ns"), Some(1));
        assert_eq!(result.find_interface("eth0", "/other"), None);
        let found: Vec<_> = result
            .ips_of(1)
            .iter()
            .map(|ip| ip.address.to_string())
            .collect();
        assert_eq!(found, ["10.0.0.2/24", "fd00::2/64"]);
    }

    #[test]
    fn removed_interfaces_take_their_addresses_along_and_the_rest_is_renumbered() {
        let mut result = sample();
        result.push_ip(IpConfig {
            interface: Some(-1),
            ..IpConfig::new(cidr("10.9.0.1/24"), None)
        });
        let rest =
            result.without_interfaces(|index, interface| index == 0 || interface.name == "eth1");
        assert_eq!(rest.interfaces().len(), 1);
        let indices: Vec<_> = rest.ips().iter().map(|ip| ip.interface).collect();
        assert_eq!(indices, [Some(0), Some(0), None, Some(-1)]);
        assert_eq!(result.without_interfaces(|_, _| false), result);
    }

    #[test]
    fn appending_lifts_a_legacy_result() {
        let mut result =
            CniResult::parse(r#"{"ip4":{"ip":"10.0.0.2/24"}}"#, Version::V0_2_0).unwrap();
        assert_eq!(result.push_interface(interface("eth1")), 0);
        assert_eq!(result.version(), Version::V0_4_0);
        assert_eq!(result.ips().len(), 1);
        assert_eq!(result.convert(Version::V0_2_0).unwrap().ips().len(), 1);
    }
}
