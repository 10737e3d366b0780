//! The one error type of the protocol: a numeric code, a message and details, as CNI prints them.
//!
//! It has no sources and no backtraces, because a plugin can only print these three fields. Code
//! that has more to say logs it.

use serde::Serialize;

use crate::{json::Object, version::Version};

/// The error codes of the specification and of Go's reference library.
pub mod code {
    /// The config's `cniVersion` is not supported, or does not have the verb.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A field of the config is not supported; the message names key and value.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container is unknown: the runtime need not send DEL.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// An environment variable is missing or invalid.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO: u32 = 5;
    /// Something could not be decoded.
    pub const DECODE: u32 = 6;
    /// The network config is invalid.
    pub const INVALID_CONFIG: u32 = 7;
    /// The network namespace cannot be used (Go's library only).
    pub const INVALID_NETNS: u32 = 8;
    /// The runtime should try again later.
    pub const TRY_AGAIN_LATER: u32 = 11;
    /// STATUS: ADD cannot be served.
    pub const NOT_AVAILABLE: u32 = 50;
    /// STATUS: ADD cannot be served, and existing containers may have limited connectivity.
    pub const LIMITED_CONNECTIVITY: u32 = 51;
    /// The first code that a plugin may define itself. Here: an embedded plugin failed without a
    /// CNI error.
    pub const DELEGATE_FAILED: u32 = 100;
    /// An embedded plugin's program is not in any directory of CNI_PATH.
    pub const DELEGATE_MISSING: u32 = 101;
    /// Anything unexpected (Go's library only).
    pub const INTERNAL: u32 = 999;
}

/// Texts in a DEL error that go-cni takes for success, and what we write instead.
const SWALLOWED: [(&str, &str); 2] = [
    ("not found", "missing"),
    ("no such file or directory", "missing (ENOENT)"),
];

/// An error as CNI defines it. An embedded plugin's error keeps its code and details.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{msg}{}{details} (code {code})", if details.is_empty() { "" } else { "; " })]
pub struct Error {
    /// One of [`code`], or any other code of an embedded plugin.
    pub code: u32,
    /// What went wrong, in one sentence.
    pub msg: String,
    /// More about it; may be empty.
    pub details: String,
}

/// The wire form; `cniVersion` first as in the specification's example.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    cni_version: &'a str,
    code: u32,
    msg: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    details: &'a str,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident = $code:ident;)*) => {
        $($(#[$doc])* pub fn $name(msg: impl Into<String>) -> Self { Self::new(code::$code, msg) })*
    };
}

impl Error {
    /// An error of any code, without details.
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    constructors! {
        /// Code 1.
        incompatible_version = INCOMPATIBLE_VERSION;
        /// Code 2.
        unsupported_field = UNSUPPORTED_FIELD;
        /// Code 3. Never for a half-done ADD: the runtime may then skip DEL.
        unknown_container = UNKNOWN_CONTAINER;
        /// Code 4.
        invalid_environment = INVALID_ENVIRONMENT;
        /// Code 5.
        io = IO;
        /// Code 6.
        decode = DECODE;
        /// Code 7.
        invalid_config = INVALID_CONFIG;
        /// Code 8.
        invalid_netns = INVALID_NETNS;
        /// Code 11.
        try_again_later = TRY_AGAIN_LATER;
        /// Code 50.
        not_available = NOT_AVAILABLE;
        /// Code 51.
        limited_connectivity = LIMITED_CONNECTIVITY;
        /// Code 100.
        delegate_failed = DELEGATE_FAILED;
        /// Code 101.
        delegate_missing = DELEGATE_MISSING;
        /// Code 999.
        internal = INTERNAL;
    }

    /// The same error with these details.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The same error with `context: ` before its message; code and details stay.
    #[must_use]
    pub fn context(mut self, context: &str) -> Self {
        self.msg = format!("{context}: {}", self.msg);
        self
    }

    /// The same error, worded so that go-cni does not take it for success.
    ///
    /// containerd ignores a DEL error whose text contains "not found" (or, with an empty netns, "no
    /// such file or directory"), although the DEL is not complete. What is left would leak.
    #[must_use]
    pub fn for_unfinished_del(mut self) -> Self {
        for (swallowed, instead) in SWALLOWED {
            self.msg = replace_ignoring_case(&self.msg, swallowed, instead);
            self.details = replace_ignoring_case(&self.details, swallowed, instead);
        }
        self
    }

