use super::*;

#[test]
fn endpoints_have_a_pod_and_an_interface_and_perhaps_a_namespace() {
    for (text, namespace, pod, interface) in [
        ("r1:eth1", None, "r1", "eth1"),
        ("web-0.x:eth0.100", None, "web-0.x", "eth0.100"),
        ("tenant/r2:eth1", Some("tenant"), "r2", "eth1"),
    ] {
        let read: EndpointRef = text.parse().unwrap();
        assert_eq!(read.namespace.as_deref(), namespace, "{text}");
        assert_eq!(read.pod, pod, "{text}");
        assert_eq!(read.interface.as_str(), interface, "{text}");
        assert_eq!(read.to_string(), text);
    }
}

#[test]
fn a_pod_without_namespace_is_in_the_topologys() {
    let pod = |text: &str| {
        let endpoint: EndpointRef = text.parse().unwrap();
        endpoint.pod_key("lab").unwrap().to_string()
    };
    assert_eq!(pod("r1:eth1"), "lab/r1");
    assert_eq!(pod("other/r1:eth1"), "other/r1");
}

#[test]
fn refusals_name_the_endpoint_and_what_was_expected() {
    let error = |text: &str| text.parse::<EndpointRef>().unwrap_err().to_string();
    let form = "expected pod:interface or namespace/pod:interface, such as r1:eth1";
    for text in [
        "",
        "r1",
        "r1/eth1",
        ":eth1",
        "r1:",
        "/r1:eth1",
        "a/:eth1",
        "a/b/c:eth1",
    ] {
        assert_eq!(error(text), format!("endpoint {text:?}: {form}"));
    }
    for (text, part) in [
        ("r1:lo", "interface name \"lo\": this name is taken"),
        (
            "r1:eth1:2",
            "interface name \"eth1:2\": expected no '/', ':'",
        ),
        ("r1:eth/1", "interface name \"eth/1\""),
        ("r1:interface-too-long", "expected 1 to 15 bytes"),
        ("r 1:eth1", "pod name \"r 1\""),
        ("-x/r1:eth1", "pod namespace \"-x\""),
    ] {
        let error = error(text);
        assert!(
            error.starts_with(&format!("endpoint {text:?}: ")),
            "{error}"
        );
        assert!(error.contains(part), "{error}");
    }
}
