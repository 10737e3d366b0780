//! What one agent hears as the cluster grows.

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
    site::{Etcd, links_to},
    world::Netns,
};

/// Pods of a node, and links that each declares with its counterpart on the next node: as many come
/// from the node before.
const PODS: usize = 10;
const LINKS: usize = 5;
/// What is called flat.
const FLAT: f64 = 1.2;
/// How many calls are under way at once while the cluster is built.
const AT_ONCE: usize = 32;
/// No news for this long: all has been heard.
const SILENCE: Duration = Duration::from_millis(700);
/// Where the watched node finds etcd.
const PROXY: &str = "10.92.0.254:2390";
const ETCD: &str = "10.92.0.254:2379";

/// What the watched node heard.
#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    /// Bytes until it knew all it needs.
    bytes_to_start: u64,
    /// Bytes and pods reported while the others changed.
    bytes: u64,
    events: u64,
}

/// See [`super::ROWS`].
pub fn cluster(bench: &Bench) -> Result<Vec<Line>> {
    let levels: &[usize] = bench.pick(&[10, 50], &[10, 100, 1000]);
    let mut lines = Vec::new();
    let mut first: Option<Heard> = None;
    for nodes in levels.iter().copied() {
        let heard = hear(bench, nodes)?;
        let Some(first) = first else {
            first = Some(heard);
            continue;
        };
        for (what, unit, now, then) in [
            (
                "heard to start",
                "KiB",
                heard.bytes_to_start,
                first.bytes_to_start,
            ),
            ("heard while others change", "KiB", heard.bytes, first.bytes),
            (
                "events while others change",
                "pods",
                heard.events,
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

fn hear(bench: &Bench, nodes: usize) -> Result<Heard> {
    let dir = tempfile::tempdir_in(&bench.scratch)?;
    let underlay = Netns::new("underlay")?;
    underlay.sh(
        "ip link add br0 type bridge && ip addr add 10.92.0.254/16 dev br0 && ip link set br0 up",
    )?;
    let etcd = Etcd::start(&underlay, dir.path(), &["--unsafe-no-fsync"])?;
    underlay.inside(|| runtime()?.block_on(listen(&etcd.url, nodes)))
}

async fn listen(url: &str, nodes: usize) -> Result<Heard> {
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
    watched.claim_vnis(&claims).await?;
    let mut watch = watched.watch().await?;
    watch.interest(Interest { own, peers }).await?;
    drain(&mut *watch).await?;
    let bytes_to_start = bytes.load(Relaxed);

    // A fixed number of neighbours, and one pod of every other node.
    let mut again: Vec<(usize, usize)> = (0..PODS)
        .flat_map(|pod| [(1, pod), (nodes - 1, pod)])
        .collect();
    again.extend((2..nodes - 1).map(|node| (node, 0)));
    publish(&store, nodes, again).await?;
    let events = drain(&mut *watch).await?;
    Ok(Heard {
        bytes_to_start,
        bytes: bytes.load(Relaxed) - bytes_to_start,
        events,
    })
}

/// Hears all there is, until nothing comes any more; gives how many pods it was about.
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

/// Publishes all pods and numbers all links.
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
        store.claim_vnis(&claims).await?;
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
        if running.len() >= AT_ONCE {
            running.join_next().await.context("one runs")???;
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

/// What a pod declares: links to its counterpart on the next node, under names that are its own at
/// both ends.
fn links(nodes: usize, node: usize, pod: usize) -> Result<Vec<DeclaredLink>> {
    let peer = name((node + 1) % nodes, pod);
    let text = links_to(&peer, LINKS)
        .to_string()
        .replace(&format!("{peer}/l"), &format!("{peer}/r"));
    let annotations = [("ratchet.dev/links".to_owned(), text)].into();
    let declaration = declare(&key(node, pod)?, &Default::default(), &annotations)?
        .context("it declares links")?;
    Ok(declaration.links)
}

/// Passes everything on to etcd and counts it, both ways.
async fn proxy(listener: TcpListener, count: Arc<AtomicU64>) -> Result<()> {
    loop {
        let (near, _) = listener.accept().await?;
        let far = TcpStream::connect(ETCD).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        tokio::spawn(pass(near_in, far_out, count.clone()));
        tokio::spawn(pass(far_in, near_out, count.clone()));
    }
}

async fn pass(
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
