//! Results as JSON: read leniently, written strictly.
//!
//! `null` counts as absent everywhere, an empty gateway as no gateway, and keys may have any case.
//! Types must fit and addresses must be valid: what Go cannot read is refused here, too.

use std::{net::IpAddr, str::FromStr};

use serde::{Serialize, Serializer, de::DeserializeOwned, ser::SerializeMap};

use crate::{
    error::Error,
    json::Object,
    result::{Body, CniResult, Dns, Extra, Interface, IpConfig, LegacyIp, Lists, Route},
    version::Version,
};

/// Every top-level key of any version: none of them counts as unknown.
const RESULT_KEYS: [&str; 7] = [
    "cniVersion",
    "interfaces",
    "ips",
    "routes",
    "dns",
    "ip4",
    "ip6",
];
const INTERFACE_KEYS: [&str; 6] = ["name", "mac", "mtu", "sandbox", "socketPath", "pciID"];
const IP_KEYS: [&str; 6] = ["version", "interface", "address", "gateway", "ip", "routes"];
const ROUTE_KEYS: [&str; 7] = ["dst", "gw", "mtu", "advmss", "priority", "table", "scope"];
const DNS_KEYS: [&str; 4] = ["nameservers", "domain", "search", "options"];

impl CniResult {
    /// Reads a result. If it does not name its version, it has `default`, the config's version.
    ///
    /// `null` and `{}` are the empty result. Code 6 if it is not a result, 1 if the version does
    /// not exist.
    pub fn parse(text: &str, default: Version) -> Result<Self, Error> {
        let object = Object::parse(text).map_err(|error| undecodable("result", &error))?;
        let fields = Fields {
            object: &object,
            of: "result",
        };
        let version = match object.decode::<String>("cniVersion").unwrap_or_default() {
            Some(text) if !text.is_empty() => Version::parse(&text).ok_or_else(|| {
                Error::incompatible_version("unsupported CNI result version")
                    .with_details(format!("cniVersion is {text:?}"))
            })?,
            _ => default,
        };
        let body = if version.is_legacy() {
            Body::Legacy {
                ip4: legacy_ip(&fields, "ip4")?,
                ip6: legacy_ip(&fields, "ip6")?,
            }
        } else {
            Body::Lists(Lists {
                interfaces: fields
                    .list("interfaces")?
                    .iter()
                    .map(|item| interface(item, version))
                    .collect::<Result<_, _>>()?,
                ips: present(fields.list("ips")?)
                    .map(|item| ip_config(&item, version))
                    .collect::<Result<_, _>>()?,
                routes: routes(&fields)?,
            })
        };
        let dns = fields
            .get::<Object>("dns")?
            .map(|object| dns(&object))
            .transpose()?
            .unwrap_or_default();
        Ok(Self {
            version,
            body,
            dns,
            extra: extra(&object, &RESULT_KEYS),
        })
    }

    /// As [`CniResult::parse`], for bytes.
    pub fn from_slice(bytes: &[u8], default: Version) -> Result<Self, Error> {
        Self::parse(&crate::json::text_of(bytes), default)
    }

    /// The document in its own version, without a newline.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings, numbers and texts that were JSON always serialise.
        serde_json::to_vec(&Document(self)).unwrap_or_default()
    }
}

/// The fields of one object. Errors say where they are.
struct Fields<'a> {
    object: &'a Object,
    of: &'static str,
}

