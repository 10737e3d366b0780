use ratchet_model::device::Passage;

use super::*;
use crate::Verdict;

fn found(count: u32, is_whole: bool) -> Result<FoundFilter, KernelError> {
    let passage = |number: u32| Passage {
        port: 4789,
        vni: (11 + number).try_into().unwrap(),
        local: "10.0.0.1".parse().unwrap(),
        remote: "10.0.0.2".parse().unwrap(),
        source: None,
    };
    Ok(FoundFilter {
        passages: (0..count).map(passage).collect(),
        is_whole,
    })
}

#[test]
fn a_filter_must_know_all_tunnels_and_be_unchanged() {
    let verdict = |found, tunnels| judge(found, tunnels).map(|check| check.verdict);
    assert_eq!(verdict(found(2, true), Some(2)), Some(Verdict::Ok));
    assert_eq!(verdict(found(0, true), Some(0)), Some(Verdict::Ok));
    assert_eq!(verdict(found(2, true), None), Some(Verdict::Ok));
    // A link that has just ended.
    assert_eq!(verdict(found(2, true), Some(1)), Some(Verdict::Ok));
    assert_eq!(verdict(found(1, true), Some(2)), Some(Verdict::Warn));
    assert_eq!(verdict(found(2, false), Some(2)), Some(Verdict::Warn));
}

#[test]
fn a_kernel_without_nftables_has_a_check_of_its_own() {
    let error = KernelError::Unsupported {
        doing: "read the source filter".into(),
        feature: "nftables",
        module: "nf_tables",
        config: "CONFIG_NF_TABLES_INET",
    };
    assert_eq!(judge(Err(error), None), None);
}
