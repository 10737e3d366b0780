use super::*;

fn passage(vni: u32, local: &str, remote: &str, source: Option<(u16, u16)>) -> Passage {
    Passage {
        port: 4789,
        vni: vni.try_into().unwrap(),
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        source: source.map(|(low, high)| SourcePorts { low, high }),
    }
}

#[test]
fn keys_are_what_the_rules_load() {
    let found = elements(&passage(
        0x01_0203,
        "10.0.0.1",
        "10.0.0.2",
        Some((1024, 1032)),
    ));
    let expected: Vec<Element> = vec![
        (Set::Ports, vec![0x12, 0xb5]),
        (Set::Ours, vec![0x12, 0xb5, 0, 0, 1, 2, 3, 0]),
        (
            Set::Arriving(Family::V4),
            vec![1, 2, 3, 0, 10, 0, 0, 2, 10, 0, 0, 1],
        ),
        (
            Set::Leaving(Family::V4),
            vec![4, 0, 0, 0, 1, 2, 3, 0, 10, 0, 0, 2],
        ),
        (
            Set::Leaving(Family::V4),
            vec![4, 4, 0, 0, 1, 2, 3, 0, 10, 0, 0, 2],
        ),
    ];
    assert_eq!(found, expected);
}

#[test]
fn keys_have_the_length_of_their_set() {
    for source in [None, Some((4096, 4100))] {
        for (local, remote) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            for (set, key) in elements(&passage(11, local, remote, source)) {
                assert_eq!(key.len(), set.key_len(), "{}", set.name());
            }
        }
    }
}

#[test]
fn passages_are_read_back() {
    let all = BTreeSet::from([
        passage(11, "10.0.0.1", "10.0.0.2", Some((1024, 1088))),
        passage(11, "fd00::1", "fd00::2", Some((2048, 2052))),
        passage(12, "10.0.0.1", "10.0.0.3", None),
        passage(13, "fd00::1", "fd00::3", None),
    ]);
    assert_eq!(passages(&all.iter().flat_map(elements).collect()), all);
}

#[test]
fn a_range_covers_its_blocks() {
    let blocks = |low, high| SourcePorts { low, high }.blocks().collect::<Vec<_>>();
    assert_eq!(blocks(1024, 1028), [1024]);
    assert_eq!(blocks(1024, 1029), [1024, 1028]);
    assert_eq!(blocks(1027, 1027), [1024]);
    assert_eq!(blocks(65528, 65535), [65528, 65532]);
}
