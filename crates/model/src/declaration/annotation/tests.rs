use super::{
    super::{declare, tests::texts},
    *,
};

fn read(text: &str) -> Result<Vec<DeclaredLink>, String> {
    let pod = PodKey::new("lab", "r1").unwrap();
    declare(&pod, &Texts::new(), &texts(&[(LINKS, text)]))
        .map(|d| d.unwrap().links)
        .map_err(|e| e.to_string())
}

#[test]
fn a_full_entry_in_yaml_and_a_short_one_in_json() {
    let links = read(
        "- interface: eth1\n  peer: other/r2/eth7\n  addresses: [10.0.0.1/30, 'fd00::1/64']\n  \
        peerAddresses: [10.0.0.2/30]\n  \
         mac: 02:00:00:00:00:01\n  mtu: 1400\n  vni: 77\n  routes: [{dst: 10.9.0.0/16, via: \
         10.0.0.2, metric: 5}]\n",
    )
    .unwrap();
    let link = &links[0];
    assert_eq!(link.remote.pod.to_string(), "other/r2");
    assert_eq!(link.remote.interface.as_str(), "eth7");
    assert_eq!(link.local.addresses.as_ref().unwrap().len(), 2);
    assert_eq!(
        (link.mtu.unwrap().bytes(), link.vni.unwrap().number()),
        (1400, 77)
    );
    assert_eq!(link.local.routes.as_ref().unwrap()[0].metric, Some(5));

    let links = read(r#"[{"interface":"eth1","peer":"r2"}]"#).unwrap();
    assert_eq!(links[0].remote.pod.to_string(), "lab/r2");
    assert_eq!(links[0].remote.interface.as_str(), "eth1");
    assert_eq!(links[0].local.addresses, None);
}

#[test]
fn none_is_a_declaration_too() {
    for empty in ["", "[]", "~", "\n"] {
        assert_eq!(read(empty).unwrap(), [], "{empty:?}");
    }
}

#[test]
fn a_pod_may_link_to_itself() {
    let links = read("[{interface: eth1, peer: r1/eth2}]").unwrap();
    assert_eq!(links[0].remote.pod, links[0].local.pod);
}

#[test]
fn errors_name_the_entry_and_field() {
    for (text, expected) in [
        (
            "[{interface: eth1, peer: r1}]",
            "annotation ratchet.dev/links[0].peer: \"r1\" is this very interface",
        ),
        (
            "[{interface: eth1, pear: r2}]",
            "annotation ratchet.dev/links[0].pear: there is no such field: did you mean peer?",
        ),
        (
            "[{interface: eth1, peer: r2}, {interface: eth1, peer: r3}]",
            "is claimed by two links",
        ),
        (
            "[{interface: eth1, peer: a/b/c/d}]",
            "expected pod, pod/interface or namespace/pod/interface",
        ),
        (
            "[{interface: eth1, peer: r2, addresses: [10.0.0.1]}]",
            "ratchet.dev/links[0].addresses[0]: \"10.0.0.1\" is not an address: expected an \
             IPv4 or IPv6 address with its prefix length",
        ),
        (
            "[{interface: eth1, peer: r2, mtu: 9}]",
            "MTU 9: expected 68 to 65535",
        ),
        (
            "[{interface: eth1, peer: r2, vni: 16777216}]",
            "VNI 16777216: expected 1 to 16777215",
        ),
        (
            "[{interface: eth1, peer: r2, mac: '01:00:00:00:00:00'}]",
            "multicast",
        ),
        ("[{interface: 'a b', peer: r2}]", "interface name \"a b\""),
        ("[{peer: r2}]", "missing field `interface`"),
        (
            "[{interface: eth1, peer: r2, routes: [{dst: 10.0.0.0/8, via: 'fd00::1'}]}]",
            "must both be IPv4 or both IPv6",
        ),
        ("{interface: eth1}", "expected a list with one entry a link"),
        ("[", "is neither YAML nor JSON"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(expected), "{error}\n  lacks: {expected}");
    }
    let error = declare(
        &PodKey::new("lab", "r1").unwrap(),
        &Texts::new(),
        &texts(&[("ratchet", "true"), ("ratchet.dev/link", "[]")]),
    );
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("did you mean ratchet.dev/links?")
    );
}
