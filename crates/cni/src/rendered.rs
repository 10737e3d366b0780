//! What embedded plugins got on stdin at ADD, kept so that DEL can give them exactly the same.
//!
//! A DEL with the current config can leak leases: the config may have been edited or removed.

use serde::{Deserialize, Serialize};

use crate::{error::Error, result::CniResult, version::Version};

/// All embedded plugins of one attachment, in the order of their ADD. The caller keeps it, in any
/// serde format.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendered {
    /// The plugins on which ADD was called, or is about to be called.
    pub plugins: Vec<RenderedPlugin>,
    /// Whether the list turns CHECK off.
    #[serde(default)]
    pub disable_check: bool,
}

/// One embedded plugin's call, without the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderedPlugin {
    /// The name of its program; looked up in CNI_PATH at each call.
    pub kind: String,
    /// The version of its config.
    pub version: Version,
    /// CNI_IFNAME for the plugin.
    pub ifname: String,
    /// The exact text of its stdin.
    pub stdin: String,
}

impl RenderedPlugin {
    /// The same stdin with this `prevResult`; for CHECK.
    pub(crate) fn stdin_with(&self, prev: &CniResult) -> Result<String, Error> {
        crate::embedded::with_prev_result(&self.stdin, prev, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_kept_byte_for_byte() {
        let stdin = "{ \"a\":1.50, \"b\":\"\\u00e9é\\n\" , \"a\":123456789012345678901234567890 }";
        let plugin = RenderedPlugin {
            kind: "bridge".into(),
            version: Version::V1_0_0,
            ifname: "eth0".into(),
            stdin: stdin.into(),
        };
        let rendered = Rendered {
            plugins: vec![plugin],
            disable_check: true,
        };
        let json = serde_json::to_string(&rendered).unwrap();
        assert_eq!(serde_json::from_str::<Rendered>(&json).unwrap(), rendered);
    }
}
