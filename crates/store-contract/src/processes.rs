//! Several agents at once, each in its own process.

use std::{
    env,
    ops::Range,
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use ratchet_model::Vni;
use ratchet_store::StoreUrl;

use crate::{Shared, block_on, helpers::*};

const AGENTS: u32 = 8;
/// The links of one agent's pod.
const LINKS: u32 = 500;

/// What the child processes need to know.
const URL: &str = "RATCHET_CONTRACT_URL";
const AGENT: &str = "RATCHET_CONTRACT_AGENT";

/// Eight processes claim VNIs for 500 links each, at the same time. Half of the links are removed,
/// and four more processes get the freed VNIs.
pub async fn processes_claim_unique_vnis(backend: Arc<impl Shared>) {
    let begun = Instant::now();
    let given = claim_in_processes(&backend.url(), 0..AGENTS);
    println!("{AGENTS} x {LINKS} claims: {:?}", begun.elapsed());
    assert_unique_and_dense(&given, AGENTS * LINKS);

    let store = backend.open().await;
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
    let again = claim_in_processes(&backend.url(), AGENTS..AGENTS + AGENTS / 2);
    let all: Vec<u32> = kept.chain(again).collect();
    assert_unique_and_dense(&all, AGENTS * LINKS);

    for agent in (1..AGENTS).step_by(2).chain(AGENTS..AGENTS + AGENTS / 2) {
        remove_pod(&*store, &format!("pod{agent}")).await;
    }
    assert_eq!(backend.leftovers(), 0);
    assert_eq!(
        claim_for_hub(&*store, "pod0", 1, 1).await,
        [11],
        "all are free again"
    );
}

/// Runs one process for each of these agents, all at once. Returns the VNIs that they got.
fn claim_in_processes(url: &StoreUrl, agents: Range<u32>) -> Vec<u32> {
    let children: Vec<_> = agents
        .map(|agent| {
            Command::new(env::current_exe().unwrap())
                .args(["--exact", "child_process", "--nocapture"])
                .env(URL, url.to_string())
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

/// In a child of the test above: one agent. Otherwise does nothing.
pub fn child_process() {
    let (Ok(url), Ok(agent)) = (env::var(URL), env::var(AGENT)) else {
        return;
    };
    let given = block_on(async {
        let store = open(&url.parse().unwrap()).await;
        claim_for_hub(&*store, &format!("pod{agent}"), LINKS, 25).await
    });
    for vni in given {
        println!(" vni={vni}");
    }
}
