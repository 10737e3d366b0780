//! Listens to the store on behalf of the engine.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ratchet_store::{Change, Interest, Store, StoreError};
use tokio::sync::watch;

use crate::engine::{Command, Commands};

/// How long to wait before a broken watch is begun again: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What has changed and was not dealt with yet. However fast changes come, the engine reads and
/// reconciles once for all that have come while it was at something else.
#[derive(Debug, Default)]
pub(crate) struct News(Mutex<Option<Change>>);

impl News {
    /// Adds a change; says whether it is the first.
    fn add(&self, change: Change) -> bool {
        let mut news = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = news.is_none();
        *news = Some(match news.take() {
            Some(before) => before.and(change),
            None => change,
        });
        is_first
    }

    pub fn take(&self) -> Option<Change> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Tells the engine of every change, until it is gone or the task is aborted.
pub(crate) async fn watch(
    store: Arc<dyn Store>,
    mut interest: watch::Receiver<Interest>,
    news: Arc<News>,
    engine: Commands,
) {
    let mut backoff = BACKOFF.0;
    loop {
        match follow(&*store, &mut interest, &news, &engine, &mut backoff).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(
                    store = store.describe(), %error,
                    "the watch on the store broke; trying again"
                );
                if engine.send(Command::StoreLost(error.to_string())).is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF.1);
    }
}

/// One watch, until it breaks (`Err`) or the engine is gone (`Ok`).
async fn follow(
    store: &dyn Store,
    interest: &mut watch::Receiver<Interest>,
    news: &News,
    engine: &Commands,
    backoff: &mut Duration,
) -> Result<(), StoreError> {
    let mut watch = store.watch().await?;
    let first = interest.borrow_and_update().clone();
    watch.interest(first).await?;
    loop {
        tokio::select! {
            biased;
            change = watch.next() => {
                let change = change?;
                *backoff = BACKOFF.0;
                if news.add(change) && engine.send(Command::Changed).is_err() {
                    return Ok(());
                }
            }
            changed = interest.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let next = interest.borrow_and_update().clone();
                watch.interest(next).await?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ratchet_model::PodKey;

    use super::*;

    fn pods(names: &[&str]) -> Change {
        Change::Pods(
            names
                .iter()
                .map(|name| PodKey::new("default", name).unwrap())
                .collect(),
        )
    }

    #[test]
    fn changes_that_come_before_the_engine_looks_are_one() {
        let news = News::default();
        assert_eq!(news.take(), None);
        assert!(news.add(pods(&["a"])));
        assert!(!news.add(pods(&["b", "a"])));
        assert_eq!(news.take(), Some(pods(&["a", "b"])));
        assert!(news.add(pods(&["a"])));
        assert!(!news.add(Change::All));
        assert!(!news.add(pods(&["c"])));
        assert_eq!((news.take(), news.take()), (Some(Change::All), None));
    }
}