impl Fields<'_> {
    fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.object
            .decode(key)
            .map_err(|error| undecodable(&format!("{}.{key}", self.of), &error))
    }

    fn or_default<T: DeserializeOwned + Default>(&self, key: &str) -> Result<T, Error> {
        Ok(self.get(key)?.unwrap_or_default())
    }

    /// A list whose elements may be `null`.
    fn list(&self, key: &str) -> Result<Vec<Option<Object>>, Error> {
        self.or_default(key)
    }

    fn strings(&self, key: &str) -> Result<Vec<String>, Error> {
        let list: Vec<Option<String>> = self.or_default(key)?;
        Ok(list.into_iter().map(Option::unwrap_or_default).collect())
    }

    fn parsed<T: FromStr>(&self, key: &str) -> Result<Option<T>, Error> {
        let Some(text) = self.get::<String>(key)?.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| {
            Error::decode(format!("cannot decode {}.{key}", self.of))
                .with_details(format!("its value is {text:?}"))
        })
    }

    fn required<T: FromStr>(&self, key: &str) -> Result<T, Error> {
        self.parsed(key)?
            .ok_or_else(|| Error::decode(format!("{}.{key} is missing", self.of)))
    }

    fn gateway(&self, key: &str) -> Result<Option<IpAddr>, Error> {
        Ok(self.parsed::<IpAddr>(key)?.map(|addr| addr.to_canonical()))
    }
}

fn undecodable(what: &str, error: &serde_json::Error) -> Error {
    Error::decode(format!("cannot decode {what}")).with_details(error.to_string())
}

fn extra(object: &Object, known: &[&str]) -> Extra {
    let unknown = object
        .iter()
        .filter(|(key, _)| !known.iter().any(|known| known.eq_ignore_ascii_case(key)));
    Extra(
        unknown
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    )
}

/// The elements that are not `null`.
fn present(list: Vec<Option<Object>>) -> impl Iterator<Item = Object> {
    list.into_iter().flatten()
}

fn legacy_ip(fields: &Fields<'_>, key: &str) -> Result<Option<LegacyIp>, Error> {
    let Some(object) = fields.get::<Object>(key)? else {
        return Ok(None);
    };
    let fields = Fields {
        object: &object,
        of: "ip4 or ip6",
    };
    Ok(Some(LegacyIp {
        ip: fields.required("ip")?,
        gateway: fields.gateway("gateway")?,
        routes: routes(&fields)?,
        extra: extra(&object, &IP_KEYS),
    }))
}

/// A `null` interface stays as an empty one: dropping it would move the indices of those behind it.
fn interface(object: &Option<Object>, version: Version) -> Result<Interface, Error> {
    let Some(object) = object else {
        return Ok(Interface::default());
    };
    let fields = Fields {
        object,
        of: "interfaces",
    };
    let mut interface = Interface {
        name: fields.or_default("name")?,
        mac: fields.or_default("mac")?,
        sandbox: fields.or_default("sandbox")?,
        extra: extra(object, &INTERFACE_KEYS),
        ..Interface::default()
    };
    // Go's type of 1.0.0 is that of 1.1.0.
    if version >= Version::V1_0_0 {
        interface.mtu = fields.or_default("mtu")?;
        interface.socket_path = fields.or_default("socketPath")?;
        interface.pci_id = fields.or_default("pciID")?;
    }
    Ok(interface)
}

fn ip_config(object: &Object, version: Version) -> Result<IpConfig, Error> {
    let fields = Fields { object, of: "ips" };
    Ok(IpConfig {
        version: if version < Version::V1_0_0 {
            fields.or_default("version")?
        } else {
            String::new()
        },
        interface: fields.get("interface")?,
        address: fields.required("address")?,
        gateway: fields.gateway("gateway")?,
        extra: extra(object, &IP_KEYS),
    })
}

fn routes(fields: &Fields<'_>) -> Result<Vec<Route>, Error> {
    let route = |object: Object| {
        let fields = Fields {
            object: &object,
            of: "routes",
        };
        Ok(Route {
            dst: fields.required("dst")?,
            gw: fields.gateway("gw")?,
            mtu: fields.or_default("mtu")?,
            adv_mss: fields.or_default("advmss")?,
            priority: fields.or_default("priority")?,
            table: fields.get("table")?,
            scope: fields.get("scope")?,
            extra: extra(&object, &ROUTE_KEYS),
        })
    };
    present(fields.list("routes")?).map(route).collect()
}

fn dns(object: &Object) -> Result<Dns, Error> {
    let fields = Fields { object, of: "dns" };
    Ok(Dns {
        nameservers: fields.strings("nameservers")?,
        domain: fields.or_default("domain")?,
        search: fields.strings("search")?,
        options: fields.strings("options")?,
        extra: extra(object, &DNS_KEYS),
    })
}

