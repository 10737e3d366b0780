//! Links, their endpoints, and what a user may say of them.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    WiringKind,
    device::Part,
    names::{InterfaceName, LinkId, PodKey},
};

/// One of a link's two ends, whoever declared it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The endpoint that sorts first by pod, then interface, unless an [`Identity`] says otherwise.
    A,
    /// The other one.
    Z,
}

impl End {
    /// Both ends.
    pub const BOTH: [End; 2] = [End::A, End::Z];

    /// The opposite end.
    pub fn other(self) -> Self {
        match self {
            End::A => End::Z,
            End::Z => End::A,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            End::A => "a",
            End::Z => "z",
        })
    }
}

/// A value outside its range. The text says which and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RangeError(pub(crate) String);

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

impl Mac {
    /// From its six bytes, unchecked: for what the kernel reports.
    pub fn from_bytes(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The six bytes.
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// The address of an end of a link for which the user set none: locally administered, unicast
    /// (IEEE 802, the two low bits of the first byte), the rest from SHA-256 of the link's id and
    /// the end.
    pub fn derive(link: LinkId, end: End) -> Self {
        Self::from_digest_of(&format!("{link} {end}"))
    }

    /// The address of a device in the node's namespace: one that no pod's interface has. A VXLAN
    /// device drops frames that come from its own address (drivers/net/vxlan/vxlan_core.c,
    /// `vxlan_set_mac`).
    pub(crate) fn of_part(link: LinkId, end: End, part: Part) -> Self {
        Self::from_digest_of(&format!("{link} {end} {part:?}"))
    }

    fn from_digest_of(text: &str) -> Self {
        let digest = Sha256::digest(text);
        Self([0x02, digest[0], digest[1], digest[2], digest[3], digest[4]])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = RangeError;
    fn from_str(text: &str) -> Result<Self, RangeError> {
        let refuse = |why| RangeError(format!("MAC address {text:?}: {why}"));
        let form = || refuse("expected six bytes such as 02:00:00:00:00:01");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(form)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(form());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| form())?;
        }
        if parts.next().is_some() {
            return Err(form());
        }
        if bytes[0] & 1 == 1 {
            return Err(refuse(
                "this is a multicast address; the first byte must be even",
            ));
        }
        if bytes == [0; 6] {
            return Err(refuse("an interface cannot have the all-zero address"));
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Mac {
    type Error = RangeError;
    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

/// A maximum transmission unit, in bytes of layer-3 payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Mtu(u32);

impl Mtu {
    /// The least an Ethernet device takes: ETH_MIN_MTU, include/uapi/linux/if_ether.h.
    pub const MIN: u32 = 68;
    /// The most: ETH_MAX_MTU, include/uapi/linux/if_ether.h.
    pub const MAX: u32 = 65_535;

    /// The MTU in bytes.
    pub fn bytes(self) -> u32 {
        self.0
    }

    /// What is left of an underlay's MTU for a link: less the outer IP header (20 or 40), UDP (8),
    /// VXLAN (8) and the inner Ethernet header (14), RFC 7348 section 5: 50, or 70 over IPv6.
    pub fn within_underlay(parent: u32, vtep: IpAddr) -> Self {
        let overhead = if vtep.is_ipv4() { 50 } else { 70 };
        Self(parent.saturating_sub(overhead).clamp(Self::MIN, Self::MAX))
    }

    fn refused(value: impl fmt::Display) -> RangeError {
        let (min, max) = (Self::MIN, Self::MAX);
        RangeError(format!("MTU {value}: expected {min} to {max}"))
    }
}

impl TryFrom<u32> for Mtu {
    type Error = RangeError;
    fn try_from(bytes: u32) -> Result<Self, RangeError> {
        if (Self::MIN..=Self::MAX).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(Self::refused(bytes))
        }
    }
}

impl FromStr for Mtu {
    type Err = RangeError;
    fn from_str(text: &str) -> Result<Self, RangeError> {
        let bytes: Result<u32, _> = text.parse();
        bytes.map_err(|_| Self::refused(text))?.try_into()
    }
}

impl From<Mtu> for u32 {
    fn from(mtu: Mtu) -> u32 {
        mtu.0
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A VXLAN network identifier: 24 bits (RFC 7348 section 5), zero not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

impl Vni {
    /// The first that is allocated, as in 2017.
    pub const FIRST: u32 = 11;
    /// The greatest: 24 bits.
    pub const MAX: u32 = (1 << 24) - 1;

    /// The identifier as a number.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = RangeError;
    fn try_from(number: u32) -> Result<Self, RangeError> {
        if (1..=Self::MAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(RangeError(format!(
                "VNI {number}: expected 1 to {}",
                Self::MAX
            )))
        }
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> u32 {
        vni.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A route that goes out of a link's interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop; none: the destination is on the link itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// Metric (the kernel's RTA_PRIORITY); none: the kernel's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
}

/// What a declaration says of one end. What is `None` is left to the other pod's declaration, if it
/// makes one, else to the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredEnd {
    /// The pod.
    pub pod: PodKey,
    /// The interface's name in the pod.
    pub interface: InterfaceName,
    /// Addresses with their prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<IpNet>>,
    /// Ethernet address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Routes out of this interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<Route>>,
}

impl DeclaredEnd {
    /// An end of which only pod and interface are known.
    pub fn bare(pod: PodKey, interface: InterfaceName) -> Self {
        Self {
            pod,
            interface,
            addresses: None,
            mac: None,
            routes: None,
        }
    }
}

/// A link as one pod declares it, whatever form the declaration had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredLink {
    /// The declaring pod's own end.
    pub local: DeclaredEnd,
    /// The other end.
    pub remote: DeclaredEnd,
    /// MTU for both ends; none: the underlay's less the tunnel's overhead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Mtu>,
    /// A VNI the user insists on; none: the lowest free one of the automatic range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<Vni>,
    /// How it is to be wired; none: as the node's config says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wiring: Option<WiringKind>,
    /// Since when the pod has declared it, in nanoseconds since 1970, as its agent says; 0: not
    /// known. Of several links that claim an interface, the first has it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub since: u64,
    /// What the link is known by, if not by its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

/// What a link is known by whose pods may be replaced by others, with other names. Only a store
/// says this, never a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The link's id.
    pub link: LinkId,
    /// Which end the declaring pod's own one is.
    pub local: End,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl DeclaredLink {
    /// A link of which only the ends are declared.
    pub fn new(local: DeclaredEnd, remote: DeclaredEnd) -> Self {
        Self {
            local,
            remote,
            mtu: None,
            vni: None,
            wiring: None,
            since: 0,
            identity: None,
        }
    }

    /// The link's id.
    pub fn id(&self) -> LinkId {
        if let Some(identity) = self.identity {
            return identity.link;
        }
        LinkId::derive(
            (&self.local.pod, &self.local.interface),
            (&self.remote.pod, &self.remote.interface),
        )
    }

    /// The ends `A` and `Z`.
    pub fn ends(&self) -> [&DeclaredEnd; 2] {
        let mut ends = [&self.local, &self.remote];
        match self.identity {
            None => ends.sort_by_key(|end| (&end.pod, &end.interface)),
            Some(identity) if identity.local == End::Z => ends.reverse(),
            Some(_) => {}
        }
        ends
    }
}

/// One end of a link, settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The pod.
    pub pod: PodKey,
    /// The interface's name in the pod.
    pub interface: InterfaceName,
    /// Addresses with their prefix; may be empty.
    pub addresses: Vec<IpNet>,
    /// Ethernet address, as set or derived.
    pub mac: Mac,
    /// Routes out of this interface.
    pub routes: Vec<Route>,
}

#[cfg(test)]
mod tests;
