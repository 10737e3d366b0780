//! Tests of the verdicts on what the API said.

use super::*;
use crate::Verdict;

fn node() -> NodeName {
    "n1".parse().unwrap()
}

#[test]
fn the_way_is_one_line() {
    for (store, words) in [
        ("kubernetes", "with Kubernetes: "),
        ("etcds://h", "with etcd: "),
        ("sqlite:/a", "with SQLite: "),
    ] {
        let check = judge_way(store);
        assert_eq!(check.verdict, Verdict::Ok);
        assert!(check.found.starts_with(words) && !check.to_string().contains('\n'));
    }
    assert_eq!(judge_way("redis://h").verdict, Verdict::Fail);
}

#[test]
fn agents_need_two_kinds_and_the_controller_all() {
    let but = |left_out: &str| {
        let kinds = KINDS.iter().filter(|kind| **kind != left_out);
        judge_kinds(&Ok(kinds.map(ToString::to_string).collect()))
    };
    assert_eq!(but("").verdict, Verdict::Ok);
    let check = but("links");
    assert!(check.verdict == Verdict::Fail && check.found.contains("lacks links of"));
    assert_eq!(but("vniblocks").verdict, Verdict::Warn);
    assert_eq!(judge_kinds(&Err("silent".into())).verdict, Verdict::Warn);
}

#[test]
fn a_right_that_is_missing_is_named() {
    assert_eq!(judge_rights(&Ok(Vec::new()), &node()).verdict, Verdict::Ok);
    let check = judge_rights(&Ok(RIGHTS[1..3].to_vec()), &node());
    assert_eq!(check.verdict, Verdict::Fail);
    let words = "may not: watch links, patch links/status";
    assert!(check.found.ends_with(words), "{check}");
}

#[test]
fn a_node_underlay_is_what_the_node_has() {
    let underlay = Underlay {
        interface: "eth0".into(),
        index: 2,
        address: "10.0.0.1".parse().unwrap(),
        mtu: 1500,
        addresses: vec![],
    };
    let published = NodeUnderlaySpec {
        vtep: "10.0.0.1".into(),
        mtu: 1450,
        port: VXLAN_PORT,
        version: "1".into(),
    };
    let judge = |published, underlay| judge_underlay(&Ok(published), &node(), underlay).verdict;
    assert_eq!(judge(Some(published.clone()), Some(&underlay)), Verdict::Ok);
    assert_eq!(judge(Some(published.clone()), None), Verdict::Warn);
    assert_eq!(judge(None, Some(&underlay)), Verdict::Fail);
    for other in [
        NodeUnderlaySpec {
            vtep: "10.0.0.2".into(),
            ..published.clone()
        },
        NodeUnderlaySpec {
            mtu: 1400,
            ..published.clone()
        },
        NodeUnderlaySpec {
            port: 8472,
            ..published
        },
    ] {
        assert_eq!(judge(Some(other), Some(&underlay)), Verdict::Fail);
    }
}

#[test]
fn a_lease_is_held_if_it_is_renewed() {
    let held = |name: &str, seconds| {
        let age = Duration::from_secs(seconds);
        let name = name.to_owned();
        judge_lease(&Ok(Some(Holder { name, age }))).verdict
    };
    assert_eq!(held("c1", 2), Verdict::Ok);
    assert_eq!(held("c1", 61), Verdict::Warn);
    assert_eq!(held("", 2), Verdict::Warn);
    assert_eq!(judge_lease(&Ok(None)).verdict, Verdict::Warn);
    assert_eq!(judge_lease(&Err("403".into())).verdict, Verdict::Warn);
}
