//! One controller of several leads: it holds a Lease, which it renews. Others take it when it has
//! not been renewed for a while, by their own clock.
//!
//! Each write names the version that was read, so one of two wins. No safety rests on it: a
//! controller that believes for a while that it still leads does no harm.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease as Object, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use ratchet_kubernetes::chain;

use crate::health::Pulse;

/// Others take a Lease that has not been renewed for so long.
const DURATION: Duration = Duration::from_secs(15);

/// Who has not renewed the Lease for so long does not lead any more.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often the Lease is looked at or renewed.
const PERIOD: Duration = Duration::from_secs(2);

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The Lease, as one of those who want it sees it.
pub(crate) struct Lease {
    api: Api<Object>,
    name: String,
    identity: String,
    pulse: Pulse,
    /// The Lease as it was seen last, and when it looked like that first.
    seen: Option<(Object, Instant)>,
}

/// What an attempt came to.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    /// The Lease is ours.
    Ours,
    /// It is another's.
    Others(String),
}

impl Lease {
    /// A Lease of a namespace.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: String,
        pulse: Pulse,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity,
            pulse,
            seen: None,
        }
    }

    /// Waits until the Lease is ours.
    pub async fn acquire(&mut self) {
        let mut told = String::new();
        loop {
            match self.attempt().await {
                Ok(Attempt::Ours) => return,
                Ok(Attempt::Others(holder)) if holder != told => {
                    tracing::info!("waiting: {holder} has the Lease {}", self.name);
                    told = holder;
                }
                Ok(Attempt::Others(_)) => {}
                Err(error) => {
                    tracing::warn!("cannot take the Lease {}: {error}; trying again", self.name);
                }
            }
            tokio::time::sleep(PERIOD + self.jitter()).await;
        }
    }

    /// Renews the Lease for as long as it is ours. Returns why it is not any more.
    pub async fn keep(&mut self) -> String {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(PERIOD).await;
            match self.attempt().await {
                Ok(Attempt::Ours) => renewed = Instant::now(),
                Ok(Attempt::Others(holder)) => {
                    return format!("{holder} has taken the Lease {}", self.name);
                }
                Err(error) if renewed.elapsed() >= DEADLINE => {
                    return format!("the Lease {} cannot be renewed: {error}", self.name);
                }
                Err(error) => tracing::warn!("cannot renew the Lease {}: {error}", self.name),
            }
        }
    }

    /// Gives the Lease up if it is ours, so that another controller need not wait. It is read once
    /// more: an attempt to take or renew it may have been dropped before its answer came.
    pub async fn release(&mut self) {
        let released = tokio::time::timeout(TIMEOUT, self.try_release()).await;
        if let Ok(Err(error)) = released {
            let error = chain(&error);
            tracing::debug!(error, "cannot release the Lease; another controller waits");
        }
    }

    async fn try_release(&self) -> kube::Result<()> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            return Ok(());
        };
        if holder(&lease) == self.identity
            && let Some(spec) = &mut lease.spec
        {
            spec.holder_identity = Some(String::new());
            let params = PostParams::default();
            self.api.replace(&self.name, &params, &lease).await?;
        }
        Ok(())
    }

    /// Takes or renews the Lease, if that is possible.
    async fn attempt(&mut self) -> Result<Attempt, String> {
        self.pulse.beat();
        let attempt = tokio::time::timeout(TIMEOUT, self.try_once()).await;
        let late = || format!("no answer within {} s", TIMEOUT.as_secs());
        let attempt = attempt.unwrap_or_else(|_| Err(late()))?;
        self.pulse.saw_lease();
        Ok(attempt)
    }

    async fn try_once(&mut self) -> Result<Attempt, String> {
        let present = self.api.get_opt(&self.name).await;
        let Some(present) = present.map_err(|error| chain(&error))? else {
            let lease = self.ours(None);
            let created = self.api.create(&PostParams::default(), &lease).await;
            return self.took(created);
        };
        let holder = holder(&present).to_owned();
        if holder != self.identity && !holder.is_empty() && !self.has_expired(&present) {
            return Ok(Attempt::Others(holder));
        }
        let lease = self.ours(Some(&present));
        let params = PostParams::default();
        let replaced = self.api.replace(&self.name, &params, &lease).await;
        self.took(replaced)
    }

    fn took(&mut self, answer: kube::Result<Object>) -> Result<Attempt, String> {
        match answer {
            Ok(lease) => {
                self.seen = Some((lease, Instant::now()));
                Ok(Attempt::Ours)
            }
            Err(error) => Err(chain(&error)),
        }
    }

    /// Whether the Lease has looked the same for its whole duration. Clocks of others do not count.
    fn has_expired(&mut self, present: &Object) -> bool {
        match &self.seen {
            Some((seen, since)) if seen.metadata.resource_version == version(present) => {
                since.elapsed() >= DURATION
            }
            _ => {
                self.seen = Some((present.clone(), Instant::now()));
                false
            }
        }
    }

    /// The Lease as it is when it is ours.
    fn ours(&self, present: Option<&Object>) -> Object {
        let now = MicroTime(Timestamp::now());
        let before = present
            .and_then(|lease| lease.spec.clone())
            .unwrap_or_default();
        let is_renewed = before.holder_identity.as_deref() == Some(&*self.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        let metadata = present.map(|lease| lease.metadata.clone());
        Object {
            metadata: metadata.unwrap_or_else(|| ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            }),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                renew_time: Some(now.clone()),
                acquire_time: match is_renewed {
                    true => before.acquire_time,
                    false => Some(now),
                },
                lease_transitions: Some(transitions + i32::from(!is_renewed)),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Some time, so that controllers that start together do not ask together.
    fn jitter(&self) -> Duration {
        let sum: u32 = self.identity.bytes().map(u32::from).sum();
        Duration::from_millis((sum % 400).into())
    }
}

fn holder(lease: &Object) -> &str {
    let spec = lease.spec.as_ref();
    spec.and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

fn version(lease: &Object) -> Option<String> {
    lease.metadata.resource_version.clone()
}
