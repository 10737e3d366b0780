//! How the engine opens the store that its settings name.

use std::{path::PathBuf, sync::Arc};

use futures_util::future::BoxFuture;
use ratchet_protocol::{DEFAULT_STORE, Settings};
use ratchet_store::{EtcdOptions, Store, StoreError, StoreUrl};

/// Opens a store. The real one is [`open_store`]; the simulation has one in memory.
pub type OpenStore =
    Arc<dyn Fn(Settings) -> BoxFuture<'static, Result<Arc<dyn Store>, StoreError>> + Send + Sync>;

/// Opens the store that the settings name.
///
/// # Errors
/// When the URL is wrong or the store cannot be used.
pub async fn open_store(settings: Settings) -> Result<Arc<dyn Store>, StoreError> {
    let url: StoreUrl = settings.store.as_deref().unwrap_or(DEFAULT_STORE).parse()?;
    let mut etcd = EtcdOptions {
        ca: settings.etcd_ca.as_ref().map(PathBuf::from),
        cert: settings.etcd_cert.as_ref().map(PathBuf::from),
        key: settings.etcd_key.as_ref().map(PathBuf::from),
        user: settings.etcd_user.clone(),
        password_file: settings.etcd_password_file.as_ref().map(PathBuf::from),
        ..EtcdOptions::default()
    };
    if let Some(prefix) = &settings.etcd_prefix {
        etcd.prefix.clone_from(prefix);
    }
    ratchet_store::open_with(&url, &etcd).await
}
