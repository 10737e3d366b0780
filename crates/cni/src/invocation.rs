//! The CNI_* variables of one call: checked in the order and with the errors of Go's skel, then
//! typed.
//!
//! Reads no real environment and no stdin.

use std::{ffi::OsStr, path::PathBuf};

use crate::{
    args::CniArgs,
    environment::Environment,
    error::Error,
    names::{validate_container_id, validate_interface_name},
    version::Verb,
};

/// What the runtime asks for, and for which attachment.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// CNI_COMMAND.
    pub verb: Verb,
    /// CNI_CONTAINERID; empty for GC and STATUS, which have no container.
    pub container_id: String,
    /// CNI_NETNS, unchanged. `None` if unset or empty (DEL), and for GC and STATUS.
    pub netns: Option<String>,
    /// CNI_IFNAME; empty for GC and STATUS.
    pub ifname: String,
    /// CNI_ARGS.
    pub args: CniArgs,
    /// The directories of CNI_PATH.
    pub path: Vec<PathBuf>,
    /// CNI_NETNS_OVERRIDE: the runtime allows work in the plugin's own netns.
    pub netns_override: bool,
}

/// One variable's row in skel's table.
struct Variable {
    name: &'static str,
    required: fn(Verb) -> bool,
    validate: fn(&str) -> Result<(), Error>,
}

/// skel's table, in skel's order, without its first row: CNI_COMMAND is handled separately.
const VARIABLES: [Variable; 4] = [
    Variable {
        name: "CNI_CONTAINERID",
        required: Verb::has_attachment,
        validate: validate_container_id,
    },
    Variable {
        name: "CNI_NETNS",
        required: |verb| matches!(verb, Verb::Add | Verb::Check),
        validate: |_| Ok(()),
    },
    Variable {
        name: "CNI_IFNAME",
        required: Verb::has_attachment,
        validate: validate_interface_name,
    },
    Variable {
        name: "CNI_PATH",
        required: |verb| verb != Verb::Version,
        validate: |_| Ok(()),
    },
];

impl Invocation {
    /// Checks and reads the variables. Call only if CNI_COMMAND is set: without it there is no
    /// call.
    ///
    /// An invalid variable is reported at once; missing ones are collected into one error.
    pub fn from_env(env: &Environment) -> Result<Self, Error> {
        let command = env.get("CNI_COMMAND").unwrap_or_default().to_string_lossy();
        let verb = Verb::parse(&command)
            .ok_or_else(|| Error::invalid_environment(format!("unknown CNI_COMMAND: {command}")))?;

        let mut missing = Vec::new();
        for variable in VARIABLES
            .iter()
            .filter(|variable| (variable.required)(verb))
        {
            match env.get(variable.name) {
                None => missing.push(variable.name),
                Some(value) => (variable.validate)(&value.to_string_lossy())?,
            }
        }
        if !missing.is_empty() {
            let names = missing.join(",");
            return Err(Error::invalid_environment(format!(
                "required env variables [{names}] missing"
            )));
        }

        // GC and STATUS have no attachment, and skel does not validate these variables then.
        let of_attachment = |name| {
            if verb.has_attachment() {
                text(env, name)
            } else {
                Ok(None)
            }
        };
        Ok(Self {
            verb,
            container_id: of_attachment("CNI_CONTAINERID")?.unwrap_or_default(),
            netns: of_attachment("CNI_NETNS")?,
            ifname: of_attachment("CNI_IFNAME")?.unwrap_or_default(),
            args: CniArgs::parse(&env.get("CNI_ARGS").unwrap_or_default().to_string_lossy()),
            path: env.plugin_dirs(),
            netns_override: env.get("CNI_NETNS_OVERRIDE").is_some_and(is_true),
        })
    }
}

fn is_true(value: &OsStr) -> bool {
    value == "1" || value.eq_ignore_ascii_case("true")
}

