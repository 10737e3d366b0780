//! IP addresses with a prefix length, read and printed as Go's `net.ParseCIDR` and `net.IPNet` do.

use std::{fmt, net::IpAddr, str::FromStr};

/// An address with its prefix length. The host bits are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    addr: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// `None` if the prefix is longer than the address.
    ///
    /// An IPv4-mapped IPv6 address becomes the IPv4 address, as it does everywhere in Go.
    pub fn new(addr: IpAddr, prefix: u8) -> Option<Self> {
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        if prefix > bits {
            return None;
        }
        let canonical = addr.to_canonical();
        let prefix = if canonical.is_ipv4() && addr.is_ipv6() {
            prefix.saturating_sub(96)
        } else {
            prefix
        };
        Some(Self {
            addr: canonical,
            prefix,
        })
    }

    /// The address, host bits included.
    pub fn addr(self) -> IpAddr {
        self.addr
    }

    /// The prefix length.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether it is IPv4. A mapped address counts as IPv4.
    pub fn is_ipv4(self) -> bool {
        self.addr.is_ipv4()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

/// The text is not an address with a prefix length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address with a prefix length")]
pub struct NotCidr(String);

impl FromStr for Cidr {
    type Err = NotCidr;

    fn from_str(text: &str) -> Result<Self, NotCidr> {
        let parse = || {
            let (addr, prefix) = text.split_once('/')?;
            // `parse` alone would take "+24".
            let prefix =
                Some(prefix).filter(|prefix| prefix.bytes().all(|byte| byte.is_ascii_digit()))?;
            Self::new(addr.parse().ok()?, prefix.parse().ok()?)
        };
        parse().ok_or_else(|| NotCidr(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_go_prints() {
        for (text, printed) in [
            ("10.1.2.3/24", "10.1.2.3/24"),
            ("10.1.2.3/024", "10.1.2.3/24"),
            ("FD00:0:0::1/64", "fd00::1/64"),
            ("::ffff:10.0.0.1/120", "10.0.0.1/24"),
            ("::ffff:10.0.0.1/64", "10.0.0.1/0"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), printed, "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for text in [
            "",
            "/",
            "10.0.0.1",
            "10.0.0.1/",
            "10.0.0.1/33",
            "::1/129",
            "1.2.3/8",
            "10.0.0.1/+8",
            "010.0.0.1/8",
            "fe80::1%eth0/64",
            "10.0.0.1/8/8",
            "10.0.0.1/300",
            " 10.0.0.1/8",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
