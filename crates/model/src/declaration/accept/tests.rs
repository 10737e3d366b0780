//! Tests of whose declarations a pod accepts.

use super::{
    super::{LINKS, declare, tests::texts},
    *,
};

fn pod(text: &str) -> PodKey {
    text.parse().unwrap()
}

fn accept(text: &str) -> Result<Option<Accept>, String> {
    let annotations = texts(&[(LINKS, "[]"), (ACCEPT, text)]);
    declare(&pod("lab/r1"), &Texts::new(), &annotations)
        .map(|declared| declared.unwrap().accept)
        .map_err(|error| error.to_string())
}

#[test]
fn the_annotation_names_pods_and_namespaces() {
    for (text, accepted) in [
        ("own-namespace", &["lab/r2"][..]),
        ("none", &[]),
        ("*", &["lab/r2", "a/p", "a/q", "b/p"]),
        ("a", &["a/p", "a/q"]),
        ("a/p", &["a/p"]),
        (" own-namespace, a/p ,b", &["lab/r2", "a/p", "b/p"]),
        ("lab", &["lab/r2"]),
    ] {
        let accept = accept(text).unwrap().unwrap();
        let pods = ["lab/r2", "a/p", "a/q", "b/p"].map(pod);
        let included: Vec<String> = pods
            .iter()
            .filter(|declarer| accept.includes(&pod("lab/r1"), declarer))
            .map(ToString::to_string)
            .collect();
        assert_eq!(included, accepted, "{text}");
        assert_eq!(accept.to_string().parse::<Accept>().unwrap(), accept);
        let written = serde_json::to_string(&accept).unwrap();
        assert_eq!(serde_json::from_str::<Accept>(&written).unwrap(), accept);
    }
}

#[test]
fn errors_say_what_is_wrong_with_it() {
    for (text, expected) in [
        (
            "",
            "annotation ratchet.dev/accept: a name is missing: expected none, or a list",
        ),
        ("a,,b", "a name is missing"),
        ("none,a", "\"none,a\" has none besides other names"),
        ("a b", "pod namespace \"a b\": expected 1 to 253"),
        ("a/b/c", "pod name \"b/c\""),
        ("**", "such as own-namespace,lab-2,tenant/router"),
        (&"a,".repeat(64), "has 65 names, and may have 64"),
    ] {
        let error = accept(text).unwrap_err();
        assert!(error.contains(expected), "{error}\n  lacks: {expected}");
    }
}

#[test]
fn the_setting_of_the_node_clips_it() {
    use CrossNamespace::{Allow, Consent, Deny};
    let all = "*".parse().unwrap();
    let listed: Accept = "own-namespace,a".parse().unwrap();
    for (annotated, setting, own, foreign) in [
        (None, Deny, true, false),
        (None, Consent, true, false),
        (None, Allow, true, true),
        (Some(&all), Deny, true, false),
        (Some(&listed), Deny, true, false),
        (Some(&listed), Consent, true, true),
        (Some(&"none".parse().unwrap()), Allow, false, false),
        (Some(&Accept::default()), Allow, true, false),
    ] {
        let effective = Accept::effective(annotated, setting);
        let includes = |declarer| effective.includes(&pod("lab/r1"), &pod(declarer));
        assert_eq!(
            (includes("lab/r2"), includes("a/p")),
            (own, foreign),
            "{annotated:?} {setting}"
        );
        assert_eq!(effective.is_isolated(), setting == Deny);
    }
    for value in CrossNamespace::VALUES {
        let setting: CrossNamespace = value.parse().unwrap();
        assert_eq!(setting.to_string(), value);
    }
}

#[test]
fn a_pod_without_the_annotation_accepts_its_own_namespace() {
    let declared = declare(&pod("lab/r1"), &Texts::new(), &texts(&[(LINKS, "[]")]));
    assert_eq!(declared.unwrap().unwrap().accept, None);
    assert!(Accept::default().is_default());
}

#[test]
fn namespaces_can_be_added() {
    let accept: Accept = "none".parse().unwrap();
    let accept = accept.and_namespaces(["a", "b"]).unwrap();
    let includes = |declarer| accept.includes(&pod("lab/r1"), &pod(declarer));
    assert_eq!(
        ["lab/r2", "a/p", "b/p", "c/p"].map(includes),
        [false, true, true, false]
    );
    assert!(Accept::default().and_namespaces(["a/b"]).is_err());
}
