//! The network config from stdin: the keys of the protocol, and access to all others.
//!
//! Does not interpret the plugin's own keys. The plugin decodes them with [`Config::field`].

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::{
    error::Error,
    json::{Object, is_null},
    names::validate_network_name,
    result::CniResult,
    version::{Verb, Version},
};

/// The key of the list of valid attachments: its name, and the one that older runtimes send.
const VALID_ATTACHMENTS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

/// A network config that passed the checks of the protocol.
#[derive(Debug, Clone)]
pub struct Config {
    raw: Vec<u8>,
    object: Object,
    name: String,
    version: Version,
}

/// One attachment that GC must leave alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attachment {
    /// CNI_CONTAINERID of its ADD.
    pub container_id: String,
    /// CNI_IFNAME of its ADD.
    pub ifname: String,
}

impl Config {
    /// Checks the bytes of stdin: an object (6), a network name (7), a version that has the verb (6
    /// or 1).
    pub fn parse(raw: Vec<u8>, verb: Verb, supported: &[Version]) -> Result<Self, Error> {
        let object = Object::from_slice(&raw).map_err(|error| {
            Error::decode("the network config on stdin is not a JSON object")
                .with_details(error.to_string())
        })?;
        let name: String = object
            .decode("name")
            .map_err(|error| undecodable("name", &error))?
            .unwrap_or_default();
        validate_network_name(&name)?;
        let version: Option<String> = object
            .decode("cniVersion")
            .map_err(|error| undecodable("cniVersion", &error))?;
        let version = Version::negotiate(&version.unwrap_or_default(), verb, supported)?;
        Ok(Self {
            raw,
            object,
            name,
            version,
        })
    }

    /// The version in which to answer these bytes, even if they are not a valid config.
    pub(crate) fn answer_version(raw: &[u8]) -> Version {
        let text = Object::from_slice(raw)
            .ok()
            .and_then(|object| object.decode::<String>("cniVersion").ok().flatten());
        text.filter(|text| !text.is_empty())
            .and_then(|text| Version::parse(&text))
            .unwrap_or(Version::NEWEST)
    }

    /// The bytes from stdin, unchanged.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The network's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version of the config. The result must have the same.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The whole config.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// The text of a top-level key's value, byte for byte; `None` if it is absent or `null`.
    pub fn raw_key(&self, key: &str) -> Option<&RawValue> {
        self.object.get(key).filter(|value| !is_null(value))
    }

    /// A top-level key decoded into a type of the plugin. `None` if it is absent or `null`. Code 7,
    /// with the key's name, if it does not fit.
    pub fn field<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.object.decode(key).map_err(|error| {
            Error::invalid_config(format!("invalid value of the config's key {key:?}"))
                .with_details(error.to_string())
        })
    }

    /// The result of the plugins before this one in the chain, in the version that it names.
    pub fn prev_result(&self) -> Result<Option<CniResult>, Error> {
        let Some(raw) = self.raw_key("prevResult") else {
            return Ok(None);
        };
        CniResult::parse(raw.get(), self.version)
            .map(Some)
            .map_err(|error| error.context("prevResult"))
    }

    /// What the runtime passes for declared capabilities. Empty if it passes nothing.
    pub fn runtime_config(&self) -> Result<Object, Error> {
        Ok(self.field("runtimeConfig")?.unwrap_or_default())
    }

    /// The object under `args`, the static counterpart of CNI_ARGS. Empty if there is none.
    pub fn args(&self) -> Result<Object, Error> {
        Ok(self.field("args")?.unwrap_or_default())
    }

    /// What GC must leave alone. `None` if the key is absent. `null` is an empty list: no
    /// attachment is valid.
    ///
    /// If both spellings of the key are there, the attachments of both are valid.
    pub fn valid_attachments(&self) -> Result<Option<Vec<Attachment>>, Error> {
        let mut found: Option<Vec<Attachment>> = None;
        for key in VALID_ATTACHMENTS {
            if self.object.get(key).is_none() {
                continue;
            }
            let list: Vec<Object> = self.field(key)?.unwrap_or_default();
            let found = found.get_or_insert_default();
            for object in &list {
                let attachment = attachment(object).map_err(|error| undecodable(key, &error))?;
                if !found.contains(&attachment) {
                    found.push(attachment);
                }
            }
        }
        Ok(found)
    }
}

fn attachment(object: &Object) -> Result<Attachment, serde_json::Error> {
    Ok(Attachment {
        container_id: object.decode("containerID")?.unwrap_or_default(),
        ifname: object.decode("ifname")?.unwrap_or_default(),
    })
}

