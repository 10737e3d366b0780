//! The store, and what is done while it is away.
//!
//! Nobody waits for a store that does not answer: the first call that finds out waits as long as
//! calls may take, and from then on all fail at once, while a probe asks again and again. So an
//! agent whose store hangs still does at once what needs none, such as undoing the links of pods
//! that go. What the store is to be told is told when it is back.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ratchet_protocol::{Failure, Settings};
use ratchet_store::{Store, StoreError};
use tokio::task::JoinHandle;

use super::{Command, Engine, nodes::Nodes, restore::RestoredLinks};
use crate::{
    effective::store_failure,
    facts::Known,
    store::OpenStore,
    watcher::{self, News},
};

/// Between two attempts of the probe: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A store that does not answer.
pub(super) struct Offline {
    failure: Failure,
    probe: JoinHandle<()>,
}

impl Engine {
    /// The store, opened if it is not yet; an error at once while it is away.
    pub(super) fn store(&mut self) -> Result<Arc<dyn Store>, Failure> {
        if let Some(offline) = &self.offline {
            return Err(offline.failure.clone());
        }
        if let Some(store) = &self.store {
            return Ok(store.clone());
        }
        let settings = self.effective()?.settings.clone();
        let store = match self.runtime.block_on((self.open_store)(settings)) {
            Ok(store) => store,
            Err(error) => return Err(self.store_failed(&error)),
        };
        tracing::info!(store = store.describe(), "store opened");
        self.store_trouble = None;
        self.news = Arc::new(News::default());
        let watch = watcher::watch(
            store.clone(),
            self.interest.subscribe(),
            self.news.clone(),
            self.commands.clone(),
        );
        self.watcher = Some(self.runtime.spawn(watch));
        self.store = Some(store.clone());
        Ok(store)
    }

    /// Notes that a call has failed, and gives the failure for whoever asked.
    pub(super) fn store_failed(&mut self, error: &StoreError) -> Failure {
        self.store_trouble = Some(error.to_string());
        let failure = store_failure(error);
        if matches!(error, StoreError::Unavailable(_))
            && self.offline.is_none()
            && let Ok(effective) = &self.effective
        {
            let probe = probe(
                self.store.clone(),
                self.open_store.clone(),
                effective.settings.clone(),
                self.commands.clone(),
            );
            let probe = self.runtime.spawn(probe);
            self.offline = Some(Offline {
                failure: failure.clone(),
                probe,
            });
        }
        failure
    }

    /// The store answers again.
    pub(super) fn store_is_back(&mut self) {
        if self.offline.take().is_some() {
            tracing::info!("the store is back");
            self.begin_resync();
        }
    }

    pub(super) fn close_store(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            watcher.abort();
        }
        if let Some(offline) = self.offline.take() {
            offline.probe.abort();
        }
        self.store = None;
        self.store_trouble = None;
        self.nodes = Nodes::new(self.clock.now());
        self.restored = RestoredLinks::default();
        self.known = Known::default();
        self.informed = false;
    }
}

/// Asks until there is an answer, be it that something else is wrong.
async fn probe(
    store: Option<Arc<dyn Store>>,
    open_store: OpenStore,
    settings: Settings,
    engine: super::Commands,
) {
    let mut pause = PAUSE.0;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
        let answer = match &store {
            Some(store) => store.read(&BTreeSet::new()).await.map(drop),
            None => open_store(settings.clone()).await.map(drop),
        };
        if !matches!(answer, Err(StoreError::Unavailable(_))) {
            // If the engine is gone, nobody wants to know.
            let _ = engine.send(Command::StoreBack);
            return;
        }
    }
}
