//! Tests of `state`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use super::*;

const NOW: Duration = Duration::ZERO;

fn key(container_id: &str, ifname: &str) -> Key {
    Key::new("net", container_id, ifname).unwrap()
}

fn record() -> Record {
    Record {
        mode: Mode::Boot,
        rendered: Rendered::default(),
        args: "A=b".into(),
        netns: "/n".into(),
        appended: Appended::default(),
    }
}

fn appended() -> Appended {
    let interface = Interface {
        name: "in1".into(),
        mac: "02:00:00:00:00:01".parse().ok(),
        mtu: 1450,
    };
    Appended {
        interfaces: vec![interface],
        address: Some("127.0.0.1/8".into()),
    }
}

#[test]
fn what_is_saved_is_loaded_and_only_root_may_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let all = Attachments::of(&dir.path().join("state"));
    for durable in [true, false] {
        let slot = all.claim(&key("c1", "eth0"), NOW).unwrap();
        assert_eq!(slot.load(), Kept::Nothing);
        slot.save(&record(), durable).unwrap();
        assert_eq!(slot.load(), Kept::Record(Box::new(record())));
        slot.append(&appended()).unwrap();
        assert_eq!(
            slot.load(),
            Kept::Record(Box::new(Record {
                appended: appended(),
                ..record()
            }))
        );
        let mode = |path: &str| {
            fs::metadata(dir.path().join(path))
                .unwrap()
                .permissions()
                .mode()
                & 0o7777
        };
        assert_eq!(mode("state/attachments/net/c1/eth0.json"), 0o600);
        assert_eq!(mode("state/attachments/net/c1/eth0.appended"), 0o600);
        for path in [
            "state",
            "state/attachments",
            "state/attachments/net",
            "state/attachments/net/c1",
        ] {
            assert_eq!(mode(path), 0o700, "{path}");
        }
        slot.remove().unwrap();
        assert!(!dir.path().join("state/attachments/net").exists());
    }
}

#[test]
fn a_lock_is_held_once_an_interface() {
    let dir = tempfile::tempdir().unwrap();
    let all = Attachments::of(dir.path());
    let slot = all.claim(&key("c1", "eth0"), NOW).unwrap();
    assert!(all.try_claim(&key("c1", "eth0")).unwrap().is_none());
    assert_eq!(
        all.claim(&key("c1", "eth0"), Duration::from_millis(10))
            .unwrap_err()
            .code,
        11
    );
    let other = all.claim(&key("c1", "eth1"), NOW).unwrap();
    other.remove().unwrap();
    assert!(
        all.claim_existing(&key("c2", "eth0"), NOW)
            .unwrap()
            .is_none()
    );
    slot.remove().unwrap();
    all.claim(&key("c1", "eth0"), NOW)
        .unwrap()
        .remove()
        .unwrap();
}

#[test]
fn locks_hold_although_their_files_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let all = Attachments::of(dir.path());
    let inside = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let slot = all
                        .claim(&key("c1", "eth0"), Duration::from_secs(60))
                        .unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    slot.save(&record(), false).unwrap();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    slot.remove().unwrap();
                }
            });
        }
    });
    assert!(all.list("net").unwrap().is_empty());
}

#[test]
fn a_damaged_record_is_not_taken_for_none() {
    let dir = tempfile::tempdir().unwrap();
    let all = Attachments::of(dir.path());
    let slot = all.claim(&key("c1", "eth0"), NOW).unwrap();
    for damaged in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"mode":"later","rendered":{"plugins":[]}}"#,
    ] {
        fs::write(slot.file("json"), damaged).unwrap();
        assert!(matches!(slot.load(), Kept::Unreadable(_)), "{damaged}");
    }
}

#[test]
fn what_was_appended_may_be_incomplete_and_the_record_still_counts() {
    let dir = tempfile::tempdir().unwrap();
    let slot = Attachments::of(dir.path())
        .claim(&key("c1", "eth0"), NOW)
        .unwrap();
    slot.save(&record(), true).unwrap();
    for torn in ["", "{\"interfaces\":["] {
        fs::write(slot.file("appended"), torn).unwrap();
        assert_eq!(slot.load(), Kept::Record(Box::new(record())), "{torn:?}");
    }
}

#[test]
fn what_an_older_ratchet_kept_in_one_file_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    let slot = Attachments::of(dir.path())
        .claim(&key("c1", "eth0"), NOW)
        .unwrap();
    let old = r#"{"mode":"chained","rendered":{"plugins":[]},"interfaces":[{"name":"in1",
        "mac":"02:00:00:00:00:01","mtu":1450}],"address":"127.0.0.1/8"}"#;
    fs::write(slot.file("json"), old).unwrap();
    let Kept::Record(found) = slot.load() else {
        panic!("{:?}", slot.load())
    };
    assert_eq!(found.appended, appended());
}

#[test]
fn a_record_that_cannot_be_written_is_code_5_and_leaves_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let all = Attachments::of(dir.path());
    let slot = all.claim(&key("c1", "eth0"), NOW).unwrap();
    slot.save(&record(), true).unwrap();
    // In the way of the temporary file, for root too.
    fs::create_dir(slot.file("tmp")).unwrap();
    assert_eq!(
        slot.save(
            &Record {
                mode: Mode::Chained,
                ..record()
            },
            true
        )
        .unwrap_err()
        .code,
        5
    );
    assert_eq!(slot.load(), Kept::Record(Box::new(record())));
}

#[test]
fn names_that_are_no_names_of_files_are_refused() {
    for (network, container_id, ifname, code) in [
        ("..", "c", "eth0", 7),
        ("n", "../c", "eth0", 4),
        ("n", "c", "..", 4),
        (&*"n".repeat(256), "c", "eth0", 7),
        ("n", &*"c".repeat(256), "eth0", 4),
    ] {
        assert_eq!(
            Key::new(network, container_id, ifname).unwrap_err().code,
            code
        );
    }
}

#[test]
fn the_list_holds_all_of_one_network() {
    let dir = tempfile::tempdir().unwrap();
    let all = Attachments::of(dir.path());
    for (id, ifname) in [("a", "eth0"), ("a", "eth1"), ("a.b", "eth0.json")] {
        let slot = all.claim(&key(id, ifname), NOW).unwrap();
        slot.save(&record(), false).unwrap();
        slot.append(&appended()).unwrap();
    }
    all.claim(&Key::new("net2", "z", "eth0").unwrap(), NOW)
        .unwrap();
    let mut listed = all.list("net").unwrap();
    listed.sort_by(|a, b| (&a.container_id, &a.ifname).cmp(&(&b.container_id, &b.ifname)));
    assert_eq!(
        listed,
        [key("a", "eth0"), key("a", "eth1"), key("a.b", "eth0.json")]
    );
    assert!(all.list("none").unwrap().is_empty());
}
