//! What the SQLite store costs. Measures, asserts little, and takes its time: `cargo test --release
//! -p ratchet-store --test sqlite_cost -- --ignored --nocapture --test-threads 1`
#![allow(
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "these are tests: a panic is how they fail"
)]

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use ratchet_model::PodKey;
use ratchet_store::{Interest, Store, StoreUrl, VniClaim};
use ratchet_store_contract::{block_on, helpers::*};
use tokio::time;

async fn open_in(directory: &tempfile::TempDir) -> Arc<dyn Store> {
    open(&StoreUrl::Sqlite(directory.path().join("ratchet.db"))).await
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.try_into().unwrap())
}

#[test]
#[ignore = "measures for 20 s"]
fn an_idle_watch() {
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let store = open_in(&directory).await;
        let mut watch = watch(&*store, &["a"], &["b"]).await;
        let _settled = time::timeout(Duration::from_secs(1), watch.next()).await;
        let (begun, before) = (Instant::now(), cpu());
        assert!(
            time::timeout(Duration::from_secs(20), watch.next())
                .await
                .is_err()
        );
        let used = cpu() - before;
        println!(
            "idle: {used:?} CPU in {:?}: {:.4} % of a core",
            begun.elapsed(),
            100.0 * used.as_secs_f64() / begun.elapsed().as_secs_f64()
        );
    });
}

#[test]
#[ignore = "measures"]
fn how_soon_changes_are_seen() {
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let (ours, theirs) = (open_in(&directory).await, open_in(&directory).await);
        let mut watch = watch(&*ours, &["a"], &["b"]).await;
        let mut delays = Vec::new();
        for round in 0..200 {
            time::sleep(Duration::from_millis(round % 37)).await;
            let begun = Instant::now();
            publish(&*theirs, &record("b", &[])).await;
            hear(&mut *watch, &["b"]).await;
            delays.push(begun.elapsed());
        }
        delays.sort_unstable();
        println!(
            "publish to seen: median {:?}, p99 {:?}, max {:?}",
            delays[100], delays[198], delays[199]
        );
    });
}

#[test]
#[ignore = "measures"]
fn ten_thousand_links() {
    const PODS: usize = 1000;
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let store = open_in(&directory).await;
        let names: Vec<String> = (0..PODS).map(|n| format!("pod{n}")).collect();
        let records: Vec<_> = (0..PODS)
            .map(|n| {
                record(
                    &names[n],
                    &(1..=10)
                        .map(|k| names[(n + k) % PODS].as_str())
                        .collect::<Vec<_>>(),
                )
            })
            .collect();
        let all: BTreeSet<PodKey> = records.iter().map(|record| record.pod.clone()).collect();
        let mut watch = store.watch().await.unwrap();
        watch.next().await.unwrap();
        watch
            .interest(Interest {
                own: all.clone(),
                peers: all.clone(),
                ..Interest::default()
            })
            .await
            .unwrap();
        watch.next().await.unwrap();

        let begun = Instant::now();
        for record in &records {
            publish(&*store, record).await;
        }
        println!(
            "publish, a pod with 10 links: {:?}",
            begun.elapsed() / u32::try_from(PODS).unwrap()
        );

        let links: Vec<VniClaim> = records
            .iter()
            .flat_map(|record| &record.links)
            .map(any)
            .collect();
        let begun = Instant::now();
        for one in &links[..9000] {
            claim_all(&*store, std::slice::from_ref(one)).await;
        }
        println!(
            "claim, one after the other, of 9,000: {:?} each",
            begun.elapsed() / 9000
        );
        let begun = Instant::now();
        claim_all(&*store, &links[9000..9001]).await;
        println!("claim with 9,000 taken: {:?}", begun.elapsed());
        let begun = Instant::now();
        claim_all(&*store, &links).await;
        println!(
            "claim of 10,000, 999 of them new, in one batch: {:?}",
            begun.elapsed()
        );

        let begun = Instant::now();
        watch.next().await.unwrap();
        println!(
            "look over 1,000 own pods and 10,000 links: {:?}",
            begun.elapsed()
        );
        let begun = Instant::now();
        let facts = store.read(&all).await.unwrap();
        println!(
            "read of all: {:?}, {} records, {} VNIs",
            begun.elapsed(),
            facts.records.len(),
            facts.vnis.len()
        );
        let begun = Instant::now();
        open_in(&directory).await;
        println!("open: {:?}", begun.elapsed());
        let begun = Instant::now();
        for name in &names {
            remove_pod(&*store, name).await;
        }
        println!(
            "remove_pod: {:?} each",
            begun.elapsed() / u32::try_from(PODS).unwrap()
        );
        assert!(store.read(&all).await.unwrap().records.is_empty());
    });
}

#[test]
#[ignore = "measures"]
fn two_pods_with_1500_links() {
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let store = open_in(&directory).await;
        let mut one = record("a", &["b"]);
        one.links = (0..1500)
            .map(|n| {
                let mut link = link("a", "b");
                link.local.interface = format!("eth{n}").parse().unwrap();
                link.remote.interface = format!("eth{n}").parse().unwrap();
                link
            })
            .collect();
        let mut watch = watch(&*store, &["a", "b"], &[]).await;
        let begun = Instant::now();
        publish(&*store, &one).await;
        println!("publish: {:?}", begun.elapsed());
        hear(&mut *watch, &["a"]).await;
        println!("and heard: {:?}", begun.elapsed());
        let claims: Vec<VniClaim> = one.links.iter().map(any).collect();
        let begun = Instant::now();
        claim_all(&*store, &claims).await;
        println!("claim: {:?}", begun.elapsed());
        hear(&mut *watch, &["a", "b"]).await;
        println!("and heard: {:?}", begun.elapsed());
        let begun = Instant::now();
        store.read(&keys(&["a", "b"])).await.unwrap();
        println!("read: {:?}", begun.elapsed());
    });
}
