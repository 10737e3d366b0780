//! Logs: to standard error, for journald or a terminal, and to a file if the options name one.

use std::{
    fs::OpenOptions,
    io::{self, IsTerminal},
    os::unix::fs::OpenOptionsExt,
    sync::Mutex,
};

use ratchet_protocol::LocalSettings;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// Debug messages of the HTTP and TLS libraries do not help to debug Ratchet. `h2=debug` in the log
/// level shows them again.
const QUIET: &str = "h2=info,hyper=info,hyper_util=info,tonic=info,tower=info,rustls=info";

/// Starts logging.
///
/// # Errors
/// When the filter is not valid or the file cannot be opened.
pub(crate) fn start(settings: &LocalSettings) -> io::Result<()> {
    let level = settings.log_level();
    let filter = || {
        EnvFilter::try_new(format!("{QUIET},{level}")).map_err(|e| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("log level {level:?}: {e}"),
            )
        })
    };
    let terminal = io::stderr().is_terminal();
    let stderr = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(terminal)
        .with_filter(filter()?);
    let file = match &settings.log_file {
        None => None,
        Some(path) => {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(path)
                .map_err(|e| io::Error::new(e.kind(), format!("log file {path}: {e}")))?;
            let layer = tracing_subscriber::fmt::layer()
                .with_writer(Mutex::new(file))
                .with_ansi(false);
            Some(layer.with_filter(filter()?))
        }
    };
    tracing_subscriber::registry()
        .with(stderr)
        .with(file)
        .try_init()
        .map_err(io::Error::other)
}
