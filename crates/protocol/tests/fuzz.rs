//! Lines on the socket that are nearly right: they are read or refused, and what was read is
//! written unchanged. `make fuzz` gives each target a million inputs.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../model/tests/mutate/mod.rs"]
mod mutate;

use proptest::prelude::*;
use ratchet_protocol::{FailureKind, PROTOCOL, parse_reply, parse_request};

const REQUESTS: &[&str] = &[
    r#"{"protocol":1,"request":"hello"}"#,
    r#"{"protocol":1,"request":"prepare","pod":{"namespace":"lab","name":"r1","uid":"u"},
        "labels":{"ratchet":"true"},
        "annotations":{"ratchet.dev/links":"[]"},"interface":"eth0",
        "settings":{"store":"sqlite:/a","node":"n1","parent_interface":"eth0",
        "parent_address":"192.168.1.73","mtu":1450}}"#,
    r#"{"protocol":1,"request":"attach","attachment":{"network":"n","container_id":"c1",
        "interface":"eth0"},
        "netns":"/run/netns/a","pod":{"namespace":"lab","name":"r1"},"labels":{},"annotations":{},
        "settings":{},"interface":"eth0"}"#,
    r#"{"protocol":1,"request":"detach","attachment":{"network":"n","container_id":"c1",
        "interface":"eth0"},"netns":null}"#,
    r#"{"protocol":1,"request":"check","attachment":{"network":"n","container_id":"c1",
        "interface":"eth0"},
        "netns":"/run/netns/a","interfaces":[{"name":"eth1","mac":"02:00:00:00:00:01",
        "mtu":1450}]}"#,
    r#"{"protocol":1,"request":"collect","network":"n","valid":[["c1","eth0"],["c2","eth0"]]}"#,
    r#"{"protocol":1,"request":"status","settings":{"node":"n1"}}"#,
    r#"{"protocol":1,"request":"links","watch":true}"#,
    r#"{"protocol":1,"request":"release"}"#,
];

const REPLIES: &[&str] = &[
    r#"{"protocol":1,"reply":{"hello":{"version":"0.1.0","protocols":[1],"pid":7,"managed":false,
        "settings":{"mtu":1450}}}}"#,
    r#"{"protocol":1,"reply":{"prepared":{"ours":true}}}"#,
    r#"{"protocol":1,"reply":{"attached":{"interfaces":[{"name":"eth1","mac":"02:00:00:00:00:01",
        "mtu":1450}],
        "addresses":["10.0.0.1/24","fd00::1/64"],"pending":["r1 - r2: no"]}}}"#,
    r#"{"protocol":1,"reply":{"links":{"node":"n1","links":[{"id":"0123456789abcdef",
        "a":{"pod":"lab/r1","interface":"eth1","addresses":["10.0.0.1/24"],
        "mac":"02:00:00:00:00:01","node":"n1"},
        "z":{"pod":"lab/r2","interface":"eth1","mac":"02:00:00:00:00:02"},
        "kind":"veth","vni":11,"mtu":1450,"state":"up","reason":null,"warnings":[],
        "declared_by":["lab/r1"]}],"notices":["x"]}}}"#,
    r#"{"protocol":1,"reply":"done"}"#,
    r#"{"protocol":1,"reply":{"error":{"kind":"try_later","message":"m"}}}"#,
];

const TOKENS: &[&str] = &[
    "\"protocol\":2,",
    "\"protocol\":1,",
    "\"request\":\"hello\",",
    "\"settings\":{},",
    "\"mtu\":67,",
    "protocol",
    "request",
    "reply",
    "hello",
    "attach",
    "done",
    "error",
    "internal",
    "of_a_later_version",
    "eth0",
    "lo",
    "a/b",
    "..",
    "10.0.0.1/33",
    "fd00::1/64",
    "01:00:00:00:00:00",
    "lab/r1",
    "r1",
    "é",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "{\"a\":",
];

/// The whole corpus must be valid, or its mutations show nothing.
#[test]
fn the_corpus_is_valid() {
    for line in REQUESTS {
        assert!(
            parse_request(line.as_bytes()).is_ok(),
            "{line}: {:?}",
            parse_request(line.as_bytes())
        );
    }
    for line in REPLIES {
        assert!(
            parse_reply(line.as_bytes()).is_ok(),
            "{line}: {:?}",
            parse_reply(line.as_bytes())
        );
    }
}

proptest! {
    #![proptest_config(mutate::config())]

    #[test]
    fn requests(line in mutate::json(REQUESTS, TOKENS)) {
        match parse_request(&line) {
            Ok((protocol, request)) => {
                prop_assert_eq!(protocol, PROTOCOL);
                let written = request.to_line(protocol);
                let (last, line) = written.split_last().unwrap();
                prop_assert!(*last == b'\n' && !line.contains(&b'\n'));
                prop_assert_eq!(parse_request(&written).unwrap(), (protocol, request));
            }
            Err(failure) => {
                prop_assert_eq!(failure.kind, FailureKind::Protocol);
                prop_assert!(!failure.message.is_empty());
            }
        }
    }

    #[test]
    fn replies(line in mutate::json(REPLIES, TOKENS)) {
        match parse_reply(&line) {
            Ok(reply) => prop_assert_eq!(parse_reply(&reply.to_line(PROTOCOL)).unwrap(), reply),
            Err(problem) => prop_assert!(!problem.is_empty()),
        }
    }
}