struct Document<'a>(&'a CniResult);
struct AddressJson<'a>(&'a IpConfig, Version);
struct InterfaceJson<'a>(&'a Interface, Version);

/// A member that is left out when it is empty, as with Go's `omitempty`.
fn optional<M: SerializeMap, T: Serialize + Default + PartialEq>(
    map: &mut M,
    key: &str,
    value: &T,
) -> Result<(), M::Error> {
    if *value == T::default() {
        Ok(())
    } else {
        map.serialize_entry(key, value)
    }
}

fn extras<M: SerializeMap>(map: &mut M, extra: &Extra) -> Result<(), M::Error> {
    extra
        .0
        .iter()
        .try_for_each(|(key, value)| map.serialize_entry(key, value))
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(result) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("cniVersion", result.version.as_str())?;
        match &result.body {
            Body::Legacy { ip4, ip6 } => {
                optional(&mut map, "ip4", ip4)?;
                optional(&mut map, "ip6", ip6)?;
            }
            Body::Lists(lists) => {
                let interfaces: Vec<_> = lists
                    .interfaces
                    .iter()
                    .map(|interface| InterfaceJson(interface, result.version))
                    .collect();
                if !interfaces.is_empty() {
                    map.serialize_entry("interfaces", &interfaces)?;
                }
                let ips: Vec<_> = lists
                    .ips
                    .iter()
                    .map(|ip| AddressJson(ip, result.version))
                    .collect();
                if !ips.is_empty() {
                    map.serialize_entry("ips", &ips)?;
                }
                optional(&mut map, "routes", &lists.routes)?;
            }
        }
        // Up to 0.4.0 Go prints `{}`, from 1.0.0 on nothing.
        if result.version < Version::V1_0_0 || !result.dns.is_empty() {
            map.serialize_entry("dns", &result.dns)?;
        }
        extras(&mut map, &result.extra)?;
        map.end()
    }
}

impl Serialize for LegacyIp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("ip", &self.ip.to_string())?;
        optional(&mut map, "gateway", &self.gateway)?;
        optional(&mut map, "routes", &self.routes)?;
        extras(&mut map, &self.extra)?;
        map.end()
    }
}

impl Serialize for AddressJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(ip, version) = self;
        let mut map = serializer.serialize_map(None)?;
        if *version < Version::V1_0_0 {
            map.serialize_entry("version", &ip.version)?;
        }
        optional(&mut map, "interface", &ip.interface)?;
        map.serialize_entry("address", &ip.address.to_string())?;
        optional(&mut map, "gateway", &ip.gateway)?;
        extras(&mut map, &ip.extra)?;
        map.end()
    }
}

impl Serialize for InterfaceJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(interface, version) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &interface.name)?;
        optional(&mut map, "mac", &interface.mac)?;
        optional(&mut map, "sandbox", &interface.sandbox)?;
        if *version >= Version::V1_0_0 {
            optional(&mut map, "mtu", &interface.mtu)?;
            optional(&mut map, "socketPath", &interface.socket_path)?;
            optional(&mut map, "pciID", &interface.pci_id)?;
        }
        extras(&mut map, &interface.extra)?;
        map.end()
    }
}

impl Serialize for Route {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("dst", &self.dst.to_string())?;
        optional(&mut map, "gw", &self.gw)?;
        optional(&mut map, "mtu", &self.mtu)?;
        optional(&mut map, "advmss", &self.adv_mss)?;
        optional(&mut map, "priority", &self.priority)?;
        optional(&mut map, "table", &self.table)?;
        optional(&mut map, "scope", &self.scope)?;
        extras(&mut map, &self.extra)?;
        map.end()
    }
}

impl Serialize for Dns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        optional(&mut map, "nameservers", &self.nameservers)?;
        optional(&mut map, "domain", &self.domain)?;
        optional(&mut map, "search", &self.search)?;
        optional(&mut map, "options", &self.options)?;
        extras(&mut map, &self.extra)?;
        map.end()
    }
}
