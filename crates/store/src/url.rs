//! The URL of a store: the value of the config's key `store` and of `ratchet --store`.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::StoreError;

/// The forms of a store's URL, for messages.
const FORMS: &str = "sqlite:/absolute/path, etcd://host:port,…, etcds://host:port,… or kubernetes";

/// etcd's client port (IANA: etcd-client).
const ETCD_PORT: u16 = 2379;

/// A store's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A file that the agents of one machine share.
    Sqlite(PathBuf),
    /// An etcd cluster.
    Etcd {
        /// Its members, at least one.
        hosts: Vec<HostPort>,
        /// Whether to use TLS.
        tls: bool,
    },
    /// Custom resources behind the Kubernetes API.
    Kubernetes,
}

/// A host, by name or address, and a TCP port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address; an IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or("a '[' without its ']'")?;
                if host.parse::<std::net::Ipv6Addr>().is_err() {
                    return Err(format!("[{host}] is not an IPv6 address"));
                }
                (
                    host,
                    port.strip_prefix(':')
                        .or(port.is_empty().then_some(""))
                        .ok_or("expected ':port' after ']'")?,
                )
            }
            None => text.split_once(':').unwrap_or((text, "")),
        };
        let name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if host.is_empty() || (!text.starts_with('[') && !host.chars().all(name)) {
            return Err(format!("{text:?} is not host:port"));
        }
        let port = match port {
            "" => ETCD_PORT,
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or(format!("port {digits}: expected 1 to 65535"))?,
            _ if text.matches(':').count() > 1 => {
                return Err(format!(
                    "{text:?} is not host:port; put an IPv6 address in brackets: [2001:db8::1]:2379"
                ));
            }
            other => return Err(format!("port {other:?}: expected 1 to 65535")),
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            StoreUrl::Etcd { hosts, tls } => {
                let hosts: Vec<String> = hosts.iter().map(HostPort::to_string).collect();
                write!(
                    f,
                    "{}://{}",
                    if *tls { "etcds" } else { "etcd" },
                    hosts.join(",")
                )
            }
            StoreUrl::Kubernetes => f.write_str("kubernetes"),
        }
    }
}

impl FromStr for StoreUrl {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let refuse =
            |why: &str| StoreError::Config(format!("store {:?}: {why}", without_secret(text)));
        match text.split_once(':') {
            Some(("sqlite", path)) => sqlite(path).map_err(|why| refuse(&why)),
            Some((scheme @ ("etcd" | "etcds"), rest)) => {
                etcd(rest, scheme == "etcds").map_err(|why| refuse(&why))
            }
            None if text == "kubernetes" => Ok(StoreUrl::Kubernetes),
            _ => Err(refuse(&format!("expected {FORMS}"))),
        }
    }
}

fn sqlite(path: &str) -> Result<StoreUrl, String> {
    // Other programs write sqlite:///path. It means the same.
    let path = path.strip_prefix("//").unwrap_or(path);
    if !path.starts_with('/') {
        return Err("the path must be absolute, such as sqlite:/var/lib/ratchet/ratchet.db".into());
    }
    if path.ends_with('/') {
        return Err(format!(
            "{path} is a directory's name; name a file in it, such as {path}ratchet.db"
        ));
    }
    if path.contains('\0') {
        return Err("a path holds no NUL".into());
    }
    Ok(StoreUrl::Sqlite(PathBuf::from(path)))
}

fn etcd(rest: &str, tls: bool) -> Result<StoreUrl, String> {
    let hosts = rest
        .strip_prefix("//")
        .ok_or("expected // after the scheme, such as etcd://host:2379")?;
    if hosts.contains('@') {
        return Err("no user or password here: use etcd_user and etcd_password_file".into());
    }
    let hosts = hosts
        .trim_end_matches('/')
        .split(',')
        .map(str::parse)
        .collect::<Result<Vec<HostPort>, String>>()?;
    Ok(StoreUrl::Etcd { hosts, tls })
}

/// A refused URL for a message. A password in it must not appear in logs.
fn without_secret(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, after))) => format!("{scheme}://…@{after}"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_as_they_are_written() {
        for (text, shown) in [
            (
                "sqlite:/var/lib/ratchet/ratchet.db",
                "sqlite:/var/lib/ratchet/ratchet.db",
            ),
            ("sqlite:///tmp/r.db", "sqlite:/tmp/r.db"),
            ("etcd://a:2379,b:2380", "etcd://a:2379,b:2380"),
            (
                "etcds://[2001:db8::1]:4001,etcd.example",
                "etcds://[2001:db8::1]:4001,etcd.example:2379",
            ),
            ("etcd://10.0.0.1/", "etcd://10.0.0.1:2379"),
            ("kubernetes", "kubernetes"),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(shown.parse::<StoreUrl>().unwrap(), url);
        }
    }

    #[test]
    fn refusals_say_what_was_expected() {
        for (text, expected) in [
            ("redis://a", "expected sqlite:/absolute/path, etcd://"),
            ("", "or kubernetes"),
            ("kubernetes:", "or kubernetes"),
            ("sqlite:ratchet.db", "must be absolute"),
            ("sqlite:/var/lib/", "name a file in it"),
            ("etcd:a:2379", "expected //"),
            ("etcd://", "is not host:port"),
            ("etcd://a,,b", "is not host:port"),
            ("etcd://a:99999", "expected 1 to 65535"),
            ("etcd://a:0", "expected 1 to 65535"),
            ("etcd://a:x", "expected 1 to 65535"),
            ("etcd://2001:db8::1", "in brackets"),
            ("etcd://[a]:1", "not an IPv6 address"),
            ("etcd://[::1", "without its"),
        ] {
            let error = text.parse::<StoreUrl>().unwrap_err();
            assert!(matches!(error, StoreError::Config(_)), "{error:?}");
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_is_not_repeated() {
        let error = "etcd://me:secret@a:2379"
            .parse::<StoreUrl>()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("etcd_password_file") && !error.contains("secret"),
            "{error}"
        );
    }
}
