//! Ctrl-C and SIGTERM during `up`: checked between steps, so that everything can be undone in
//! order.

use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::{Context, Result};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// The last signal that asked to stop; 0 before the first.
static CAUGHT: AtomicI32 = AtomicI32::new(0);

/// A signal asked `up` to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted by {}", .0.as_str())]
pub(crate) struct Interrupted(pub Signal);

extern "C" fn record(signal: i32) {
    CAUGHT.store(signal, Ordering::Relaxed);
}

/// Makes the signals that would end this process only be recorded, for [`check`].
pub(crate) fn catch() -> Result<()> {
    // No SA_RESTART: a blocking wait returns, and its loop calls `check`.
    let action = SigAction::new(
        SigHandler::Handler(record),
        SaFlags::empty(),
        SigSet::empty(),
    );
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is allowed in a signal handler.
        let before = unsafe { sigaction(signal, &action) }
            .with_context(|| format!("cannot catch {signal}"))?;
        if signal == Signal::SIGHUP && matches!(before.handler(), SigHandler::SigIgn) {
            // Started by nohup: a terminal that closes must not stop it.
            // SAFETY: this restores the previous action, and no handler is installed.
            unsafe { sigaction(signal, &before) }
                .with_context(|| format!("cannot ignore {signal}"))?;
        }
    }
    Ok(())
}

/// Returns an error once such a signal was caught.
pub(crate) fn check() -> Result<(), Interrupted> {
    match Signal::try_from(CAUGHT.load(Ordering::Relaxed)) {
        Ok(signal) => Err(Interrupted(signal)),
        Err(_) => Ok(()),
    }
}
