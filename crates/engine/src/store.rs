//! How the engine opens the store that its settings name.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use ratchet_protocol::{DEFAULT_STORE, Settings};
use ratchet_store::{Store, StoreError, StoreOptions, StoreUrl};

use crate::node_name;

/// Opens a store. The real one is [`open_store`]; the simulation has one in memory.
pub type OpenStore =
    Arc<dyn Fn(Settings) -> BoxFuture<'static, Result<Arc<dyn Store>, StoreError>> + Send + Sync>;

/// Opens the store that the settings name.
///
/// # Errors
/// When the URL is wrong or the store cannot be used.
pub async fn open_store(settings: Settings) -> Result<Arc<dyn Store>, StoreError> {
    let url: StoreUrl = settings.store.as_deref().unwrap_or(DEFAULT_STORE).parse()?;
    ratchet_store::open(&StoreOptions {
        node: node_name(&settings).ok(),
        ..StoreOptions::new(url, settings.entries())
    })
    .await
}
