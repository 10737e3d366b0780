//! What one agent receives from the store as the cluster grows.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use ratchet_model::{DeclaredLink, PodKey, declaration::declare};
use ratchet_store::{Change, Interest, Publish, Store, VniClaim, Watch};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::store::{open, record, runtime};
use crate::{
    Bench,
    line::Line,
    site::{Etcd, links_to, underlay},
};

/// The pods of a node.
const PODS: usize = 10;
/// The links that each pod declares to its counterpart on the next node; the counterpart on the
/// node before declares as many to it.
const LINKS: usize = 5;
/// The growth that counts as none.
const FLAT: f64 = 1.2;
/// How many calls run at the same time while the cluster is built.
const CONCURRENCY: usize = 32;
/// After this time without an event, all events have been received.
const SILENCE: Duration = Duration::from_millis(700);
/// The address by which the watched node reaches etcd.
const PROXY: &str = "10.92.0.254:2390";
const ETCD: &str = "10.92.0.254:2379";

/// What the watched node received.
#[derive(Debug, Clone, Copy, Default)]
struct Received {
    /// Bytes until it had read everything it needs.
    bytes_to_start: u64,
    /// Bytes while the others changed.
    bytes: u64,
    /// Pods reported while the others changed.
    events: u64,
}

/// See [`super::ROWS`].
pub fn cluster(bench: &Bench) -> Result<Vec<Line>> {
    let levels: &[usize] = bench.pick(&[10, 50], &[10, 100, 1000]);
    let mut lines = Vec::new();
    let mut first: Option<Received> = None;
    for nodes in levels.iter().copied() {
        let last = measure(bench, nodes)?;
        let Some(first) = first else {
            first = Some(last);
            continue;
        };
        for (what, unit, now, then) in [
            (
                "received at the start",
                "KiB",
                last.bytes_to_start,
                first.bytes_to_start,
            ),
            (
                "received while others change",
                "KiB",
                last.bytes,
                first.bytes,
            ),
            (
                "events while others change",
                "pods",
                last.events,
                first.events,
            ),
        ] {
            // Counts far below 2^52.
            #[allow(clippy::cast_precision_loss)]
            let [now, then] = [now, then].map(|count| {
                if unit == "KiB" {
                    count as f64 / 1024.0
                } else {
                    count as f64
                }
            });
            let work = format!("one agent of {nodes} nodes, against {}: {what}", levels[0]);
            lines.push(Line::at_most_times(work, unit, now, then, FLAT));
        }
    }
    Ok(lines)
}

fn measure(bench: &Bench, nodes: usize) -> Result<Received> {
    let dir = tempfile::tempdir_in(&bench.scratch)?;
    let underlay = underlay()?;
    let etcd = Etcd::start(&underlay, dir.path(), &["--unsafe-no-fsync"])?;
    underlay.inside(|| runtime()?.block_on(listen(&etcd.url, nodes)))
}

async fn listen(url: &str, nodes: usize) -> Result<Received> {
    let bytes = Arc::new(AtomicU64::new(0));
    tokio::spawn(proxy(TcpListener::bind(PROXY).await?, bytes.clone()));
    let store = open(url).await?;
    build(&store, nodes).await?;

    let watched = open(&format!("etcd://{PROXY}")).await?;
    let own: BTreeSet<PodKey> = (0..PODS).map(|pod| key(0, pod)).collect::<Result<_>>()?;
    let facts = watched.read(&own).await?;
    let peers = facts
        .records
        .keys()
        .filter(|pod| !own.contains(*pod))
        .cloned()
        .collect();
    let links = facts.records.values().flat_map(|record| &record.links);
    let claims: Vec<VniClaim> = links
        .filter(|link| own.contains(&link.local.pod) || own.contains(&link.remote.pod))
        .map(VniClaim::new)
        .collect();
    watched.claim_vnis(&"node0".parse()?, &claims).await?;
    let mut watch = watched.watch().await?;
    let interest = Interest {
        own,
        peers,
        ..Interest::default()
    };
    watch.interest(interest).await?;
    drain(&mut *watch).await?;
    let bytes_to_start = bytes.load(Relaxed);

    // A fixed number of neighbours, and one pod of every other node.
    let mut again: Vec<(usize, usize)> = (0..PODS)
        .flat_map(|pod| [(1, pod), (nodes - 1, pod)])
        .collect();
    again.extend((2..nodes - 1).map(|node| (node, 0)));
    publish(&store, nodes, again).await?;
    let events = drain(&mut *watch).await?;
    Ok(Received {
        bytes_to_start,
        bytes: bytes.load(Relaxed) - bytes_to_start,
        events,
    })
}

