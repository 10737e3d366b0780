//! The controller's life: wait for the Lease, watch, plan, write.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use ratchet_health::Server;
use ratchet_kubernetes::{Reporter, Source};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::UnboundedReceiver,
    task::JoinSet,
};
use tracing_subscriber::EnvFilter;

use crate::{
    Config, Memory, Options, Warning,
    health::{self, Links, Numbers, Pulse},
    lease::Lease,
    plan,
    state::{News, State},
    taint, watch,
    write::Writer,
};

/// After the first news, others are waited for: they come together.
const GATHER: Duration = Duration::from_millis(20);

/// Before the first plan: each kind was listed at another moment, and a Link may have a pod that
/// was created after the pods were listed.
const CATCH_UP: Duration = Duration::from_millis(500);

/// The least time between two plans.
const BETWEEN_PLANS: Duration = Duration::from_millis(100);

/// Without news, a plan is made so often.
const AT_LEAST: Duration = Duration::from_secs(60);

/// The component that events name as their source.
const COMPONENT: &str = "ratchet-controller";

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
    let pulse = Pulse::default();
    let health = Arc::new(pulse.clone());
    let serve = |address| Server::start(address, health);
    let _server = options.health.map(serve).transpose()?;
    let mut lease = Lease::new(
        client.clone(),
        &options.namespace,
        &options.lease,
        identity.to_owned(),
        pulse.clone(),
    );
    let mut stop = std::pin::pin!(stop);
    tokio::select! {
        () = lease.acquire() => {}
        () = &mut stop => {
            lease.release().await;
            return Ok(());
        }
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        lease = options.lease,
        "this controller leads"
    );
    pulse.lead();
    let lost = tokio::select! {
        why = lease.keep() => Some(format!("{why}; another controller leads")),
        why = work(client, options, identity, pulse) => Some(why),
        () = stop => None,
    };
    match lost {
        Some(why) => bail!(why),
        None => lease.release().await,
    }
    Ok(())
}

/// Watches, plans and writes. Returns why it cannot any more.
async fn work(client: Client, options: &Options, identity: &str, pulse: Pulse) -> String {
    let (mut watches, news) = watch::all(&client, options.config().quotas, options.meshnet);
    watches.spawn(taint::run(client.clone(), options.namespace.clone()));
    let worker = Worker {
        config: options.config(),
        reporter: Reporter::new(client.clone(), COMPONENT, identity),
        posting: JoinSet::new(),
        writer: Writer::new(client, options.writes_per_second, options.parallel),
        news,
        state: State::new(options.meshnet),
        memory: Memory::default(),
        pulse,
    };
    tokio::select! {
        ended = watches.join_next() => format!("a watch has ended: {ended:?}"),
        () = worker.work() => "all watches have ended".to_owned(),
    }
}

struct Worker {
    config: Config,
    writer: Writer,
    news: UnboundedReceiver<News>,
    state: State,
    memory: Memory,
    pulse: Pulse,
    reporter: Reporter,
    /// Events that are being posted.
    posting: JoinSet<()>,
}

impl Worker {
    /// Ends only if there is no more news.
    async fn work(mut self) {
        while !self.state.is_complete() {
            let Some(news) = self.news.recv().await else {
                return;
            };
            news(&mut self.state);
        }
        self.pulse.synced();
        tokio::time::sleep(CATCH_UP).await;
        loop {
            self.pulse.promise(health::ROUND);
            let started = Instant::now();
            let again = self.round().await;
            let rest = BETWEEN_PLANS.saturating_sub(started.elapsed());
            tokio::time::sleep(rest).await;
            if !self.hear(again).await {
                return;
            }
        }
    }

    /// Plans and writes. Returns when to do that again, if nothing changes before.
    async fn round(&mut self) -> Duration {
        self.gather();
        self.state.has_changed();
        let started = Instant::now();
        let now = Timestamp::now();
        let mut plan = plan(&self.state.known, &self.config, &mut self.memory, now);
        let planned = started.elapsed();
        if !plan.is_empty() {
            tracing::debug!(
                blocks = plan.blocks.len(),
                links = plan.links.len(),
                conditions = plan.accepted.len(),
                topologies = plan.topologies.len(),
                meshnet = plan.meshnet.len(),
                milliseconds = planned.as_millis(),
                "planned"
            );
        }
        let again = plan.again.and_then(|again| again.try_into().ok());
        let again = AT_LEAST.min(again.unwrap_or(AT_LEAST));
        self.post(std::mem::take(&mut plan.warnings));
        let writing = Instant::now();
        let written = self.writer.write(plan).await;
        let next = match written.news.is_empty() {
            true => again,
            false => again.min(BETWEEN_PLANS),
        };
        for news in written.news {
            news(&mut self.state);
        }
        for orphan in written.orphans {
            self.memory.confirm(orphan);
        }
        let (writes, failures) = self.writer.counts();
        self.pulse.tell(Numbers {
            links: Links::of(self.state.known.links.values().map(|link| &**link)),
            planned,
            writes,
            failures,
        });
        // Planning takes half of the time at most.
        tokio::time::sleep(planned.saturating_sub(writing.elapsed())).await;
        written.again.unwrap_or(next).min(next)
    }

    /// Posts warnings. Nobody waits for that.
    fn post(&mut self, warnings: Vec<Warning>) {
        for Warning {
            object,
            reason,
            text,
        } in warnings
        {
            let reporter = self.reporter.clone();
            self.posting
                .spawn(async move { reporter.post(&object, &reason, &text).await });
        }
        while self.posting.try_join_next().is_some() {}
    }

    /// Waits for a change of what is known, or for the time. Returns false when there is no more
    /// news.
    async fn hear(&mut self, time: Duration) -> bool {
        self.pulse.promise(time + health::ROUND);
        let end = tokio::time::Instant::now() + time;
        loop {
            match tokio::time::timeout_at(end, self.news.recv()).await {
                Ok(None) => return false,
                Ok(Some(news)) => news(&mut self.state),
                Err(_) => return true,
            }
            self.gather();
            if self.state.has_changed() {
                break;
            }
        }
        tokio::time::sleep(GATHER).await;
        true
    }

    /// Takes the news that are here.
    fn gather(&mut self) {
        while let Ok(news) = self.news.try_recv() {
            news(&mut self.state);
        }
    }
}