fn text(env: &Environment, name: &str) -> Result<Option<String>, Error> {
    let Some(value) = env.get(name) else {
        return Ok(None);
    };
    let text = value.to_str().ok_or_else(|| {
        Error::invalid_environment(format!("{name} is not UTF-8"))
            .with_details(value.to_string_lossy())
    })?;
    Ok(Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: [(&str, &str); 6] = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/a"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "A=b"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];

    fn with(changes: &[(&str, &str)]) -> Result<Invocation, Error> {
        Invocation::from_env(&FULL.iter().chain(changes).copied().collect())
    }

    #[test]
    fn a_full_environment_is_read() {
        let call = with(&[]).unwrap();
        assert_eq!(
            (call.verb, call.container_id.as_str(), call.ifname.as_str()),
            (Verb::Add, "c1", "eth0")
        );
        assert_eq!(call.netns.as_deref(), Some("/run/netns/a"));
        assert_eq!(call.args.get("A"), Some("b"));
        assert_eq!(call.path, [PathBuf::from("/opt/cni/bin")]);
        assert!(!call.netns_override);
    }

    #[test]
    fn missing_variables_are_named_together() {
        let blank = [
            ("CNI_CONTAINERID", ""),
            ("CNI_NETNS", ""),
            ("CNI_IFNAME", ""),
            ("CNI_PATH", ""),
        ];
        let message = |verb: &'static str| {
            let changes: Vec<_> = blank.into_iter().chain([("CNI_COMMAND", verb)]).collect();
            let error = with(&changes).unwrap_err();
            assert_eq!(error.code, 4);
            error.msg
        };
        let all = "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing";
        assert_eq!(message("ADD"), all);
        assert_eq!(message("CHECK"), all);
        assert_eq!(
            message("DEL"),
            "required env variables [CNI_CONTAINERID,CNI_IFNAME,CNI_PATH] missing"
        );
        assert_eq!(message("GC"), "required env variables [CNI_PATH] missing");
        assert_eq!(
            message("STATUS"),
            "required env variables [CNI_PATH] missing"
        );
    }

    #[test]
    fn an_invalid_variable_comes_before_missing_ones() {
        let error = with(&[("CNI_CONTAINERID", "../x"), ("CNI_IFNAME", "")]).unwrap_err();
        assert_eq!(error.details, "../x");
        assert_eq!(with(&[("CNI_IFNAME", "a/b")]).unwrap_err().code, 4);
    }

    #[test]
    fn verbs_without_attachment_ignore_its_variables() {
        for verb in ["GC", "STATUS", "VERSION"] {
            let call = with(&[
                ("CNI_COMMAND", verb),
                ("CNI_CONTAINERID", "../x"),
                ("CNI_IFNAME", "a/b"),
            ])
            .unwrap();
            assert_eq!(
                (call.container_id.as_str(), call.ifname.as_str(), call.netns),
                ("", "", None)
            );
        }
        let env = [("CNI_COMMAND", "VERSION"), ("CNI_NETNS", "dummy")]
            .into_iter()
            .collect();
        assert_eq!(Invocation::from_env(&env).unwrap().verb, Verb::Version);
    }

    #[test]
    fn unknown_commands_are_refused() {
        for command in ["FOO", "add", "ADD "] {
            let error = with(&[("CNI_COMMAND", command)]).unwrap_err();
            assert_eq!(
                (error.code, error.msg),
                (4, format!("unknown CNI_COMMAND: {command}"))
            );
        }
    }

    #[test]
    fn the_override_is_a_flag() {
        for (value, expected) in [
            ("1", true),
            ("true", true),
            ("TRUE", true),
            ("0", false),
            ("yes", false),
        ] {
            assert_eq!(
                with(&[("CNI_NETNS_OVERRIDE", value)])
                    .unwrap()
                    .netns_override,
                expected,
                "{value}"
            );
        }
    }
}
