//! Several agents at once, in threads and in processes.

use std::{
    collections::BTreeSet,
    env,
    ops::Range,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Instant,
};

use ratchet_model::Vni;
use ratchet_store::{Publish, Published, StoreUrl};

use super::{Bench, block_on, helpers::*};

const AGENTS: u32 = 8;
/// Of one thread's pod, and of one process's.
const LINKS: u32 = 60;
const MANY_LINKS: u32 = 500;

/// What the child processes need to know.
const URL: &str = "RATCHET_CONTRACT_URL";
const AGENT: &str = "RATCHET_CONTRACT_AGENT";

/// One agent's pod comes, and its links' VNIs are claimed, some at a time; answers with what it was
/// given.
async fn claim_as(url: StoreUrl, agent: u32, links: u32, at_a_time: usize) -> Vec<u32> {
    let store = ratchet_store::open(&url).await.unwrap();
    let links = publish_hub(&*store, &format!("pod{agent}"), links).await;
    let mut given = Vec::new();
    for batch in links.chunks(at_a_time) {
        let claims: Vec<_> = batch.iter().map(any).collect();
        given.extend(
            store
                .claim_vnis(&claims)
                .await
                .unwrap()
                .into_values()
                .map(granted),
        );
    }
    given
}

fn assert_unique_and_dense(given: &[u32], count: u32) {
    let unique: BTreeSet<u32> = given.iter().copied().collect();
    assert_eq!(unique.len(), given.len(), "one VNI was given twice");
    assert_eq!(unique, (11..11 + count).collect(), "a hole was left");
}

pub async fn threads_claim_unique_vnis(bench: Arc<Bench>) {
    let threads: Vec<_> = (0..AGENTS)
        .map(|agent| {
            let url = bench.backend.url();
            thread::spawn(move || block_on(claim_as(url, agent, LINKS, 4)))
        })
        .collect();
    let given: Vec<u32> = threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    assert_unique_and_dense(&given, AGENTS * LINKS);
}

/// 500 links each of eight processes at once; half of them go, and four more processes are given
/// what these had.
pub async fn processes_claim_unique_vnis(bench: Arc<Bench>) {
    let begun = Instant::now();
    let given = claim_in_processes(&bench, 0..AGENTS);
    println!("{AGENTS} x {MANY_LINKS} claims: {:?}", begun.elapsed());
    assert_unique_and_dense(&given, AGENTS * MANY_LINKS);

    let store = bench.open().await;
    for agent in (0..AGENTS).step_by(2) {
        remove_pod(&*store, &format!("pod{agent}")).await;
    }
    let kept = (1..AGENTS)
        .step_by(2)
        .map(|agent| key(&format!("pod{agent}")))
        .collect();
    let kept = store
        .read(&kept)
        .await
        .unwrap()
        .vnis
        .into_values()
        .map(Vni::number);
    let again = claim_in_processes(&bench, AGENTS..AGENTS + AGENTS / 2);
    let all: Vec<u32> = kept.chain(again).collect();
    assert_unique_and_dense(&all, AGENTS * MANY_LINKS);

    for agent in (1..AGENTS).step_by(2).chain(AGENTS..AGENTS + AGENTS / 2) {
        remove_pod(&*store, &format!("pod{agent}")).await;
    }
    assert_eq!(bench.backend.leftovers(), 0);
    assert_eq!(
        claim_as(bench.backend.url(), 0, 1, 1).await,
        [11],
        "all are free again"
    );
}

/// One process for each of these agents, all at once; answers with what they were given.
fn claim_in_processes(bench: &Bench, agents: Range<u32>) -> Vec<u32> {
    let children: Vec<_> = agents
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
        given.extend(
            text.split_whitespace()
                .filter_map(|word| word.strip_prefix("vni=")?.parse::<u32>().ok()),
        );
    }
    given
}

/// In a child of a test above; else nothing.
pub fn child_process() {
    let (Ok(url), Ok(agent)) = (env::var(URL), env::var(AGENT)) else {
        return;
    };
    for vni in block_on(claim_as(
        url.parse().unwrap(),
        agent.parse().unwrap(),
        MANY_LINKS,
        25,
    )) {
        println!(" vni={vni}");
    }
}

pub async fn one_link_claimed_by_all_has_one_vni(bench: Arc<Bench>) {
    let links = publish_hub(&*bench.open().await, "a", 20).await;
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (url, links) = (bench.backend.url(), links.clone());
            thread::spawn(move || {
                block_on(async {
                    let store = ratchet_store::open(&url).await.unwrap();
                    let mut given = Vec::new();
                    for link in links {
                        given.push(claim(&*store, &link).await);
                    }
                    given
                })
            })
        })
        .collect();
    let given: BTreeSet<Vec<u32>> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    assert_eq!(given, [(11..31).collect()].into());
}

/// Both pods of a link come at once on two nodes; each agent publishes, reads, claims, and is told
/// of the other.
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
                    claim(&*store, &link("a", "b")).await
                })
            })
        })
        .collect();
    let given: Vec<u32> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
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
    let created: BTreeSet<u64> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    assert_eq!(
        created,
        (1..=u64::from(AGENTS)).collect(),
        "each is later than the one it replaced"
    );
}

/// Each agent's pods link to all others'; whatever the order in which they come and go, nothing
/// remains.
pub async fn all_come_and_go_at_once(bench: Arc<Bench>) {
    let threads: Vec<_> = (0..4)
        .map(|agent: u32| {
            let url = bench.backend.url();
            thread::spawn(move || {
                block_on(async {
                    let store = ratchet_store::open(&url).await.unwrap();
                    let own = format!("pod{agent}");
                    let peers: Vec<String> = (0..4)
                        .filter(|n| *n != agent)
                        .map(|n| format!("pod{n}"))
                        .collect();
                    let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
                    for round in 0..8 {
                        let record = record_in(&own, &format!("{own}-{round}"), round, &peers);
                        let created = publish(&*store, &record).await;
                        let again = store.publish(&record, Publish::Again).await.unwrap();
                        assert_eq!(again, Published::Stored { created });
                        for peer in &peers {
                            claim(&*store, &link(&own, peer)).await;
                        }
                        store
                            .remove_pod(&record.pod, record.sandbox().unwrap())
                            .await
                            .unwrap();
                    }
                })
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(bench.backend.leftovers(), 0);
}
