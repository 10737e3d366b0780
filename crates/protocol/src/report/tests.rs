//! Tests of the report's form.

use serde_json::json;

use super::*;

/// Links as the release before the details reports them, which must be read as ever.
fn before() -> serde_json::Value {
    json!({
        "node": "n1",
        "links": [{
            "id": "00000000000000aa", "state": "pending",
            "reason": "pod default/b has gone; waiting for it to come back",
            "a": {"pod": "default/a", "interface": "e1", "addresses": [],
                  "mac": "02:00:00:00:00:01"},
            "z": {"pod": "default/b", "interface": "e1", "addresses": [],
                  "mac": "02:00:00:00:00:02"},
            "warnings": ["w"], "declared_by": [],
        }],
        "notices": ["store: offline"],
    })
}

#[test]
fn details_are_added_to_what_a_report_has_had_before() {
    let mut links: Links = serde_json::from_value(before()).unwrap();
    assert_eq!(links.links[0].reason_details, None);
    assert!(links.notice_details.is_empty() && links.links[0].warning_details.is_empty());

    let reason = Reason::PeerGone {
        pod: "default/b".parse().unwrap(),
    };
    links.links[0].reason_details = Some(ReasonReport::from(&reason));
    links.notice(&Reason::AgentStarting {});
    let mut written = serde_json::to_value(&links).unwrap();
    let link = written["links"][0].as_object_mut().unwrap();
    let details = link.remove("reason_details").unwrap();
    assert_eq!(details["code"], "peer_gone");
    assert_eq!(details["message"], link["reason"]);
    assert!(!details["hint"].as_str().unwrap().is_empty());
    let notices = written.as_object_mut().unwrap().remove("notice_details");
    assert_eq!(notices.unwrap()[0]["code"], "agent_starting");
    let mut expected = before();
    expected["notices"] = json!(["store: offline", "the agent is starting"]);
    assert_eq!(written, expected);
}
