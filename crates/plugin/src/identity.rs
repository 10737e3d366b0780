//! Who the pod is, and what the call itself says of its labels and annotations.
//!
//! Does not interpret them; that is the model's.

use std::collections::BTreeMap;

use ratchet_cni::{Config, Error, Invocation};
use ratchet_model::declaration::{Texts, is_eligible};
use ratchet_protocol::Pod;
use serde::Deserialize;

use crate::config::Keys;

/// The capability by which runtimes pass a pod's annotations.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// A pod as its runtime presents it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub pod: Pod,
    pub labels: Texts,
    pub annotations: Texts,
    /// Whether the runtime passed annotations, even an empty map.
    pub annotations_passed: bool,
}

/// `args.cni.labels`: a list, as in CNI's conventions, or the map that people write.
#[derive(Deserialize)]
#[serde(untagged)]
enum Labels {
    List(Vec<Label>),
    Map(BTreeMap<String, String>),
}

#[derive(Deserialize)]
struct Label {
    key: String,
    value: String,
}

impl Identity {
    /// Reads a call. Code 7 if labels or annotations have the wrong form.
    pub fn of(call: &Invocation, config: &Config, use_labels: bool) -> Result<Self, Error> {
        let labels = if use_labels {
            labels(config)?
        } else {
            Texts::new()
        };
        let annotations = annotations(config)?;
        let annotations_passed = annotations.is_some();
        Ok(Self {
            pod: pod(call),
            labels,
            annotations: annotations.unwrap_or_default(),
            annotations_passed,
        })
    }

    /// The same for DEL, which does not fail for a wrong form.
    pub fn lenient(call: &Invocation, config: &Config, use_labels: bool) -> Self {
        let labels = if use_labels {
            labels(config).unwrap_or_default()
        } else {
            Texts::new()
        };
        let annotations = annotations(config).unwrap_or_default();
        let annotations_passed = annotations.is_some();
        Self {
            pod: pod(call),
            labels,
            annotations: annotations.unwrap_or_default(),
            annotations_passed,
        }
    }

    /// Whether the labels or annotations of the call make the pod Ratchet's.
    pub fn is_visibly_ours(&self) -> bool {
        is_eligible(&self.labels, &self.annotations)
    }

    /// Whether to ask the agent. A pod that is clearly not Ratchet's gets its network without an
    /// agent. But with a Kubernetes API, only the agent knows the labels.
    pub fn may_be_ours(&self, keys: &Keys) -> bool {
        let settings = &keys.settings;
        self.is_visibly_ours() || settings.kubeconfig.is_some() || settings.store_declares()
    }
}

fn pod(call: &Invocation) -> Pod {
    let arg = |key| call.args.get(key).map(str::to_owned);
    Pod {
        namespace: arg("K8S_POD_NAMESPACE").unwrap_or_else(|| "default".into()),
        name: arg("K8S_POD_NAME").unwrap_or_else(|| call.container_id.clone()),
        uid: arg("K8S_POD_UID"),
    }
}

fn labels(config: &Config) -> Result<Texts, Error> {
    let Some(raw) = config.args()?.get_nested(&["cni", "labels"]) else {
        return Ok(Texts::new());
    };
    let labels: Option<Labels> = serde_json::from_str(raw.get()).map_err(|_| {
        Error::invalid_config("invalid value of the config's key \"args.cni.labels\"").with_details(
            "expected a list of {\"key\": …, \"value\": …}, both strings, or an object of strings",
        )
    })?;
    Ok(match labels {
        None => Texts::new(),
        // The last value of a repeated key counts, as elsewhere in JSON.
        Some(Labels::List(list)) => list
            .into_iter()
            .map(|label| (label.key, label.value))
            .collect(),
        Some(Labels::Map(map)) => map,
    })
}

/// `None`: the runtime passes none, since the config does not declare the capability.
fn annotations(config: &Config) -> Result<Option<Texts>, Error> {
    let runtime_config = config.runtime_config()?;
    // The exact case, since these are keys of a map in Go; the last one wins.
    let Some((_, raw)) = runtime_config.iter().rfind(|(key, _)| *key == ANNOTATIONS) else {
        return Ok(None);
    };
    let texts: Option<Texts> = serde_json::from_str(raw.get()).map_err(|error| {
        Error::invalid_config(format!(
            "invalid value of the config's key \"runtimeConfig\".{ANNOTATIONS:?}"
        ))
        .with_details(format!(
            "expected an object of strings, which the runtime puts there: {error}"
        ))
    })?;
    Ok(Some(texts.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use ratchet_cni::{Environment, Verb, Version};

    use super::*;

    fn of(args: &str, rest: &str, use_labels: bool) -> Result<Identity, Error> {
        let env: Environment = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/n"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/p"),
            ("CNI_ARGS", args),
        ]
        .into_iter()
        .collect();
        let config = Config::parse(
            format!("{{\"name\":\"n\"{rest}}}").into(),
            Verb::Add,
            &Version::ALL,
        )
        .unwrap();
        Identity::of(&Invocation::from_env(&env).unwrap(), &config, use_labels)
    }

    #[test]
    fn the_pod_is_named_by_the_runtime_or_by_its_container() {
        let pod = of("", "", true).unwrap().pod;
        assert_eq!(
            (pod.namespace.as_str(), pod.name.as_str(), pod.uid),
            ("default", "c1", None)
        );
        let pod = of(
            "K8S_POD_UID=u;K8S_POD_NAME=p;K8S_POD_NAMESPACE=ns;x",
            "",
            true,
        )
        .unwrap()
        .pod;
        assert_eq!(
            (
                pod.namespace.as_str(),
                pod.name.as_str(),
                pod.uid.as_deref()
            ),
            ("ns", "p", Some("u"))
        );
    }

    #[test]
    fn labels_are_a_list_or_a_map() {
        for labels in [
            r#"[{"key":"ratchet","value":"true"}]"#,
            r#"{"ratchet":"true"}"#,
        ] {
            let rest = format!(r#","args":{{"cni":{{"labels":{labels}}}}}"#);
            assert!(of("", &rest, true).unwrap().is_visibly_ours());
            assert!(!of("", &rest, false).unwrap().is_visibly_ours());
        }
        for none in [
            "",
            r#","args":null"#,
            r#","args":{"cni":null}"#,
            r#","args":{"cni":{"labels":null}}"#,
        ] {
            assert!(of("", none, true).unwrap().labels.is_empty(), "{none}");
        }
        let error = of("", r#","args":{"cni":{"labels":"x"}}"#, true).unwrap_err();
        assert_eq!(error.code, 7);
        assert!(error.msg.contains("args.cni.labels"), "{error}");
    }

    #[test]
    fn annotations_come_from_the_runtime() {
        let with = |value: &str| {
            of(
                "",
                &format!(r#","runtimeConfig":{{"{ANNOTATIONS}":{value}}}"#),
                false,
            )
        };
        assert!(
            with(r#"{"ratchet.dev/links":"[]"}"#)
                .unwrap()
                .is_visibly_ours()
        );
        assert!(with("null").unwrap().annotations.is_empty());
        assert_eq!(with("{\"a\":1}").unwrap_err().code, 7);
    }
}