/// Receives events until none arrives within [`SILENCE`]. Returns the number of pods they name.
async fn drain(watch: &mut dyn Watch) -> Result<u64> {
    let mut events = 0;
    while let Ok(change) = tokio::time::timeout(SILENCE, watch.next()).await {
        events += match change? {
            Change::All => 1,
            Change::Pods(pods) => pods.len() as u64,
        };
    }
    Ok(events)
}

/// Publishes all pods and claims a VNI for each link.
async fn build(store: &Arc<dyn Store>, nodes: usize) -> Result<()> {
    let all = (0..nodes)
        .flat_map(|node| (0..PODS).map(move |pod| (node, pod)))
        .collect();
    publish(store, nodes, all).await?;
    for node in 0..nodes {
        let mut claims = Vec::new();
        for pod in 0..PODS {
            claims.extend(links(nodes, node, pod)?.iter().map(VniClaim::new));
        }
        let name = format!("node{node}").parse()?;
        store.claim_vnis(&name, &claims).await?;
    }
    Ok(())
}

async fn publish(store: &Arc<dyn Store>, nodes: usize, pods: Vec<(usize, usize)>) -> Result<()> {
    let mut running = JoinSet::new();
    for (node, pod) in pods {
        let (store, record) = (
            store.clone(),
            record(&name(node, pod), node, links(nodes, node, pod)?)?,
        );
        running.spawn(async move { store.publish(&record, Publish::New).await.map(drop) });
        if running.len() >= CONCURRENCY {
            running.join_next().await.context("no call runs")???;
        }
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}

fn name(node: usize, pod: usize) -> String {
    format!("p{node}-{pod}")
}

fn key(node: usize, pod: usize) -> Result<PodKey> {
    Ok(PodKey::new("default", &name(node, pod))?)
}

/// What a pod declares: links to its counterpart on the next node. The interfaces are l0, l1, …
/// here and r0, r1, … there, so that they do not collide with the links the counterpart declares.
fn links(nodes: usize, node: usize, pod: usize) -> Result<Vec<DeclaredLink>> {
    let peer = name((node + 1) % nodes, pod);
    let text = links_to(&peer, LINKS)
        .to_string()
        .replace(&format!("{peer}/l"), &format!("{peer}/r"));
    let annotations = [("ratchet.dev/links".to_owned(), text)].into();
    let declaration = declare(&key(node, pod)?, &Default::default(), &annotations)?
        .context("the annotation declares no links")?;
    Ok(declaration.links)
}

/// Forwards connections to etcd and counts the bytes in both directions.
async fn proxy(listener: TcpListener, count: Arc<AtomicU64>) -> Result<()> {
    loop {
        let (near, _) = listener.accept().await?;
        let far = TcpStream::connect(ETCD).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        tokio::spawn(forward(near_in, far_out, count.clone()));
        tokio::spawn(forward(far_in, near_out, count.clone()));
    }
}

async fn forward(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    count: Arc<AtomicU64>,
) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(to.shutdown().await?);
        }
        count.fetch_add(length as u64, Relaxed);
        to.write_all(&buffer[..length]).await?;
    }
}
