//! Listens to the store on behalf of the engine.

use std::{sync::Arc, time::Duration};

use ratchet_store::{Interest, Store, StoreError};
use tokio::sync::watch;

use crate::engine::{Command, Commands};

/// How long to wait before a broken watch is begun anew: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Sends every change to the engine, until it is gone or the task is aborted.
pub(crate) async fn watch(store: Arc<dyn Store>, mut interest: watch::Receiver<Interest>, engine: Commands) {
    let mut backoff = BACKOFF.0;
    loop {
        match follow(&*store, &mut interest, &engine, &mut backoff).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(store = store.describe(), %error, "lost sight of the store; trying again");
                if engine.send(Command::StoreLost(error.to_string())).is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF.1);
    }
}

/// One watch, until it breaks (`Err`) or nobody listens any more (`Ok`).
async fn follow(
    store: &dyn Store,
    interest: &mut watch::Receiver<Interest>,
    engine: &Commands,
    backoff: &mut Duration,
) -> Result<(), StoreError> {
    let mut watch = store.watch().await?;
    let first = interest.borrow_and_update().clone();
    watch.interest(first).await?;
    loop {
        tokio::select! {
            change = watch.next() => {
                let change = change?;
                *backoff = BACKOFF.0;
                if engine.send(Command::Changed(change)).is_err() {
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
