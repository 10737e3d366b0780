//! Several agents at once, each in its own thread.

use std::{collections::BTreeSet, sync::Arc, thread};

use ratchet_store::{Publish, Published, Store, VniGrant};

use crate::{Backend, block_on, helpers::*};

const AGENTS: u32 = 8;
/// The links of one agent's pod.
const LINKS: u32 = 60;

/// Runs several agents at once, each in its own thread and with its own store. Returns what they
/// return.
fn in_threads<B: Backend, I: Send + 'static, T: Send + 'static, F: Future<Output = T>>(
    backend: &Arc<B>,
    agents: impl IntoIterator<Item = I>,
    run: impl Fn(Arc<dyn Store>, I) -> F + Copy + Send + 'static,
) -> Vec<T> {
    let threads: Vec<_> = agents
        .into_iter()
        .map(|agent| {
            let backend = backend.clone();
            thread::spawn(move || block_on(async { run(backend.open().await, agent).await }))
        })
        .collect();
    threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect()
}

pub async fn threads_claim_unique_vnis(backend: Arc<impl Backend>) {
    let given = in_threads(&backend, 0..AGENTS, async |store, agent| {
        claim_for_hub(&*store, &format!("pod{agent}"), LINKS, 4).await
    });
    assert_unique_and_dense(&given.concat(), AGENTS * LINKS);
}

pub async fn one_link_claimed_by_all_has_one_vni(backend: Arc<impl Backend>) {
    const COUNT: u32 = 20;
    publish_hub(&*backend.open().await, "a", COUNT).await;
    let given = in_threads(&backend, 0..4, async |store, _| {
        let mut given = Vec::new();
        for peer in 0..COUNT {
            given.push(claim(&*store, &link("a", &peer.to_string())).await);
        }
        given
    });
    assert_eq!(
        given.into_iter().collect::<BTreeSet<_>>(),
        [(11..31).collect()].into()
    );
}

/// Both pods of a link start at the same time on two nodes. Each agent publishes, reads, claims,
/// and its watch reports the other.
pub async fn two_agents_at_once(backend: Arc<impl Backend>) {
    let given = in_threads(
        &backend,
        [("a", "b"), ("b", "a")],
        async |store, (own, peer)| {
            let mut watch = watch(&*store, &[own], &[peer]).await;
            publish(&*store, &record(own, &[peer])).await;
            while !names(&*store, &[own]).await.contains(&peer.to_owned()) {
                hear(&mut *watch, &[peer]).await;
            }
            claim(&*store, &link("a", "b")).await
        },
    );
    assert_eq!(given, [11, 11]);
}

pub async fn many_publish_the_same_pod(backend: Arc<impl Backend>) {
    let created = in_threads(&backend, 0..AGENTS, async |store, agent| {
        publish(&*store, &record_in("a", &format!("sandbox{agent}"), 1, &[])).await
    });
    assert_eq!(
        created.into_iter().collect::<BTreeSet<_>>(),
        (1..=u64::from(AGENTS)).collect(),
        "each is later than the one it replaced"
    );
}

/// Each agent's pods are linked to all others'. In every order of publications and removals,
/// nothing is left.
pub async fn all_come_and_go_at_once(backend: Arc<impl Backend>) {
    in_threads(&backend, 0..4_u32, async |store, agent| {
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
    });
    release_all(&*backend.open().await).await;
    assert_eq!(backend.leftovers(), 0);
}

/// Claims during removals: in every order, no VNI is left.
pub async fn claims_during_removals_leave_nothing(backend: Arc<impl Backend>) {
    let claimers: Vec<_> = (0..2)
        .map(|_| {
            let backend = backend.clone();
            thread::spawn(move || {
                block_on(async {
                    let store = backend.open().await;
                    let links = ["b", "c", "d"].map(|peer| any(&link("a", peer)));
                    let mut refused = 0;
                    while refused < 200 {
                        let grants = claim_all(&*store, &links).await;
                        refused += grants
                            .values()
                            .filter(|grant| **grant == VniGrant::NotDeclared)
                            .count();
                    }
                })
            })
        })
        .collect();
    let store = backend.open().await;
    let mut round = 0;
    while !claimers.iter().all(thread::JoinHandle::is_finished) {
        round += 1;
        let pod = record_in("a", &format!("a-{round}"), round, &["b", "c", "d"]);
        publish(&*store, &pod).await;
        store
            .remove_pod(&pod.pod, pod.sandbox().unwrap())
            .await
            .unwrap();
    }
    claimers
        .into_iter()
        .for_each(|claimer| claimer.join().unwrap());
    release_all(&*backend.open().await).await;
    assert_eq!(backend.leftovers(), 0);
}
