//! The controller's life: wait for the Lease, watch, plan, write.

use std::{
    io,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use ratchet_kubernetes::Source;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::UnboundedReceiver,
};
use tracing_subscriber::EnvFilter;

use crate::{
    Memory, Options,
    lease::Lease,
    plan,
    state::{News, State},
    watch,
    write::Writer,
};

/// After the first news, others are waited for: they come together.
const GATHER: Duration = Duration::from_millis(20);

/// The least time between two plans.
const BETWEEN_PLANS: Duration = Duration::from_millis(100);

/// Without news, a plan is made so often.
const AT_LEAST: Duration = Duration::from_secs(60);

/// Debug messages of the HTTP and TLS libraries do not help to debug Ratchet.
const QUIET: &str = "h2=info,hyper=info,hyper_util=info,tower=info,rustls=info";

/// Runs the controller until SIGTERM or SIGINT.
///
/// # Errors
/// When the API cannot be used, or another controller leads.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", options.log))
        .with_context(|| format!("log level {:?}", options.log))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = Source::find(&options.kubeconfig)?.client().await?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        lead(client, options, &identity()?, stop).await
    })
}

/// The name by which the Lease knows this process.
fn identity() -> anyhow::Result<String> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| path.to_owned());
    let host = read("/proc/sys/kernel/hostname")?;
    let random = read("/proc/sys/kernel/random/uuid")?;
    Ok(format!("{}_{}", host.trim(), random.trim()))
}

/// Waits for the Lease and works while it has it, until `stop`.
///
/// # Errors
/// When the Lease is lost: then another process should start from nothing.
pub async fn lead(
    client: Client,
    options: &Options,
    identity: &str,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let identity = identity.to_owned();
    let mut lease = Lease::new(client.clone(), &options.namespace, &options.lease, identity);
    let mut stop = std::pin::pin!(stop);
    tokio::select! {
        () = lease.acquire() => {}
        () = &mut stop => return Ok(()),
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        lease = options.lease,
        "this controller leads"
    );
    let lost = tokio::select! {
        why = lease.keep() => Some(why),
        () = work(client, options) => None,
        () = stop => None,
    };
    match lost {
        Some(why) => bail!("{why}; another controller leads"),
        None => lease.release().await,
    }
    Ok(())
}

/// Watches, plans and writes. Ends only if the watches do.
async fn work(client: Client, options: &Options) {
    let config = options.config();
    let (_watches, mut news) = watch::all(&client, config.quotas);
    let mut writer = Writer::new(client, options.writes_per_second, options.parallel);
    let mut state = State::default();
    let mut memory = Memory::default();
    let mut again = AT_LEAST;
    loop {
        if !hear(&mut news, &mut state, again).await {
            return;
        }
        if !state.is_complete() {
            continue;
        }
        let started = Instant::now();
        let plan = plan(&state.known, &config, &mut memory, Timestamp::now());
        let planned = started.elapsed();
        if !plan.is_empty() {
            tracing::debug!(
                blocks = plan.blocks.len(),
                links = plan.links.len(),
                conditions = plan.accepted.len(),
                topologies = plan.topologies.len(),
                milliseconds = planned.as_millis(),
                "planned"
            );
        }
        again = plan
            .again
            .and_then(|again| again.try_into().ok())
            .map_or(AT_LEAST, |again: Duration| again.min(AT_LEAST));
        let written = writer.write(plan).await;
        if !written.news.is_empty() {
            again = again.min(BETWEEN_PLANS);
        }
        again = written.again.unwrap_or(again).min(again);
        written.news.into_iter().for_each(|news| news(&mut state));
        for (vni, link) in written.orphans {
            memory.confirm(vni, link);
        }
        // Planning takes half of the time at most.
        let rest = BETWEEN_PLANS.saturating_sub(started.elapsed());
        tokio::time::sleep(rest.max(planned)).await;
    }
}

/// Waits for a change of what is known, or for the time. Returns false when there is no more news.
async fn hear(news: &mut UnboundedReceiver<News>, state: &mut State, time: Duration) -> bool {
    let end = tokio::time::Instant::now() + time;
    loop {
        match tokio::time::timeout_at(end, news.recv()).await {
            Ok(None) => return false,
            Ok(Some(news)) => news(state),
            Err(_) => return true,
        }
        while let Ok(news) = news.try_recv() {
            news(state);
        }
        if state.is_complete() && state.has_changed() {
            break;
        }
    }
    tokio::time::sleep(GATHER).await;
    while let Ok(news) = news.try_recv() {
        news(state);
    }
    // What came meanwhile is in the next plan.
    state.has_changed();
    true
}
