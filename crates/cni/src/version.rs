//! The versions of the specification, and the verbs that each version has.
//!
//! Versions match exactly: 1.0.1 is not 1.0.0. Reads no config; see `config`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::Error;

/// A version of the CNI specification that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say everything")]
pub enum Version {
    V0_1_0,
    V0_2_0,
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Version; 7] = [
        Self::V0_1_0,
        Self::V0_2_0,
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];
    /// The newest one.
    pub const NEWEST: Version = Self::V1_1_0;
    /// The version of a config without `cniVersion`.
    pub const IF_MISSING: Version = Self::V0_1_0;

    /// As it is written in a config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version of exactly this text; an empty text is [`Version::IF_MISSING`].
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::IF_MISSING);
        }
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
    }

    /// Whether results have the `ip4`/`ip6` shape of 0.1.0 and 0.2.0.
    pub fn is_legacy(self) -> bool {
        self <= Self::V0_2_0
    }

    /// Whether a config of this version may be called with the verb.
    pub fn allows(self, verb: Verb) -> bool {
        self >= verb.since()
    }

    /// Decides whether a config of version `text` may run `verb`, with the errors of Go's skel.
    pub fn negotiate(text: &str, verb: Verb, supported: &[Version]) -> Result<Self, Error> {
        let gate = verb.since();
        // Only these verbs compare numbers, so only they can fail to decode one.
        if matches!(verb, Verb::Check | Verb::Gc | Verb::Status) {
            let numbers = numbers(text).ok_or_else(|| {
                Error::decode("the config's cniVersion is not a version")
                    .with_details(format!("cniVersion is {text:?}"))
            })?;
            if Some(numbers) < self::numbers(gate.as_str()) {
                return Err(Error::incompatible_version(format!(
                    "config version does not allow {verb}"
                ))
                .with_details(format!("config is {text:?}, {verb} needs {gate}")));
            }
        }
        Self::parse(text)
            .filter(|version| supported.contains(version))
            .ok_or_else(|| {
                let supported: Vec<_> = supported.iter().map(|version| version.as_str()).collect();
                Error::incompatible_version("incompatible CNI versions")
                    .with_details(format!("config is {text:?}, plugin supports {supported:?}"))
            })
    }
}

/// Up to three dotted numbers, as Go's `ParseVersion` reads them.
pub(crate) fn numbers(text: &str) -> Option<[u32; 3]> {
    if text.is_empty() {
        return numbers(Version::IF_MISSING.as_str());
    }
    let mut out = [0; 3];
    for (at, part) in text.split('.').enumerate() {
        *out.get_mut(at)? = part.parse().ok()?;
    }
    Some(out)
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| de::Error::custom(format!("{text:?} is not a CNI version")))
    }
}

/// What a runtime can ask of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say everything")]
pub enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Verb {
    /// As it is written in CNI_COMMAND, where case matters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// The verb of exactly this text.
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Add,
            Self::Del,
            Self::Check,
            Self::Gc,
            Self::Status,
            Self::Version,
        ]
        .into_iter()
        .find(|verb| verb.as_str() == text)
    }

    /// Whether it is about one attachment (container and interface) and not about the whole
    /// network.
    pub fn has_attachment(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }

    /// The oldest version of a config for this verb. VERSION needs no config.
    pub fn since(self) -> Version {
        match self {
            Self::Add | Self::Del | Self::Version => Version::V0_1_0,
            Self::Check => Version::V0_4_0,
            Self::Gc | Self::Status => Version::V1_1_0,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str, verb: Verb) -> Result<Version, u32> {
        Version::negotiate(text, verb, &Version::ALL).map_err(|error| error.code)
    }

    #[test]
    fn every_version_is_accepted_as_gated() {
        for version in Version::ALL {
            let text = version.as_str();
            assert_eq!(code(text, Verb::Add), Ok(version));
            assert_eq!(code(text, Verb::Del), Ok(version));
            assert_eq!(code(text, Verb::Check).is_ok(), version >= Version::V0_4_0);
            assert_eq!(code(text, Verb::Gc).is_ok(), version >= Version::V1_1_0);
            assert_eq!(code(text, Verb::Status).is_ok(), version >= Version::V1_1_0);
        }
        assert_eq!(code("", Verb::Add), Ok(Version::V0_1_0));
    }

    #[test]
    fn unknown_versions_are_refused() {
        for text in ["1.2.0", "0.5.0", "1.0.1", "abc", "1.0", " 1.0.0", "1.0.0 "] {
            assert_eq!(code(text, Verb::Add), Err(1), "{text}");
        }
        assert_eq!(code("1.2.0", Verb::Gc), Err(1));
        assert_eq!(code("0.3.1", Verb::Check), Err(1));
        assert_eq!(code("", Verb::Check), Err(1));
        for text in ["abc", "1.1.0.0", "1..0", "1."] {
            assert_eq!(code(text, Verb::Check), Err(6), "{text}");
        }
    }

    #[test]
    fn the_refusal_names_both_sides() {
        let error = Version::negotiate("9", Verb::Add, &[Version::V1_0_0]).unwrap_err();
        assert_eq!(error.details, r#"config is "9", plugin supports ["1.0.0"]"#);
    }

    #[test]
    fn verbs_are_case_sensitive() {
        assert_eq!(Verb::parse("ADD"), Some(Verb::Add));
        assert_eq!(Verb::parse("add"), None);
    }
}
