//! Several agents at once, in threads and in processes.

use std::{
    collections::BTreeSet,
    env,
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use ratchet_store::{Publish, Published, StoreUrl};

use super::{Bench, block_on, helpers::*};

const AGENTS: u32 = 8;
const LINKS: u32 = 60;

/// What the child processes need to know.
const URL: &str = "RATCHET_CONTRACT_URL";
const AGENT: &str = "RATCHET_CONTRACT_AGENT";

/// One agent's claims, a few at a time; answers with what it was given.
async fn claim_as(url: StoreUrl, agent: u32) -> Vec<u32> {
    let store = ratchet_store::open(&url).await.unwrap();
    let links: Vec<_> = (0..LINKS).map(|n| any(link_id(&format!("pod{agent}"), &n.to_string()))).collect();
    let mut given = Vec::new();
    for batch in links.chunks(4) {
        given.extend(store.claim_vnis(batch).await.unwrap().into_values().map(granted));
    }
    given
}

fn assert_unique_and_dense(given: &[u32]) {
    let unique: BTreeSet<u32> = given.iter().copied().collect();
    assert_eq!(unique.len(), given.len(), "one VNI was given twice");
    assert_eq!(unique, (11..11 + AGENTS * LINKS).collect(), "a hole was left");
}

pub async fn threads_claim_unique_vnis(bench: Arc<Bench>) {
    let threads: Vec<_> = (0..AGENTS)
        .map(|agent| {
            let url = bench.backend.url();
            thread::spawn(move || block_on(claim_as(url, agent)))
        })
        .collect();
    let given: Vec<u32> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    assert_unique_and_dense(&given);
}

pub async fn processes_claim_unique_vnis(bench: Arc<Bench>) {
    let children: Vec<_> = (0..AGENTS)
        .map(|agent| {
            Command::new(env::current_exe().unwrap())
                .args(["--exact", "child_process", "--nocapture"])
                .env(URL, bench.backend.url().to_string())
                .env(AGENT, agent.to_string())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut given = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        given.extend(text.split_whitespace().filter_map(|word| word.strip_prefix("vni=")?.parse::<u32>().ok()));
    }
    assert_unique_and_dense(&given);
}

/// In a child of the test above; else nothing.
pub fn child_process() {
    let (Ok(url), Ok(agent)) = (env::var(URL), env::var(AGENT)) else { return };
    for vni in block_on(claim_as(url.parse().unwrap(), agent.parse().unwrap())) {
        println!(" vni={vni}");
    }
}

pub async fn one_link_claimed_by_all_has_one_vni(bench: Arc<Bench>) {
    let links: Vec<_> = (0..20).map(|n| link_id("a", &n.to_string())).collect();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (url, links) = (bench.backend.url(), links.clone());
            thread::spawn(move || {
                block_on(async {
                    let store = ratchet_store::open(&url).await.unwrap();
                    let mut given = Vec::new();
                    for link in links {
                        given.push(claim(&*store, link).await);
                    }
                    given
                })
            })
        })
        .collect();
    let given: BTreeSet<Vec<u32>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(given, [(11..31).collect()].into());
}

/// Both pods of a link come at once on two nodes; each agent publishes, reads, claims, and is told of the other.
pub async fn two_agents_at_once(bench: Arc<Bench>) {
    let threads: Vec<_> = [("a", "b"), ("b", "a")]
        .into_iter()
        .map(|(own, peer)| {
            let url = bench.backend.url();
            thread::spawn(move || {
                block_on(async {
                    let store = ratchet_store::open(&url).await.unwrap();
                    let mut watch = watch(&*store, &[own], &[peer]).await;
                    publish(&*store, &record(own, &[peer])).await;
                    while !names(&*store, &[own]).await.contains(&peer.to_owned()) {
                        hear(&mut *watch, &[peer]).await;
                    }
                    claim(&*store, link_id("a", "b")).await
                })
            })
        })
        .collect();
    let given: Vec<u32> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(given, [11, 11]);
}

pub async fn many_publish_the_same_pod(bench: Arc<Bench>) {
    let threads: Vec<_> = (0..AGENTS)
        .map(|agent| {
            let url = bench.backend.url();
            thread::spawn(move || {
                block_on(async {
                    let store = ratchet_store::open(&url).await.unwrap();
                    publish(&*store, &record_in("a", &format!("sandbox{agent}"), 1, &[])).await
                })
            })
        })
        .collect();
    let created: BTreeSet<u64> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(created, (1..=u64::from(AGENTS)).collect(), "each is later than the one it replaced");
}

/// Each agent's pods link to all others'; whatever the order in which they come and go, nothing remains.
pub async fn all_come_and_go_at_once(bench: Arc<Bench>) {
    let threads: Vec<_> = (0..4)
        .map(|agent: u32| {
            let url = bench.backend.url();
            thread::spawn(move || {
                block_on(async {
                    let store = ratchet_store::open(&url).await.unwrap();
                    let own = format!("pod{agent}");
                    let peers: Vec<String> = (0..4).filter(|n| *n != agent).map(|n| format!("pod{n}")).collect();
                    let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
                    for round in 0..8 {
                        let record = record_in(&own, &format!("{own}-{round}"), round, &peers);
                        let created = publish(&*store, &record).await;
                        let again = store.publish(&record, Publish::Again).await.unwrap();
                        assert_eq!(again, Published::Stored { created });
                        for peer in &peers {
                            claim(&*store, link_id(&own, peer)).await;
                        }
                        store.depart(&record.pod, record.sandbox().unwrap()).await.unwrap();
                    }
                })
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(bench.backend.leftovers(), 0);
}
