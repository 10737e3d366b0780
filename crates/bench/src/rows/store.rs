//! From a change in the store to the interface on the other node.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use ratchet_model::{DeclaredLink, Location, Mtu, PodKey, PodRecord};
use ratchet_store::{Publish, Store, StoreUrl};

use crate::{
    Bench,
    line::Line,
    route::Arrival,
    site::{Pod, Site, Storage, links_to},
    stats::Sample,
};

/// The limit, in ms.
const LIMIT: f64 = 20.0;

/// See [`super::ROWS`].
pub fn event(bench: &Bench) -> Result<Vec<Line>> {
    let site = Site::new(bench, 1, Storage::Etcd)?;
    let url = site.etcd.as_ref().context("etcd")?.url.clone();
    // etcd is on the underlay, so the other node's write is made there, too.
    let times = site.underlay.inside(|| {
        let runtime = runtime()?;
        let store = runtime.block_on(open(&url))?;
        let mut times = Sample::default();
        for number in 0..bench.rounds(30, 500) {
            let peer = format!("b{number}");
            let pod = Pod::with_links(&format!("a{number}"), links_to(&peer, 1))?;
            site.nodes[0].ratchet("ADD", &pod)?;
            let arrival = Arrival::of(&pod.netns)?;
            let record = record(&peer, 2, Vec::new())?;
            // The time starts with the answer: the write itself is the other node's work.
            let answered = {
                runtime.block_on(store.publish(&record, Publish::New))?;
                Instant::now()
            };
            arrival.wait()?;
            times.add(answered.elapsed());
            site.nodes[0].ratchet("DEL", &pod)?;
            let sandbox = record.sandbox().context("a sandbox")?;
            runtime.block_on(store.remove_pod(&record.pod, sandbox))?;
        }
        Ok(times)
    })?;
    let line = |name: &str, part| {
        let work = format!(
            "store event to interface up on the other node, {name} of {}",
            times.len()
        );
        Line::at_most(work, "ms", times.percentile(part), LIMIT)
    };
    Ok(vec![line("p50", 0.5), line("p99", 0.99)])
}

/// A tokio runtime for the calls of a store.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// Opens a store.
pub(super) async fn open(url: &str) -> Result<Arc<dyn Store>> {
    Ok(ratchet_store::open(&url.parse::<StoreUrl>()?.into()).await?)
}

/// The record of a pod on the node of this number.
pub(super) fn record(name: &str, node: usize, links: Vec<DeclaredLink>) -> Result<PodRecord> {
    let Ok(mtu) = Mtu::try_from(1450) else {
        bail!("expected an MTU, found 1450")
    };
    let created = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_nanos();
    let location = Location {
        node: format!("node{node}").parse()?,
        vtep: format!("10.92.{}.{}", 1 + node / 250, 1 + node % 250).parse()?,
        sandbox: format!("s-{name}-{created}").parse()?,
        mtu,
        leaving: false,
    };
    Ok(PodRecord::new(
        PodKey::new("default", name)?,
        Some(location),
        u64::try_from(created)?,
        links,
    ))
}