fn undecodable(key: &str, error: &serde_json::Error) -> Error {
    Error::decode(format!("cannot decode the config's key {key:?}")).with_details(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Config, Error> {
        Config::parse(text.into(), Verb::Add, &Version::ALL)
    }

    fn code(text: &str) -> u32 {
        parse(text).unwrap_err().code
    }

    #[test]
    fn refusals_have_skels_codes() {
        for text in [
            "",
            "garbage",
            "[]",
            "1",
            r#"{"name":1}"#,
            r#"{"name":"n","cniVersion":1}"#,
            r#"{"name":"n"} x"#,
        ] {
            assert_eq!(code(text), 6, "{text}");
        }
        for text in [
            "{}",
            "null",
            r#"{"name":""}"#,
            r#"{"name":".x"}"#,
            r#"{"name":"a/b"}"#,
            r#"{"name":null}"#,
        ] {
            assert_eq!(code(text), 7, "{text}");
        }
        assert_eq!(code(r#"{"name":"n","cniVersion":"1.2.0"}"#), 1);
    }

    #[test]
    fn version_defaults_and_keys_are_lenient() {
        assert_eq!(parse(r#"{"name":"n"}"#).unwrap().version(), Version::V0_1_0);
        assert_eq!(
            parse(r#"{"name":"n","cniVersion":null}"#)
                .unwrap()
                .version(),
            Version::V0_1_0
        );
        let config =
            parse(r#"{"Name":"a","name":"b","CNIVersion":"1.0.0","x":{"k":1.50}}"#).unwrap();
        assert_eq!((config.name(), config.version()), ("b", Version::V1_0_0));
        assert_eq!(config.raw_key("x").unwrap().get(), r#"{"k":1.50}"#);
    }

    #[test]
    fn a_field_that_does_not_fit_is_named() {
        let config = parse(r#"{"name":"n","flag":"yes","none":null}"#).unwrap();
        let error = config.field::<bool>("flag").unwrap_err();
        assert_eq!(error.code, 7);
        assert!(error.msg.contains("flag"), "{error}");
        assert_eq!(config.field::<bool>("none"), Ok(None));
        assert_eq!(config.field::<bool>("absent"), Ok(None));
    }

    #[test]
    fn valid_attachments_in_every_form() {
        let read = |rest: &str| {
            parse(&format!(r#"{{"name":"n"{rest}}}"#))
                .unwrap()
                .valid_attachments()
                .unwrap()
        };
        let one = |id: &str| Attachment {
            container_id: id.into(),
            ifname: "eth0".into(),
        };
        assert_eq!(read(""), None);
        assert_eq!(read(r#","cni.dev/valid-attachments":null"#), Some(vec![]));
        assert_eq!(read(r#","cni.dev/attachments":[]"#), Some(vec![]));
        let right = r#","cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]"#;
        let wrong = r#","cni.dev/attachments":[{"containerid":"a","ifName":"eth0"},
            {"containerID":"b","ifname":"eth0"}]"#;
        assert_eq!(read(right), Some(vec![one("a")]));
        assert_eq!(
            read(&format!("{right}{wrong}")),
            Some(vec![one("a"), one("b")])
        );
        let bad = parse(r#"{"name":"n","cni.dev/attachments":{}}"#).unwrap();
        assert_eq!(bad.valid_attachments().unwrap_err().code, 7);
    }

    #[test]
    fn runtime_config_may_be_null_absent_or_huge() {
        assert!(
            parse(r#"{"name":"n","runtimeConfig":null}"#)
                .unwrap()
                .runtime_config()
                .unwrap()
                .is_empty()
        );
        let big = "x".repeat(256 << 10);
        let config = parse(&format!(
            r#"{{"name":"n","runtimeConfig":{{"a":"{big}","b":null}}}}"#
        ))
        .unwrap();
        let runtime = config.runtime_config().unwrap();
        assert_eq!(
            runtime
                .decode::<String>("a")
                .unwrap()
                .map(|text| text.len()),
            Some(big.len())
        );
    }

    #[test]
    fn prev_result_is_in_the_configs_version_unless_it_says_otherwise() {
        let config = parse(r#"{"name":"n","cniVersion":"0.4.0","prevResult":{}}"#).unwrap();
        assert_eq!(
            config.prev_result().unwrap().unwrap().version(),
            Version::V0_4_0
        );
        let config =
            parse(r#"{"name":"n","cniVersion":"0.4.0","prevResult":{"cniVersion":"1.0.0"}}"#)
                .unwrap();
        assert_eq!(
            config.prev_result().unwrap().unwrap().version(),
            Version::V1_0_0
        );
        assert_eq!(
            parse(r#"{"name":"n","prevResult":null}"#)
                .unwrap()
                .prev_result(),
            Ok(None)
        );
        assert_eq!(
            parse(r#"{"name":"n","prevResult":[]}"#)
                .unwrap()
                .prev_result()
                .unwrap_err()
                .code,
            6
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Err(error) = Config::parse(bytes, Verb::Add, &Version::ALL) {
                prop_assert!([1, 6, 7].contains(&error.code));
            }
        }

        #[test]
        fn any_values_of_known_keys_are_parsed_or_refused(
            name in "(\"[a-z./]{0,4}\"|null|1|\\[\\])",
            version in "(\"[0-2]\\.[0-5]\\.[0-2]\"|null|\"\"|true)",
            prev in "(null|\\{\\}|\\[\\]|\"x\"|\\{\"ips\":(null|\\[\\{\\}\\]|1)\\})",
            list in "(null|\\[\\]|\\[null\\]|\\[\\{\"ifname\":(1|\"a\"|null)\\}\\]|7)",
        ) {
            let text = format!(
                r#"{{"name":{name},"cniVersion":{version},"prevResult":{prev},
                    "cni.dev/valid-attachments":{list}}}"#,
            );
            for verb in [Verb::Add, Verb::Del, Verb::Check, Verb::Gc, Verb::Status] {
                match Config::parse(text.clone().into_bytes(), verb, &Version::ALL) {
                    Err(error) => prop_assert!([1, 6, 7].contains(&error.code)),
                    Ok(config) => {
                        let refusals =
                            [config.prev_result().err(), config.valid_attachments().err()];
                        for error in refusals.into_iter().flatten() {
                            prop_assert!([1, 6, 7].contains(&error.code));
                        }
                    }
                }
            }
        }
    }
}
