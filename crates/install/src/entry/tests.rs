use proptest::prelude::*;

use super::*;

fn entry(kind: &str, value: u8) -> Entry {
    Entry::of(json!({"type": kind, "value": value}))
}

fn own_entry() -> Entry {
    own(&Settings::default(), &LocalSettings::default())
}

/// Types of a network's plugins, which may be the same as those that others add.
fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let kinds = prop::sample::select(vec!["flannel", "portmap", "tuning", "istio-cni", "other"]);
    prop::collection::vec((kinds, 0..3_u8), 0..5).prop_map(|entries| {
        entries
            .iter()
            .map(|(kind, value)| entry(kind, *value))
            .collect()
    })
}

/// What other programs do to the plugins of a file.
#[derive(Debug, Clone)]
enum Change {
    Remove(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Edit(prop::sample::Index, u8),
    Swap(prop::sample::Index, prop::sample::Index),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let index = any::<prop::sample::Index>;
    prop::collection::vec(
        prop_oneof![
            index().prop_map(Change::Remove),
            (index(), 0..3_u8).prop_map(|(at, value)| Change::Insert(at, value)),
            (index(), 5..8_u8).prop_map(|(at, value)| Change::Edit(at, value)),
            (index(), index()).prop_map(|(one, other)| Change::Swap(one, other)),
        ],
        0..4,
    )
}

fn apply(entries: &mut Vec<Entry>, changes: &[Change]) {
    for change in changes {
        let count = entries.len();
        if count == 0 {
            return;
        }
        match change {
            Change::Remove(at) => drop(entries.remove(at.index(count))),
            Change::Insert(at, value) => entries.insert(at.index(count), entry("added", *value)),
            Change::Edit(at, value) => {
                let at = at.index(count);
                entries[at] = entry(&entries[at].kind.clone(), *value);
            }
            Change::Swap(one, other) => entries.swap(one.index(count), other.index(count)),
        }
    }
}

proptest! {
    #[test]
    fn ours_is_the_last_and_the_only_one(
        base in entries(), mut present in entries(), source in entries(), at in 0..6_usize,
    ) {
        let mut old = own_entry();
        old.value["socket"] = json!("/old");
        present.insert(at.min(present.len()), old);
        let merged = merge(&base, &present, &source, &own_entry());
        prop_assert_eq!(merged.iter().filter(|entry| entry.is_ours()).count(), 1);
        prop_assert_eq!(merged.last().unwrap(), &own_entry());
    }

    #[test]
    fn without_changes_of_others_it_is_the_source(before in entries(), after in entries()) {
        let own = own_entry();
        let first = merge(&[], &[], &before, &own);
        prop_assert_eq!(&first[..before.len()], &before[..]);
        let second = merge(&before, &first, &after, &own);
        prop_assert_eq!(&second[..after.len()], &after[..]);
        prop_assert_eq!(second.len(), after.len() + 1);
    }

    #[test]
    fn it_is_done_once(source in entries(), before in entries(), changes in changes()) {
        let own = own_entry();
        let mut present = merge(&[], &[], &before, &own);
        apply(&mut present, &changes);
        let once = merge(&before, &present, &source, &own);
        prop_assert_eq!(merge(&source, &once, &source, &own), once);
    }

    #[test]
    fn what_others_added_stays_in_its_order(
        before in entries(), after in entries(), changes in changes(),
    ) {
        let own = own_entry();
        let mut present = merge(&[], &[], &before, &own);
        apply(&mut present, &changes);
        let merged = merge(&before, &present, &after, &own);
        let added = |entries: &[Entry]| -> Vec<Entry> {
            entries.iter().filter(|entry| entry.kind == "added").cloned().collect()
        };
        prop_assert_eq!(added(&merged), added(&present));
    }

    #[test]
    fn what_the_source_changed_counts(
        mut before in entries(), changes in changes(), at in any::<prop::sample::Index>(),
    ) {
        before.push(entry("bandwidth", 0));
        let own = own_entry();
        let mut present = merge(&[], &[], &before, &own);
        apply(&mut present, &changes);
        let mut after = before.clone();
        let at = at.index(after.len());
        after[at] = entry(&after[at].kind.clone(), 9);
        let merged = merge(&before, &present, &after, &own);
        prop_assert!(merged.contains(&after[at]));
    }
}

#[test]
fn what_others_made_of_an_unchanged_plugin_counts() {
    let (before, own) = ([entry("flannel", 1), entry("istio-cni", 1)], own_entry());
    let edited = [entry("flannel", 1), own.clone(), entry("istio-cni", 2)];
    let merged = merge(&before, &edited, &before, &own);
    assert_eq!(
        merged,
        [entry("flannel", 1), entry("istio-cni", 2), own.clone()]
    );
    let removed = [entry("flannel", 1), own.clone()];
    assert_eq!(merge(&before, &removed, &before, &own), removed);
    // But no pod is left without its network.
    let [first, second] = before.clone();
    let all = [first, second, own.clone()];
    assert_eq!(merge(&before, &[], &before, &own), all);
    assert_eq!(merge(&before, &all[1..], &before, &own), all);
}

#[test]
fn of_two_plugins_of_a_type_the_last_is_the_one_removed() {
    let (first, own) = (entry("flannel", 1), own_entry());
    let (old, new) = (entry("istio-cni", 1), entry("istio-cni", 2));
    let before = [first.clone(), old.clone()];
    let removed = [first.clone(), own.clone()];
    let after = [first, old, new];
    let once = merge(&before, &removed, &after, &own);
    assert_eq!(once[..3], after);
    assert_eq!(merge(&after, &once, &after, &own), once);
}

#[test]
fn our_plugin_has_the_settings_that_the_agent_was_given() {
    let settings = Settings {
        store: Some("kubernetes".to_owned()),
        kubeconfig: Some("auto".to_owned()),
        mtu: Some("1400".parse().unwrap()),
        ..Settings::default()
    };
    let local = LocalSettings {
        log_level: Some("debug".to_owned()),
        node_key: Some("/k".to_owned()),
        ..LocalSettings::default()
    };
    let expected = json!({
        "type": "ratchet", "store": "kubernetes", "mtu": "1400", "kubeconfig": "auto",
        "socket": "/run/ratchet/agent.sock", "state_dir": "/var/lib/ratchet",
        "node_key": "/k",
        "capabilities": {"io.kubernetes.cri.pod-annotations": true},
    });
    assert_eq!(own(&settings, &local).value, expected);
}