    /// One error from many, for verbs that go on after a failure: the code of the first and the
    /// texts of all.
    pub fn collect(errors: Vec<Error>) -> Result<(), Error> {
        let mut errors = errors.into_iter();
        let Some(mut first) = errors.next() else {
            return Ok(());
        };
        let rest: Vec<String> = errors.map(|error| error.to_string()).collect();
        if !rest.is_empty() {
            let also = format!("also failed: {}", rest.join("; "));
            first.details = if first.details.is_empty() {
                also
            } else {
                format!("{}; {also}", first.details)
            };
        }
        Err(first)
    }

    /// The document that goes to stdout, with a newline.
    pub fn to_json(&self, version: Version) -> Vec<u8> {
        let wire = Wire {
            cni_version: version.as_str(),
            code: self.code,
            msg: &self.msg,
            details: &self.details,
        };
        // Strings and numbers always serialise. If not, a minimal error is still an error.
        let mut json = serde_json::to_vec(&wire)
            .unwrap_or_else(|_| br#"{"code":999,"msg":"internal"}"#.to_vec());
        json.push(b'\n');
        json
    }

    /// Reads an embedded plugin's error document. `None` if it is not one.
    pub(crate) fn from_json(bytes: &[u8]) -> Option<Self> {
        let object = Object::from_slice(bytes).ok()?;
        let code: Option<u32> = object.decode("code").ok()?;
        let msg: Option<String> = object.decode("msg").ok()?;
        let details: Option<String> = object.decode("details").unwrap_or_default();
        let code = code.filter(|code| *code != 0);
        if code.is_none() && msg.as_deref().unwrap_or_default().is_empty() {
            return None;
        }
        Some(Self {
            code: code.unwrap_or(code::DELEGATE_FAILED),
            msg: msg.unwrap_or_default(),
            details: details.unwrap_or_default(),
        })
    }
}

fn replace_ignoring_case(text: &str, from: &str, to: &str) -> String {
    // ASCII lower-casing keeps every byte offset.
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (at, found) in lower.match_indices(from) {
        out.push_str(&text[done..at]);
        out.push_str(to);
        done = at + found.len();
    }
    out.push_str(&text[done..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_version_code_and_msg_and_omits_empty_details() {
        let json = Error::try_again_later("later").to_json(Version::V0_4_0);
        assert_eq!(
            json,
            b"{\"cniVersion\":\"0.4.0\",\"code\":11,\"msg\":\"later\"}\n"
        );
        let json = Error::io("a").with_details("b").to_json(Version::V1_1_0);
        assert_eq!(
            json,
            b"{\"cniVersion\":\"1.1.0\",\"code\":5,\"msg\":\"a\",\"details\":\"b\"}\n"
        );
    }

    #[test]
    fn display_shows_details_only_if_there_are_any() {
        assert_eq!(Error::io("a").to_string(), "a (code 5)");
        assert_eq!(
            Error::io("a").with_details("b").to_string(),
            "a; b (code 5)"
        );
    }

    #[test]
    fn foreign_errors_keep_code_and_details() {
        let error = Error::from_json(br#"{"code":7,"msg":"m","details":"d","x":1}"#).unwrap();
        assert_eq!(error, Error::invalid_config("m").with_details("d"));
        assert_eq!(
            Error::from_json(br#"{"msg":"m"}"#).unwrap().code,
            code::DELEGATE_FAILED
        );
        for none in [
            "",
            "{}",
            "null",
            "[]",
            "x",
            r#"{"code":0}"#,
            r#"{"code":-1,"msg":"m"}"#,
            r#"{"code":1}x"#,
        ] {
            assert_eq!(Error::from_json(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn unfinished_del_says_nothing_a_runtime_swallows() {
        let error = Error::io("plugin Not Found").with_details("open: No such file or directory!");
        let error = error.for_unfinished_del();
        assert_eq!(error.msg, "plugin missing");
        assert_eq!(error.details, "open: missing (ENOENT)!");
    }

    #[test]
    fn collected_errors_keep_the_first_code_and_all_texts() {
        assert_eq!(Error::collect(vec![]), Ok(()));
        let error = Error::collect(vec![Error::io("a"), Error::decode("b")]).unwrap_err();
        assert_eq!(
            (error.code, error.details.as_str()),
            (5, "also failed: b (code 6)")
        );
    }
}
