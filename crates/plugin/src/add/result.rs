//! The result that ADD prints for Ratchet's pods: that of the plugin before, with our interfaces.

use ratchet_cni::{Cidr, CniResult, Dns, Error, Interface, IpConfig, Version};
use ratchet_protocol::Attached;

use crate::call::Call;

/// What a pod without any address reports, because runtimes refuse a result without one.
const NO_ADDRESS: &str = "127.0.0.1/8";

/// The interface on which runtimes expect the pod's network.
const MAIN_INTERFACE: &str = "eth0";

/// The base with our interfaces behind its own, and the address that was added because the base
/// has none. The interfaces have their addresses if the config says so.
pub(super) fn with_links(
    call: &Call,
    base: CniResult,
    attached: &Attached,
    dns: Option<Dns>,
) -> (CniResult, Option<String>) {
    let mut result = base;
    let version = call.request.config.version();
    // Before 0.3.0, a result has no interfaces.
    let reports = call.keys.local.report_addresses == Some(true) && version >= Version::V0_3_0;
    let ifname = &call.request.invocation.ifname;
    // No runtime looks at the result of an attachment that Multus has made beside eth0.
    let is_beside = reports && ifname != MAIN_INTERFACE && !attached.by_interface.is_empty();
    let address = if has_address(&result, ifname) || is_beside {
        None
    } else {
        let first = attached.addresses.first().map(ToString::to_string);
        // No link has a loopback address, so CHECK can tell this one from the links' addresses.
        let address: Option<Cidr> = first.as_deref().unwrap_or(NO_ADDRESS).parse().ok();
        if let Some(address) = address {
            // Without an interface: containerd then takes it for eth0's.
            result.push_ip(IpConfig::new(address, None));
        }
        address.map(|address| address.to_string())
    };
    let has_mtu = version >= Version::V1_1_0;
    for interface in &attached.interfaces {
        let index = result.push_interface(Interface {
            name: interface.name.clone(),
            mac: interface.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            mtu: if has_mtu { interface.mtu.into() } else { 0 },
            sandbox: call.netns().to_owned(),
            ..Interface::default()
        });
        let addresses = attached.by_interface.get(&interface.name);
        for address in addresses.into_iter().flatten().filter(|_| reports) {
            if let Ok(address) = address.to_string().parse() {
                result.push_ip(IpConfig::new(address, Some(index)));
            }
        }
    }
    if let Some(dns) = dns {
        result.set_dns(dns);
    }
    (result, address)
}

/// Whether a runtime would find an address of the pod: containerd takes one on CNI_IFNAME, or on no
/// interface.
fn has_address(result: &CniResult, ifname: &str) -> bool {
    let interfaces = result.interfaces();
    result.ips().iter().any(|ip| {
        let Some(index) = ip.interface else {
            return true;
        };
        let interface = usize::try_from(index)
            .ok()
            .and_then(|index| interfaces.get(index));
        interface.is_some_and(|interface| interface.name == ifname && !interface.sandbox.is_empty())
    })
}

/// The config's own "dns", if it has one. It replaces the embedded plugin's.
pub(super) fn outer_dns(call: &Call) -> Result<Option<Dns>, Error> {
    let Some(raw) = call.request.config.raw_key("dns") else {
        return Ok(None);
    };
    let result = CniResult::parse(&format!("{{\"dns\":{}}}", raw.get()), Version::NEWEST).map_err(
        |error| {
            Error::invalid_config("invalid value of the config's key \"dns\"")
                .with_details(error.to_string())
        },
    )?;
    Ok(Some(result.dns().clone()).filter(|dns| !dns.is_empty()))
}
