//! The two ways to wire a link.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::link::RangeError;

/// How the ends of a link are wired on their nodes. Nodes need not agree: what they exchange is the
/// same.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum WiringKind {
    /// The pod's interface is the veth end or the VXLAN device itself: the fastest way, and that of
    /// Ratchet's first release.
    #[default]
    Direct,
    /// The pod's interface is a veth whose other end, on the node, is joined to the rest of the
    /// link: it is there before the peer is, and stays when the peer moves.
    Stitched,
}

impl WiringKind {
    /// Its word in configs and declarations: `direct` or `stitched`.
    pub fn as_str(self) -> &'static str {
        match self {
            WiringKind::Direct => "direct",
            WiringKind::Stitched => "stitched",
        }
    }
}

impl fmt::Display for WiringKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for WiringKind {
    type Err = RangeError;
    fn from_str(text: &str) -> Result<Self, RangeError> {
        [WiringKind::Direct, WiringKind::Stitched]
            .into_iter()
            .find(|strategy| strategy.as_str() == text)
            .ok_or_else(|| RangeError(format!("expected direct or stitched, not {text:?}")))
    }
}
