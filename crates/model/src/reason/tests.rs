//! Tests of the table of reasons.

use std::{collections::BTreeSet, fs, path::Path};

use super::*;
use crate::names::PodKey;

/// Every code that there is. Programs rely on them: none is changed or removed, only added.
const CODES: &[&str] = &[
    "peer_unknown",
    "peer_unknown_on_host",
    "peer_gone",
    "peer_lost",
    "name_held",
    "slot_held",
    "no_consent",
    "namespace_isolated",
    "interface_taken",
    "too_many_foreign_links",
    "too_many_devices",
    "underlay_missing",
    "vni_missing",
    "interface_reserved",
    "declarations_contradict",
    "interface_exists",
    "vni_of_another_link",
    "vni_of_another_device",
    "mtu_too_large",
    "parent_address_shared",
    "parent_address_family",
    "key_misspelled",
    "key_unknown",
    "key_missing",
    "label_and_annotation_differ",
    "primary_missing",
    "primary_invalid",
    "name_invalid",
    "address_invalid",
    "address_with_prefix_invalid",
    "address_unusable",
    "route_invalid",
    "links_unreadable",
    "links_no_list",
    "entry_no_fields",
    "entry_invalid",
    "peer_invalid",
    "peer_is_itself",
    "pair_is_itself",
    "interface_claimed_twice",
    "interface_of_network",
    "links_too_large",
    "links_nested",
    "links_with_anchor",
    "links_twice",
    "labels_too_large",
    "too_many_links",
    "too_many_of_an_end",
    "vni_not_declarable",
    "accept_invalid",
    "pod_renamed",
    "netns_unknown",
    "netns_gone",
    "netns_invalid",
    "device_missing",
    "device_name_taken",
    "device_foreign",
    "vni_in_use",
    "kernel_unsupported",
    "kernel_refused",
    "step_skipped",
    "agent_starting",
    "node_name_invalid",
    "underlay_unknown",
    "store_offline",
    "store_failed",
    "store_too_large",
    "api_offline",
    "filter_missing",
    "address_shared",
    "node_network_owned",
    "foreign_claim_ignored",
    "wide_claim_ignored",
    "wiring_stays",
];

#[test]
fn codes_are_stable_unique_and_snake_case() {
    let codes: Vec<&str> = TABLE.iter().map(|entry| entry.code).collect();
    assert_eq!(codes, CODES);
    let unique: BTreeSet<&str> = codes.iter().copied().collect();
    assert_eq!(unique.len(), codes.len());
    for entry in TABLE {
        let words: Vec<&str> = entry.code.split('_').collect();
        let is_word = |word: &&str| {
            word.starts_with(|c: char| c.is_ascii_lowercase())
                && word
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        assert!(words.iter().all(is_word), "{}", entry.code);
        let camel: String = words
            .iter()
            .map(|word| word[..1].to_uppercase() + &word[1..])
            .collect();
        assert_eq!(entry.name, camel, "the variant is named like its code");
    }
}

#[test]
fn texts_are_of_one_form() {
    for entry in TABLE {
        let Entry {
            code,
            meaning,
            hint,
            ..
        } = entry;
        assert!(
            meaning.ends_with('.') && !meaning.contains('|'),
            "{code}: {meaning}"
        );
        assert!(
            !hint.is_empty() && !hint.ends_with('.') && !hint.contains('|'),
            "{code}: {hint}"
        );
    }
}

#[test]
fn a_text_has_the_hint_if_the_message_does_not_say_enough() {
    let pod = PodKey::new("default", "r2").unwrap();
    let reason = Reason::PeerGone { pod: pod.clone() };
    assert_eq!((reason.code(), reason.is_waiting()), ("peer_gone", true));
    assert_eq!(reason.to_string(), reason.message());
    assert!(reason.hint().starts_with("start the pod again"));

    let reason = Reason::PeerUnknown { pod };
    assert_eq!(reason.message(), "pod default/r2 is not known yet");
    assert_eq!(
        reason.to_string(),
        "pod default/r2 is not known yet: it must be started with ratchet: \"true\" or the \
         annotation ratchet.dev/links"
    );

    let reason = Reason::LinksNoList {};
    assert_eq!(
        (reason.code(), reason.is_waiting()),
        ("links_no_list", false)
    );
    assert!(
        reason
            .hint()
            .ends_with("such as [{interface: eth1, peer: r2/eth1}]")
    );
}

/// A hint as documentation has it: the names of data in capitals.
fn written(hint: &str) -> String {
    let mut text = String::new();
    let mut rest = hint;
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let doubled = rest[at..].starts_with("{{") || rest[at..].starts_with("}}");
        if doubled {
            text.push_str(&rest[at..=at]);
            rest = &rest[at + 2..];
        } else {
            let end = at + rest[at..].find('}').unwrap();
            text.push_str(&rest[at + 1..end].to_uppercase());
            rest = &rest[end + 1..];
        }
    }
    text + rest
}

fn heading(group: Group) -> &'static str {
    match group {
        Group::Waiting => "Links that wait",
        Group::Conflict => "Links that cannot be made",
        Group::Declaration => "Declarations",
        Group::Kernel => "The kernel",
        Group::Node => "The node",
        Group::Warning => "Warnings",
    }
}

fn about(group: Group) -> &'static str {
    match group {
        Group::Waiting => {
            "The link is `pending`. It is made as soon as what it waits for is there."
        }
        Group::Conflict => {
            "The link is in state `error` until a person has corrected something. What it has \
             stays."
        }
        Group::Declaration => {
            "A pod's labels or annotations are wrong. An ADD fails with this; a running pod keeps \
             its links and gets an event."
        }
        Group::Kernel => "The link is in state `error`, and the agent tries again by itself.",
        Group::Node => {
            "These are the last lines of `ratchet links`, and `notice_details` in its JSON."
        }
        Group::Warning => "The link is made.",
    }
}

/// The tables of docs/reasons.md.
fn document() -> String {
    let mut text = String::new();
    let mut last = None;
    for entry in TABLE {
        if last.replace(entry.group) != Some(entry.group) {
            let (heading, about) = (heading(entry.group), about(entry.group));
            text += &format!("\n## {heading}\n\n{about}\n\n");
            text += "| code | what it means | what to do |\n|---|---|---|\n";
        }
        let hint = written(entry.hint);
        text += &format!("| `{}` | {} | {hint} |\n", entry.code, entry.meaning);
    }
    text.trim().to_owned()
}

#[test]
fn the_document_has_all_reasons() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reasons.md");
    let whole = fs::read_to_string(file).unwrap();
    let (_, rest) = whole.split_once("<!-- reasons -->").unwrap();
    let (region, _) = rest.split_once("<!-- /reasons -->").unwrap();
    let expected = document();
    assert!(
        region.trim() == expected,
        "put this between <!-- reasons --> and <!-- /reasons --> in docs/reasons.md:\n\n\
         {expected}\n"
    );
}
