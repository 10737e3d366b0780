//! An etcd store when etcd fails, and the cost of a store.
#![allow(
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "these are tests: a panic is how they fail"
)]

mod etcd_server;

use std::{
    fs,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ratchet_store::{
    Change, EtcdOptions, Interest, Publish, Published, Store, StoreError, StoreOptions, StoreUrl,
    VniClaim, Watch,
};
use ratchet_store_contract::{block_on, helpers::*};
use tokio::time;

use etcd_server::EtcdServer;

/// Longer than etcd needs to restart and the store to notice.
const TIMEOUT: Duration = Duration::from_secs(20);

async fn open_with(url: &StoreUrl, etcd: &EtcdOptions) -> Result<Arc<dyn Store>, StoreError> {
    let (url, etcd) = (url.clone(), etcd.clone());
    ratchet_store::open(&StoreOptions { etcd, ..url.into() }).await
}

fn refused(url: &StoreUrl, etcd: &EtcdOptions) -> StoreError {
    block_on(open_with(url, etcd))
        .err()
        .expect("it must be refused")
}

fn assert_text(error: &StoreError, expected: &[&str]) {
    for part in expected {
        assert!(
            error.to_string().contains(part),
            "{error} should contain {part:?}"
        );
    }
}

/// Waits for [`Change::All`], through errors.
async fn begins_anew(watch: &mut dyn Watch) {
    let everything = async { while !matches!(watch.next().await, Ok(Change::All)) {} };
    time::timeout(TIMEOUT, everything)
        .await
        .expect("the watch does not start again");
}

/// Publishes a record again until it succeeds.
async fn publish_again(store: &dyn Store, record: &ratchet_model::PodRecord) -> Published {
    let begun = Instant::now();
    loop {
        match store.publish(record, Publish::Again).await {
            Ok(published) => return published,
            Err(error) => assert!(begun.elapsed() < TIMEOUT, "{error}"),
        }
    }
}

#[test]
fn nobody_listens() {
    let begun = Instant::now();
    let error = refused(
        &"etcd://127.0.0.1:1".parse().unwrap(),
        &EtcdOptions::default(),
    );
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert_text(
        &error,
        &[
            "etcd://127.0.0.1:1",
            "Connection refused",
            "endpoint health",
        ],
    );
    assert!(begun.elapsed() < Duration::from_secs(5));
    let error = refused(
        &"etcd://no-such-host.invalid:1".parse().unwrap(),
        &EtcdOptions::default(),
    );
    assert_text(&error, &["no-such-host.invalid", "lookup"]);
}

#[test]
fn the_next_member_is_asked_when_one_does_not_answer() {
    let server = EtcdServer::start();
    let url: StoreUrl = format!("etcd://127.0.0.1:1,127.0.0.1:{}", server.port)
        .parse()
        .unwrap();
    block_on(async {
        let store = open(&url).await;
        publish(&*store, &record("a", &[])).await;
        watch(&*store, &["a"], &[]).await;
    });
}

#[test]
fn a_restart_is_survived() {
    let mut server = EtcdServer::start();
    block_on(async {
        let store = open(&server.url()).await;
        publish(&*store, &record("a", &["b"])).await;
        let mut watch = watch(&*store, &["a"], &["b"]).await;
        server.stop();
        let error = store.read(&keys(&["a"])).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        server.start_again();
        begins_anew(&mut *watch).await;
        assert_eq!(names(&*store, &["a"]).await, ["a"]);
        publish(&*store, &record("b", &[])).await;
        hear(&mut *watch, &["b"]).await;
    });
}

#[test]
fn an_etcd_that_was_wiped_is_filled_again() {
    let mut server = EtcdServer::start();
    block_on(async {
        let store = open(&server.url()).await;
        // So that the new etcd has lower revisions.
        for _ in 0..20 {
            publish(&*store, &record("a", &["b"])).await;
        }
        let mut watch = watch(&*store, &["a"], &["b"]).await;
        server.wipe();
        begins_anew(&mut *watch).await;
        assert_eq!(names(&*store, &["a"]).await, [""; 0]);
        assert_eq!(
            publish_again(&*store, &record("a", &["b"])).await,
            Published::Stored { created: 100 }
        );
        hear(&mut *watch, &["a"]).await;
        publish(&*store, &record("b", &[])).await;
        hear(&mut *watch, &["b"]).await;
    });
}

#[test]
fn compaction_under_a_watch_loses_nothing() {
    let server = EtcdServer::start();
    block_on(async {
        let store = open(&server.url()).await;
        publish(&*store, &record("a", &["b"])).await;
        let mut watch = watch(&*store, &["a"], &["b"]).await;
        // The link without VNI is watched from this read on. The revision is compacted before the
        // watcher is made.
        store.read(&keys(&["a"])).await.unwrap();
        for _ in 0..20 {
            publish(&*store, &record("b", &[])).await;
        }
        let status = server.ctl(&["endpoint", "status", "-w", "json"]);
        let revision = status
            .split("\"revision\":")
            .nth(1)
            .unwrap()
            .split(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap();
        server.ctl(&["compact", revision, "--physical"]);
        hear(&mut *watch, &["b"]).await;
        claim(&*store, &link("a", "b")).await;
        hear(&mut *watch, &["a"]).await;
        store.read(&keys(&["a"])).await.unwrap();
        publish(&*store, &record_in("b", "b-9", 1, &[])).await;
        hear(&mut *watch, &["b"]).await;
    });
}

#[test]
fn an_etcd_that_hangs_is_an_error_and_then_caught_up_with() {
    let server = EtcdServer::start();
    let pid = Pid::from_raw(server.pid().try_into().unwrap());
    block_on(async {
        let store = open(&server.url()).await;
        let mut watch = watch(&*store, &["a"], &["b"]).await;
        kill(pid, Signal::SIGSTOP).unwrap();
        let begun = Instant::now();
        let error = store
            .publish(&record("a", &[]), Publish::New)
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        assert_text(&error, &["no answer"]);
        assert!(begun.elapsed() < Duration::from_secs(10));
        kill(pid, Signal::SIGCONT).unwrap();
        publish_again(&*store, &record("b", &[])).await;
        hear(&mut *watch, &["b"]).await;
    });
}

#[test]
fn users_and_permissions() {
    let server = EtcdServer::start();
    for command in [
        "user add root:secret",
        "user grant-role root root",
        "user add ratchet:word",
        "role add ratchet",
        "role grant-permission ratchet --prefix=true readwrite /ratchet/",
        "user grant-role ratchet ratchet",
        "auth enable",
    ] {
        server.ctl(&command.split(' ').collect::<Vec<_>>());
    }
    let file = server.directory().join("password");
    fs::write(&file, "word\n").unwrap();
    let options = EtcdOptions {
        user: Some("ratchet".into()),
        password_file: Some(file.clone()),
        ..EtcdOptions::default()
    };

    assert_text(
        &refused(&server.url(), &EtcdOptions::default()),
        &["requires a user", "etcd_user"],
    );
    let elsewhere = EtcdOptions {
        prefix: "/elsewhere".into(),
        ..options.clone()
    };
    assert_text(
        &refused(&server.url(), &elsewhere),
        &["may not read", "grant-permission"],
    );
    block_on(async {
        let store = open_with(&server.url(), &options).await.unwrap();
        publish(&*store, &record("a", &["b"])).await;
        let mut watch = watch(&*store, &["a"], &["b"]).await;
        publish(&*store, &record("b", &["a"])).await;
        hear(&mut *watch, &["a", "b"]).await;
        claim(&*store, &link("a", "b")).await;
        // Users were changed: etcd no longer accepts earlier logins.
        server.ctl(&["--user", "root:secret", "user", "add", "another:one"]);
        publish(&*store, &record("a", &[])).await;
        remove_pod(&*store, "a").await;
    });
    fs::write(&file, "wrong").unwrap();
    let error = refused(&server.url(), &options);
    assert_text(&error, &["refuses user or password", "etcd_password_file"]);
    assert!(!error.to_string().contains("wrong"), "{error}");
}

/// The password is changed while the store is open, and etcd has forgotten the login: the first
/// failure is that of the login.
#[test]
fn a_renewed_password_is_noticed() {
    let mut server = EtcdServer::start();
    for command in [
        "user add root:secret",
        "user grant-role root root",
        "user add ratchet:one",
        "user grant-role ratchet root",
        "auth enable",
    ] {
        server.ctl(&command.split(' ').collect::<Vec<_>>());
    }
    let file = server.directory().join("password");
    fs::write(&file, "one").unwrap();
    let options = EtcdOptions {
        user: Some("ratchet".into()),
        password_file: Some(file.clone()),
        ..EtcdOptions::default()
    };
    block_on(async {
        let store = open_with(&server.url(), &options).await.unwrap();
        publish(&*store, &record("a", &["b"])).await;
        let mut watch = watch(&*store, &["a"], &["b"]).await;
        server.ctl(&["--user", "root:secret", "user", "delete", "ratchet"]);
        server.ctl(&["--user", "root:secret", "user", "add", "ratchet:two"]);
        server.ctl(&[
            "--user",
            "root:secret",
            "user",
            "grant-role",
            "ratchet",
            "root",
        ]);
        server.stop();
        server.start_again();
        let error = loop {
            match store.publish(&record("a", &[]), Publish::Again).await {
                Err(StoreError::Unavailable(_)) => {}
                other => break other.expect_err("it must be refused"),
            }
        };
        assert_text(&error, &["refuses user or password", "etcd_password_file"]);
        fs::write(&file, "two").unwrap();
        publish(&*store, &record("a", &["c"])).await;
        begins_anew(&mut *watch).await;
        remove_pod(&*store, "a").await;
    });
}

/// Makes certificates: of an authority, a server and a client.
fn certificates(directory: &Path) {
    let script = r#"
        set -e
        for ca in ca other; do
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
                -keyout $ca.key -out $ca.crt -days 2 -subj /CN=$ca
        done
        for name in server client; do
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
                -keyout $name.key -out $name.csr -subj /CN=$name
            printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' \
                > $name.ext
            openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
                -out $name.crt -extfile $name.ext
        done"#;
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn tls_with_a_client_certificate() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let file = |name: &str| directory.path().join(name);
    let argument = |option: &str, name: &str| format!("--{option}={}", file(name).display());
    let arguments = [
        argument("cert-file", "server.crt"),
        argument("key-file", "server.key"),
        argument("trusted-ca-file", "ca.crt"),
        "--client-cert-auth".to_owned(),
    ];
    let server = EtcdServer::with(&arguments.each_ref().map(String::as_str));
    let good = EtcdOptions {
        ca: Some(file("ca.crt")),
        cert: Some(file("client.crt")),
        key: Some(file("client.key")),
        ..EtcdOptions::default()
    };
    block_on(async {
        let store = open_with(&server.url(), &good).await.unwrap();
        publish(&*store, &record("a", &[])).await;
        watch(&*store, &["a"], &[]).await;
    });
    let wrong_ca = EtcdOptions {
        ca: Some(file("other.crt")),
        ..good.clone()
    };
    let error = refused(&server.url(), &wrong_ca);
    assert!(matches!(error, StoreError::Broken(_)), "{error:?}");
    assert_text(&error, &["etcd_ca", "certificate"]);
    let no_certificate = EtcdOptions {
        cert: None,
        key: None,
        ..good.clone()
    };
    assert_text(&refused(&server.url(), &no_certificate), &["etcd_cert"]);
    let missing = EtcdOptions {
        ca: Some(file("missing")),
        ..good.clone()
    };
    assert_text(
        &refused(&server.url(), &missing),
        &["etcd_ca", "missing", "No such file"],
    );
    let half = EtcdOptions {
        key: None,
        ..good.clone()
    };
    assert_text(
        &refused(&server.url(), &half),
        &["etcd_cert and etcd_key go together"],
    );
    let scheme = server
        .url()
        .to_string()
        .replace("etcds:", "etcd:")
        .parse()
        .unwrap();
    assert_text(
        &refused(&scheme, &EtcdOptions::default()),
        &["if it speaks TLS, write etcds://"],
    );
    let plain: StoreUrl = server
        .url()
        .to_string()
        .replace("etcds:", "etcd:")
        .parse()
        .unwrap();
    assert_text(&refused(&plain, &good), &["etcds://"]);
}

/// All certificates are replaced while the store is open: the server refuses ours by an alert, and
/// we refuse the server's, until our files are renewed as well.
#[test]
fn renewed_certificates_are_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let [theirs, ours] = ["theirs", "ours"].map(|name| directory.path().join(name));
    fs::create_dir(&theirs).unwrap();
    fs::create_dir(&ours).unwrap();
    certificates(&theirs);
    let copy = |names: &[&str]| {
        for name in names {
            fs::copy(theirs.join(name), ours.join(name)).unwrap();
        }
    };
    copy(&["ca.crt", "client.crt", "client.key"]);
    let argument = |option: &str, name: &str| format!("--{option}={}", theirs.join(name).display());
    let arguments = [
        argument("cert-file", "server.crt"),
        argument("key-file", "server.key"),
        argument("trusted-ca-file", "ca.crt"),
        "--client-cert-auth".to_owned(),
    ];
    let mut server = EtcdServer::with(&arguments.each_ref().map(String::as_str));
    let options = EtcdOptions {
        ca: Some(ours.join("ca.crt")),
        cert: Some(ours.join("client.crt")),
        key: Some(ours.join("client.key")),
        ..EtcdOptions::default()
    };
    block_on(async {
        let store = open_with(&server.url(), &options).await.unwrap();
        publish(&*store, &record("a", &["b"])).await;
        let mut watch = watch(&*store, &["a"], &["b"]).await;
        server.stop();
        certificates(&theirs);
        server.start_again();
        let fails = async |names: &[&str]| {
            copy(names);
            let published = store.publish(&record("a", &[]), Publish::Again).await;
            published.expect_err("it must be refused");
        };
        fails(&[]).await;
        // The server is trusted, and refuses our certificate.
        fails(&["ca.crt"]).await;
        // In the middle of the renewal: a certificate without its key.
        fails(&["client.crt"]).await;
        copy(&["client.key"]);
        publish_again(&*store, &record("a", &["c"])).await;
        begins_anew(&mut *watch).await;
        remove_pod(&*store, "a").await;
    });
}

/// More links than fit into one transaction.
#[test]
fn a_pod_with_very_many_peers() {
    let server = EtcdServer::start();
    let peers: Vec<String> = (0..300).map(|n| format!("peer{n}")).collect();
    let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
    block_on(async {
        let store = open(&server.url()).await;
        let hub = record("hub", &peers);
        publish(&*store, &hub).await;
        let claims: Vec<VniClaim> = hub.links.iter().map(any).collect();
        assert_eq!(claim_all(&*store, &claims).await.len(), 300);
        assert_eq!(server.keys().len(), 1 + 3 * 300 + 1);
        // A part of what a crash would leave undone.
        server.ctl(&["del", "/ratchet/peers/default/peer7/default/hub"]);
        assert_eq!(
            store.publish(&hub, Publish::Again).await.unwrap(),
            Published::Stored { created: 100 }
        );
        assert_eq!(names(&*store, &["peer7"]).await, ["hub"]);
        for peer in &peers {
            publish(&*store, &record(peer, &["hub"])).await;
        }
        remove_pod(&*store, "hub").await;
        assert_eq!(
            names(&*store, &["peer7"]).await,
            ["hub", "peer7"],
            "it is remembered"
        );
        for peer in &peers {
            remove_pod(&*store, peer).await;
        }
        assert_eq!(server.keys(), [""; 0]);
        // And in the other order: the hub is removed last, with all records that were kept because
        // of it.
        publish(&*store, &record("hub", &[])).await;
        for peer in &peers {
            publish(&*store, &record(peer, &["hub"])).await;
            remove_pod(&*store, peer).await;
        }
        assert_eq!(server.keys().len(), 1 + 2 * 300);
        remove_pod(&*store, "hub").await;
        assert_eq!(server.keys(), [""; 0]);
    });
}

/// A pod whose record has about this many bytes.
fn large(name: &str, bytes: usize) -> ratchet_model::PodRecord {
    let one = serde_json::to_string(&link(name, "peer00000"))
        .unwrap()
        .len();
    let peers: Vec<String> = (0..bytes / one).map(|n| format!("p{n:08}")).collect();
    record(name, &peers.iter().map(String::as_str).collect::<Vec<_>>())
}

/// In one answer, they would have more bytes than a message may have.
#[test]
fn many_large_records_are_read_in_parts() {
    const PODS: usize = 20;
    let server = EtcdServer::start();
    block_on(async {
        let store = open(&server.url()).await;
        let names: Vec<String> = (0..PODS).map(|n| format!("pod{n}")).collect();
        let body = serde_json::to_string(&large("podn", 1 << 20)).unwrap();
        for name in &names {
            let file = server.directory().join("body");
            fs::write(&file, body.replace("podn", name)).unwrap();
            server.put_file(&format!("/ratchet/pods/default/{name}"), &file);
        }
        let own: Vec<&str> = names.iter().map(String::as_str).collect();
        let facts = store.read(&keys(&own)).await.unwrap();
        assert_eq!(facts.records.len(), PODS);
        let found = store.located_on(&node("node1")).await.unwrap();
        assert_eq!(found.len(), PODS);
    });
}

#[test]
fn a_record_that_is_too_large_fails_alone() {
    let server = EtcdServer::start();
    block_on(async {
        let store = open(&server.url()).await;
        let large = large("a", 2 << 20);
        let error = store.publish(&large, Publish::New).await.unwrap_err();
        assert!(matches!(error, StoreError::TooLarge(_)), "{error:?}");
        assert_text(&error, &["fewer links", "--max-request-bytes"]);
        publish(&*store, &record("b", &[])).await;
        assert_eq!(names(&*store, &["a", "b"]).await, ["b"]);
    });
}

#[test]
fn keys_deleted_by_hand_do_no_harm() {
    let server = EtcdServer::start();
    block_on(async {
        let store = open(&server.url()).await;
        let links = publish_hub(&*store, "a", 4).await;
        for link in &links[..3] {
            claim(&*store, link).await;
        }
        server.ctl(&["del", "/ratchet/vnis"]);
        assert_eq!(claim(&*store, &links[3]).await, 14);
        server.ctl(&["del", &format!("/ratchet/links/{}", links[1].id())]);
        let grants = claim_all(&*store, &[fixed(&links[1], 12)]).await;
        assert_eq!(granted(&grants[&links[1].id()]), 12);
        server.ctl(&["put", "/ratchet/pods/default/a", "nonsense"]);
        let error = store.read(&keys(&["a"])).await.unwrap_err();
        assert_text(&error, &["/ratchet/pods/default/a", "etcdctl del"]);
    });
}

/// As an agent of an earlier release has written it.
#[test]
fn the_list_of_taken_vnis_stays_small() {
    let server = EtcdServer::start();
    block_on(async {
        let store = open(&server.url()).await;
        let links = publish_hub(&*store, "a", 3).await;
        let sparse: Vec<String> = (0..100_000).map(|n| (11 + 2 * n).to_string()).collect();
        let file = server.directory().join("sparse");
        fs::write(&file, sparse.join(",")).unwrap();
        server.put_file("/ratchet/vnis", &file);
        assert_eq!(claim(&*store, &links[0]).await, 12);
        let list = || server.ctl(&["get", "--print-value-only", "/ratchet/vnis"]);
        assert!(list().len() < 16_000, "{}", list().len());
        assert_eq!(claim(&*store, &links[1]).await, 14);
        // What it lists although it is free is found again when it is needed.
        server.ctl(&["put", "/ratchet/vnis", "11-999999"]);
        assert_eq!(claim(&*store, &links[2]).await, 11);
        assert_eq!(list().trim(), "11-12,14");
    });
}

/// etcd's own count of puts and deletes.
fn writes(server: &EtcdServer) -> u64 {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let count = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
    };
    count("etcd_mvcc_put_total ") + count("etcd_mvcc_delete_total ")
}

