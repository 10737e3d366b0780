//! Whether pods could use the store as the agent does.
//!
//! Who writes to the store wires pods. Whether packets of pods reach an etcd is not tried out: it
//! depends on policies that change. What counts is whether etcd has a way to tell the agent from
//! a pod.

use std::net::IpAddr;

use ratchet_protocol::{DEFAULT_STORE, Settings};
use ratchet_store::{EtcdOptions, StoreOptions, StoreUrl};

use crate::Check;

const NAME: &str = "store's protection";

/// What to do, in any case.
const HINT: &str = "use etcds:// with etcd_ca, and a client's certificate (etcd_cert, etcd_key) or \
                    a user, see docs/kubernetes.md";

/// Checks how the agents and etcd know each other. `None` for a store that is no etcd, or one that
/// only this node's programs reach.
pub(crate) fn look(settings: &Settings) -> Option<Check> {
    let url = settings.store.as_deref().unwrap_or(DEFAULT_STORE);
    judge(&StoreOptions::new(url.parse().ok()?, settings.entries()))
}

fn judge(options: &StoreOptions) -> Option<Check> {
    let StoreUrl::Etcd { hosts, tls } = &options.url else {
        return None;
    };
    if hosts.iter().all(|host| is_local(&host.host)) {
        return None;
    }
    let EtcdOptions { cert, user, .. } = &options.etcd;
    let url = &options.url;
    Some(if !tls {
        let found = format!(
            "{url} has no TLS: who reaches it, pods included, can read and change every link"
        );
        Check::warn(NAME, found, HINT)
    } else if cert.is_none() && user.is_none() {
        let found = format!(
            "{url} has TLS, but the agent shows neither a certificate nor a user: if etcd asks \
             for none, who reaches it, pods included, can change every link"
        );
        Check::warn(NAME, found, HINT)
    } else {
        let by = if cert.is_some() {
            "certificate"
        } else {
            "user"
        };
        Check::ok(NAME, format!("TLS, and the agent's {by}"))
    })
}

/// Whether this is the node itself, from which pods have their own.
fn is_local(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    address.map_or_else(|_| host == "localhost", |address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

    fn verdict(url: &str, keys: &[(&str, &str)]) -> Option<Verdict> {
        let entries = keys
            .iter()
            .map(|(key, value)| (*key, Some((*value).into())));
        let options = StoreOptions::new(url.parse().unwrap(), entries);
        judge(&options).map(|check| check.verdict)
    }

    #[test]
    fn an_etcd_that_cannot_tell_agents_from_pods_is_a_warning() {
        for open in [
            "etcd://10.0.0.1:2379",
            "etcd://127.0.0.1,etcd.example",
            "etcds://h",
        ] {
            assert_eq!(verdict(open, &[]), Some(Verdict::Warn), "{open}");
        }
        let (cert, user) = (("etcd_cert", "/c"), ("etcd_user", "u"));
        assert_eq!(verdict("etcd://h", &[cert, user]), Some(Verdict::Warn));
        for known in [cert, user] {
            assert_eq!(verdict("etcds://h", &[known]), Some(Verdict::Ok));
        }
    }

    #[test]
    fn a_store_of_the_node_alone_needs_no_protection_from_pods() {
        for own in [
            "etcd://127.0.0.1:2379",
            "etcd://localhost,[::1]:1",
            "sqlite:/var/lib/s.db",
        ] {
            assert_eq!(verdict(own, &[]), None, "{own}");
        }
    }
}
