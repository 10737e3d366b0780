//! Conversion of results between versions, as Go's library does it.
//!
//! Unknown members stay with the element that they belong to. Go drops them, but a pass-through
//! must not lose data.

use crate::{
    error::Error,
    result::{Body, CniResult, Extra, IpConfig, LegacyIp, Lists, Route},
    version::Version,
};

/// The three families of versions. Within one, only the version's name changes.
#[derive(PartialEq, Eq, Clone, Copy)]
enum Family {
    /// 0.1.0 and 0.2.0: `ip4` and `ip6`.
    Legacy,
    /// 0.3.0 to 0.4.0: lists, with `version` in every address.
    Middle,
    /// 1.0.0 and later.
    Modern,
}

fn family(version: Version) -> Family {
    if version.is_legacy() {
        Family::Legacy
    } else if version < Version::V1_0_0 {
        Family::Middle
    } else {
        Family::Modern
    }
}

impl CniResult {
    /// The result in another version. Fails only towards 0.1.0 and 0.2.0, which need an address.
    pub fn convert(mut self, to: Version) -> Result<Self, Error> {
        let (from_family, to_family) = (family(self.version), family(to));
        if from_family != to_family {
            let mut lists = match (from_family, &mut self.body) {
                (Family::Legacy, _) => self.lifted(),
                (_, Body::Lists(lists)) => std::mem::take(lists),
                (_, Body::Legacy { .. }) => Lists::default(),
            };
            cross(&mut lists, from_family);
            self.body = match to_family {
                Family::Legacy => lower(lists, self.version, to)?,
                Family::Middle | Family::Modern => Body::Lists(lists),
            };
        }
        self.version = to;
        Ok(self)
    }

    /// The lists that a legacy result becomes: v4 first, routes concatenated, no interfaces.
    pub(crate) fn lifted(&self) -> Lists {
        let mut lists = Lists::default();
        let Body::Legacy { ip4, ip6 } = &self.body else {
            return lists;
        };
        for (version, ip) in [("4", ip4), ("6", ip6)] {
            let Some(ip) = ip else { continue };
            lists.ips.push(IpConfig {
                version: version.into(),
                interface: None,
                address: ip.ip,
                gateway: ip.gateway,
                extra: ip.extra.clone(),
            });
            lists.routes.extend(ip.routes.iter().cloned());
        }
        lists
    }
}

/// What the lists lose or gain when they change to another family.
fn cross(lists: &mut Lists, from: Family) {
    if from == Family::Modern {
        // 0.4.0 does not know these; 1.0.0 does, in Go.
        for interface in &mut lists.interfaces {
            interface.mtu = 0;
            interface.socket_path.clear();
            interface.pci_id.clear();
        }
        for ip in &mut lists.ips {
            ip.version = if ip.address.is_ipv4() { "4" } else { "6" }.into();
        }
    }
}

/// The first v4 and the first v6 address, with the routes of their families.
fn lower(lists: Lists, from: Version, to: Version) -> Result<Body, Error> {
    // Go trusts `version` here, not the address.
    let first = |version: &str| {
        let ip = lists.ips.iter().find(|ip| ip.version == version)?;
        Some(LegacyIp {
            ip: ip.address,
            gateway: ip.gateway,
            routes: Vec::new(),
            extra: Extra::default(),
        })
    };
    let (mut ip4, mut ip6) = (first("4"), first("6"));
    if ip4.is_none() && ip6.is_none() {
        return Err(Error::incompatible_version(format!(
            "cannot convert the result from {from} to {to}"
        ))
        .with_details("it has no IP address, which these versions require"));
    }
    for route in lists.routes {
        let ip = if route.dst.is_ipv4() {
            &mut ip4
        } else {
            &mut ip6
        };
        if let Some(ip) = ip {
            ip.routes.push(Route::new(route.dst, route.gw));
        }
    }
    Ok(Body::Legacy { ip4, ip6 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str, version: Version) -> CniResult {
        CniResult::parse(text, version).unwrap()
    }

    #[test]
    fn a_result_without_addresses_has_no_legacy_form() {
        for from in Version::ALL
            .into_iter()
            .filter(|version| !version.is_legacy())
        {
            let error = parse(r#"{"interfaces":[{"name":"a"}]}"#, from)
                .convert(Version::V0_2_0)
                .unwrap_err();
            assert_eq!(error.code, 1);
        }
        // Within a family nothing is checked.
        parse("{}", Version::V0_1_0)
            .convert(Version::V0_2_0)
            .unwrap();
    }

    #[test]
    fn unknown_members_survive() {
        let result = parse(
            r#"{"x":1,"ips":[{"version":"4","address":"10.0.0.1/8","y":2}]}"#,
            Version::V0_3_1,
        );
        let json = String::from_utf8(result.convert(Version::V1_1_0).unwrap().to_json()).unwrap();
        assert!(
            json.contains(r#""x":1"#) && json.contains(r#""y":2"#),
            "{json}"
        );
    }

    /// JSON near enough to a result to get past the first member.
    fn result_text() -> impl Strategy<Value = String> {
        let address = "(\"10\\.0\\.0\\.[0-9]{1,3}/[0-9]{1,2}\"|\"fd00::[0-9]/64\"|\
                       \"::ffff:1\\.2\\.3\\.4/(64|120)\"|null|\"\"|1)";
        let version = "(\"4\"|\"6\"|\"\"|null)";
        let index = "(0|1|-1|null|99999999999)";
        let ip = (address, version, index).prop_map(|(address, version, index)| {
            format!(
                r#"{{"address":{address},"ip":{address},"version":{version},"interface":{index},
                "gateway":""}}"#
            )
        });
        (
            ip.clone(),
            ip,
            address,
            "(null|\\[\\]|\\[null\\]|\\[\\{\"name\":\"a\",\"mtu\":9\\}\\])",
        )
            .prop_map(|(one, two, dst, interfaces)| {
                format!(
                    r#"{{"ips":[{one},{two}],"ip4":{one},"ip6":{two},"interfaces":{interfaces},
                        "routes":[{{"dst":{dst}}}]}}"#
                )
            })
    }

    proptest! {
        #[test]
        fn conversion_never_panics_and_gives_what_it_says(
            text in result_text(), from in 0..7usize, to in 0..7usize,
        ) {
            let (from, to) = (Version::ALL[from], Version::ALL[to]);
            if let Ok(result) = CniResult::parse(&text, from)
                && let Ok(converted) = result.convert(to)
            {
                prop_assert_eq!(converted.version(), to);
                let json = converted.to_json();
                let again = CniResult::from_slice(&json, Version::V0_1_0).unwrap();
                prop_assert_eq!(again.to_json(), json);
            }
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,80}") {
            if let Err(error) = CniResult::parse(&text, Version::V1_0_0) {
                prop_assert!([1, 6].contains(&error.code));
            }
        }
    }
}