#[test]
fn a_thousand_links_are_three_writes_each_at_most() {
    const PODS: usize = 250;
    let server = EtcdServer::start();
    block_on(async {
        let store = open(&server.url()).await;
        let names: Vec<String> = (0..PODS).map(|n| format!("pod{n}")).collect();
        let records: Vec<_> = (0..PODS)
            .map(|n| {
                record(
                    &names[n],
                    &(1..=4)
                        .map(|k| names[(n + k) % PODS].as_str())
                        .collect::<Vec<_>>(),
                )
            })
            .collect();
        let before = writes(&server);
        let begun = Instant::now();
        for record in &records {
            publish(&*store, record).await;
            let claims: Vec<VniClaim> = record.links.iter().map(any).collect();
            claim_all(&*store, &claims).await;
        }
        let (written, keys) = (writes(&server) - before, server.keys().len());
        println!(
            "1,000 links between 250 pods: {written} writes, {keys} keys, {:?}",
            begun.elapsed()
        );
        assert!(written <= 3 * 1000 + 2 * 250, "{written}");
        let begun = Instant::now();
        for name in &names {
            remove_pod(&*store, name).await;
        }
        println!("250 removals: {:?}", begun.elapsed());
        assert_eq!(server.keys(), [""; 0]);
    });
}

#[test]
fn a_watch_with_very_many_keys() {
    let server = EtcdServer::start();
    block_on(async {
        let store = open(&server.url()).await;
        let peers: Vec<String> = (0..3000).map(|n| format!("peer{n}")).collect();
        let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
        let mut watch = store.watch().await.unwrap();
        assert_eq!(watch.next().await.unwrap(), Change::All);
        let begun = Instant::now();
        watch
            .interest(Interest {
                own: keys(&["a"]),
                peers: keys(&peers),
                ..Interest::default()
            })
            .await
            .unwrap();
        hear(&mut *watch, &peers).await;
        println!("3,000 keys are watched after {:?}", begun.elapsed());
        publish(&*store, &record("peer2999", &["a"])).await;
        hear(&mut *watch, &["a", "peer2999"]).await;
    });
}
