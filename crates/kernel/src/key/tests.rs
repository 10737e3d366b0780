use std::os::unix::fs::{PermissionsExt, symlink};

use ratchet_model::{
    device::{Alias, Part},
    link::End,
    names::SandboxId,
};

use super::*;

fn alias() -> Alias {
    Alias {
        link: "00000000000000ff".parse().unwrap(),
        end: End::A,
        part: Part::Pod,
        sandbox: Some("s1".parse().unwrap()),
        config: 7,
    }
}

const HERE: Location = Location {
    netns: NetnsIdentity { dev: 4, inode: 10 },
    index: 5,
};

#[test]
fn an_alias_is_proven_for_its_words_and_its_place_only() {
    let (key, other) = (NodeKey::random().unwrap(), NodeKey::random().unwrap());
    let signed = key.sign(&alias(), HERE);
    assert!(key.has_signed(&signed, HERE), "{signed}");
    assert!(!other.has_signed(&signed, HERE));
    let elsewhere = [
        Location { index: 6, ..HERE },
        Location {
            netns: NetnsIdentity { dev: 4, inode: 11 },
            ..HERE
        },
        Location {
            netns: NetnsIdentity { dev: 5, inode: 10 },
            ..HERE
        },
    ];
    for place in elsewhere {
        assert!(!key.has_signed(&signed, place), "{place:?}");
    }
    let (said, mac) = signed.split_once(MARK).unwrap();
    let altered = [
        alias().to_string(),
        signed.replace("end=a", "end=z"),
        signed.replace("config=00000007", "config=00000008"),
        signed.replace("sandbox=s1", "sandbox=s2"),
        signed.replace("sandbox=s1", "parked"),
        signed.replace("00000000000000ff", "00000000000000fe"),
        signed[..signed.len() - 1].to_owned(),
        format!("{signed}0"),
        format!("{signed} "),
        format!("{said}{MARK}"),
        format!("{said}{MARK}+{}", &mac[1..]),
        format!("{said}{MARK}{}", "0".repeat(32)),
        String::new(),
    ];
    for text in altered {
        assert!(!key.has_signed(&text, HERE), "{text}");
    }
}

/// IFALIASZ, include/uapi/linux/if.h, with the zero at the end.
#[test]
fn the_longest_alias_fits_the_kernel() {
    let longest = Alias {
        sandbox: Some("x".repeat(SandboxId::MAX).parse().unwrap()),
        config: u32::MAX,
        ..alias()
    };
    let signed = NodeKey::random().unwrap().sign(&longest, HERE);
    assert!(signed.len() < 256, "{} bytes", signed.len());
}

#[test]
fn a_key_is_made_once_and_read_then() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("var/ratchet.key");
    let made = NodeKey::open(&path).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.len()), (0o600, 32));
    let signed = made.sign(&alias(), HERE);
    assert!(NodeKey::open(&path).unwrap().has_signed(&signed, HERE));
    let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(left, 1, "nothing but the key");
}

#[test]
fn a_key_that_is_not_roots_alone_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let refused = |with: &str| {
        let error = NodeKey::open(&path).unwrap_err().to_string();
        assert!(error.contains(with), "{error}");
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    };
    NodeKey::open(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    refused("its mode is 0640, expected 0600");
    assert_eq!(fs::read(&path).unwrap(), bytes);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    nix::unistd::chown(&path, Some(1000.into()), None).unwrap();
    refused("it belongs to uid 1000, expected uid 0");
    nix::unistd::chown(&path, Some(0.into()), None).unwrap();
    fs::write(&path, &bytes[1..]).unwrap();
    refused("it has 31 bytes, expected 32 bytes");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused("it is no regular file");
    fs::remove_dir(&path).unwrap();
    symlink("elsewhere", &path).unwrap();
    refused("cannot read the node key");
}
