//! Tests of the table of settings.

use std::collections::BTreeSet;

use ratchet_model::Mtu;

use super::*;

#[test]
fn only_what_is_said_can_differ() {
    let agent = Settings {
        store: Some("sqlite:/a".into()),
        node: Some("n1".parse().unwrap()),
        ..Settings::default()
    };
    assert!(agent.differences(&Settings::default()).is_empty());
    let config = Settings {
        store: Some("sqlite:/b".into()),
        mtu: Mtu::try_from(1400).ok(),
        ..Settings::default()
    };
    let differences = agent.differences(&config);
    let texts: Vec<_> = differences.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "store is sqlite:/a for the agent and sqlite:/b in the config",
            "mtu is not set for the agent and 1400 in the config"
        ]
    );
    let taken_over = agent.overridden_by(&config);
    assert!(taken_over.differences(&config).is_empty());
    assert_eq!(taken_over.node, agent.node);
}

#[test]
fn a_value_is_set_and_read_as_text() {
    let mut settings = Settings::default();
    for (key, text) in [
        ("store", "etcd://h"),
        ("node", "n1"),
        ("parent_address", "fd00::1"),
        ("mtu", "1400"),
        ("node_timeout", "0"),
    ] {
        settings.set(setting(key).unwrap(), text).unwrap();
        assert_eq!(settings.get(key).as_deref(), Some(text));
    }
    assert_eq!(
        settings.arguments()[..4],
        ["--store", "etcd://h", "--node", "n1"]
    );
    assert_eq!(settings.arguments().len(), 10);
    assert_eq!(settings.get("etcd_ca"), None);
    assert_eq!(settings.get("delegate"), None);
    for (key, text) in [("mtu", "67"), ("node", "a b"), ("parent_address", "1.2.3")] {
        let error = settings.set(setting(key).unwrap(), text).unwrap_err();
        assert!(error.to_string().starts_with("expected a"), "{error}");
    }
    let of_another_part = setting("delegate").unwrap();
    assert!(settings.set(of_another_part, "x").is_err());
}

#[test]
fn the_defaults_of_the_table_are_values_of_their_settings() {
    let settings = Settings::default().or_defaults();
    assert_eq!(settings.store.as_deref(), Some(DEFAULT_STORE));
    assert_eq!(settings.node_timeout, Some(3600));
    assert_eq!(settings.etcd_prefix.as_deref(), Some("/ratchet"));
    assert_eq!((settings.node, settings.mtu), (None, None));
    let mut local = LocalSettings::default();
    for setting in LocalSettings::TABLE {
        if let DefaultValue::Value(value) = setting.default {
            local.set(setting, value).unwrap();
        }
    }
    let absent = LocalSettings::default();
    assert_eq!(local.socket(), absent.socket());
    assert_eq!(local.state_dir(), absent.state_dir());
    assert_eq!(local.log_level(), absent.log_level());
}

#[test]
fn a_store_is_the_same_if_all_that_leads_to_it_is() {
    let settings = Settings {
        store: Some("etcds://h".into()),
        etcd_user: Some("u".into()),
        mtu: Mtu::try_from(1400).ok(),
        ..Settings::default()
    };
    let same = Settings {
        mtu: None,
        ..settings.clone()
    };
    assert!(settings.same_store(&same));
    let other = Settings {
        etcd_user: None,
        ..settings.clone()
    };
    assert!(!settings.same_store(&other));
}

#[test]
fn keys_flags_and_variables_are_named_alike_and_once() {
    let (mut keys, mut variables) = (BTreeSet::new(), BTreeSet::new());
    for setting in all_settings() {
        assert!(keys.insert(setting.key), "{}", setting.key);
        assert!(!setting.summary().is_empty() && !setting.summary().ends_with('.'));
        let Some(option) = setting.option else {
            continue;
        };
        assert_eq!(option.flag, setting.key.replace('_', "-"));
        assert!(variables.insert(option.variable), "{}", option.variable);
        // The one exception is a name that people know from other Rust programs.
        let regular = format!("RATCHET_{}", setting.key.to_uppercase());
        assert!(option.variable == regular || option.variable == "RATCHET_LOG");
    }
    assert_eq!(all_settings().count(), keys.len());
}

#[test]
fn documentation_is_paragraphs_of_one_line() {
    let setting = setting("node_timeout").unwrap();
    assert!(
        setting
            .summary()
            .ends_with("the other agents remove its pods; 0: never")
    );
    assert_eq!(
        setting.details(),
        "A node that comes back later publishes its pods again, and their links continue."
    );
    assert_eq!(super::setting("delegate").unwrap().details(), "");
}
