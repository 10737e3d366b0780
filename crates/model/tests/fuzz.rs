//! Labels and annotations, nearly right: what is declared can be told to others, what is not is
//! refused with a reason. `make fuzz` gives each target a million inputs.
#![allow(clippy::unwrap_used, missing_docs)]

mod mutate;

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};
use ratchet_model::{
    PodKey,
    declaration::{Declaration, LINKS, Texts, declare},
    record::PodRecord,
    resolve::resolve,
};

const ANNOTATIONS: &[&str] = &[
    "[{interface: eth1, peer: r2}]",
    "- interface: eth1\n  peer: other/r2/eth7\n  addresses: [10.0.0.1/30, 'fd00::1/64']\n  \
    peerAddresses: [10.0.0.2/30]\n  \
     mac: 02:00:00:00:00:01\n  peerMac: 02:00:00:00:00:02\n  mtu: 1400\n  vni: 77\n  \
     routes: [{dst: 10.9.0.0/16, via: 10.0.0.2, metric: 5}]\n  peerRoutes: [{dst: '::/0', via: \
     'fd00::1'}]\n",
    r#"[{"interface":"a","peer":"r1/b"},{"interface":"c","peer":"r3/c","mtu":9000},{"interface":"d",
        "peer":"x/r4/d"}]"#,
    "# nothing\n[]\n",
    "- &link {interface: e1, peer: r2/e1}\n- {<<: *link, interface: e2, peer: r2/e2}\n",
];

/// What YAML has beside data, and what declarations have.
const TOKENS: &[&str] = &[
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "'",
    "\"",
    "\n",
    "\n  ",
    "#",
    "&a ",
    "*a",
    "<<: *a",
    "!!str ",
    "!x ",
    "---\n",
    "...\n",
    "%YAML 9\n",
    "|\n ",
    ">-\n ",
    "? ",
    "~",
    "null",
    "true",
    "0x1f",
    "1e9",
    ".inf",
    "-1",
    "\t",
    "\u{0}",
    "\u{feff}",
    "\\ud800",
    "interface",
    "peer",
    "addresses",
    "peerAddresses",
    "mac",
    "mtu",
    "vni",
    "routes",
    "dst",
    "via",
    "/",
    "r1",
    "eth1",
    "10.0.0.1/24",
    "255.255.255.255/32",
    "::/0",
    "fd00::1/64",
    "ff:ff:ff:ff:ff:ff",
    "16777216",
    "65536",
    "99999999999999999999",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "[*a,*a,*a,*a,*a,*a,*a,*a]",
    "é",
    "%d",
    "..",
    " ",
];

const KEYS: &[&str] = &[
    "ratchet",
    "ratchet.pod_name",
    "ratchet.primary",
    "ratchet.local_ifname",
    "ratchet.local_ip",
    "ratchet.pair_name",
    "ratchet.pair_namespace",
    "ratchet.pair_ifname",
    "ratchet.pair_ip",
    "ratchet.target_pod",
    "ratchet.public_ip",
    "ratchet.",
    "ratchet.pair_nam",
    "ratchet.dev/links",
    "ratchet.dev/lab-run",
    "ratchet.dev/link",
    "app",
];

const VALUES: &[&str] = &[
    "true",
    "false",
    "",
    "True",
    "r1",
    "r2",
    "ns/r2",
    "/",
    "a/b/c",
    "in1",
    "in2",
    "lo",
    "eth0",
    "a b",
    "é",
    "\u{0}",
    "..",
    "%d",
    "0123456789abcdef",
    "192.168.2.100",
    "192.168.2.100/24",
    "192.168.2.100/33",
    "fd00::1",
    "fd00::1/64",
    "::",
    "0.0.0.0/0",
    "127.0.0.1",
    "224.0.0.1",
    "1.2.3",
    "[]",
    "[{interface: eth1, peer: r2}]",
    "[{interface: in1, peer: r2/in2}]",
    "Upper",
    "-a",
    "a-",
];

/// Texts with keys that are known, or nearly.
fn texts() -> impl Strategy<Value = Texts> {
    let value =
        prop_oneof![9 => (0..VALUES.len()).prop_map(|n| VALUES[n].to_owned()), 1 => "\\PC{0,20}"];
    vec(
        ((0..KEYS.len()).prop_map(|n| KEYS[n].to_owned()), value),
        0..6,
    )
    .prop_map(|pairs| pairs.into_iter().collect())
}

/// A pair's primary as in 2017, some of it changed.
fn primary() -> impl Strategy<Value = Texts> {
    texts().prop_map(|changes| {
        let mut texts: Texts = [
            ("ratchet", "true"),
            ("ratchet.primary", "true"),
            ("ratchet.local_ifname", "in1"),
            ("ratchet.local_ip", "192.168.2.100"),
            ("ratchet.pair_name", "r2"),
            ("ratchet.pair_ifname", "in2"),
            ("ratchet.pair_ip", "192.168.2.101"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        texts.extend(changes);
        texts
    })
}

fn pod() -> PodKey {
    PodKey::new("lab", "r1").unwrap()
}

/// What has been declared can be written, read, and resolved with itself.
fn check(declaration: &Declaration) -> Result<(), TestCaseError> {
    let text = serde_json::to_string(declaration).unwrap();
    prop_assert_eq!(
        &serde_json::from_str::<Declaration>(&text).unwrap(),
        declaration
    );
    let record = PodRecord::new(declaration.pod.clone(), None, 1, declaration.links.clone());
    let links = resolve(&BTreeMap::from([(record.pod.clone(), record)]));
    prop_assert!(links.len() <= declaration.links.len());
    Ok(())
}

fn try_to_declare(labels: &Texts, annotations: &Texts) -> Result<(), TestCaseError> {
    match declare(&pod(), labels, annotations) {
        Ok(None) => {}
        Ok(Some(declaration)) => check(&declaration)?,
        Err(error) => {
            prop_assert!(
                !error.key.is_empty() && !error.reason.to_string().is_empty(),
                "{error:?}"
            );
            prop_assert!(error.pod.starts_with("lab/"), "{error:?}");
            prop_assert!(error.to_string().len() <= 1024, "{error}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(mutate::config())]

    #[test]
    fn labels_and_annotations_of_2017(labels in prop_oneof![texts(), primary()],
    annotations in texts()) {
        try_to_declare(&labels, &annotations)?;
    }

    /// Texts that are long, deep or have many values: the budget holds for each.
    #[test]
    fn annotations_that_repeat_something(
        start in 0..ANNOTATIONS.len(),
        unit in vec(0..TOKENS.len(), 1..4),
        times in 1..3000_usize,
    ) {
        let unit: String = unit.into_iter().map(|token| TOKENS[token]).collect();
        let text = format!("{}{}", ANNOTATIONS[start], unit.repeat(times));
        try_to_declare(&Texts::new(), &[(LINKS.to_owned(), text)].into())?;
    }

    #[test]
    fn the_links_annotation(text in mutate::text(ANNOTATIONS, TOKENS), labels in texts()) {
        try_to_declare(&Texts::new(), &[(LINKS.to_owned(), text.clone())].into())?;
        try_to_declare(&labels, &[(LINKS.to_owned(), text)].into())?;
    }
}
