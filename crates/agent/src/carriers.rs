//! Tells the engine when carriers of pods' interfaces change.

use std::{io, thread, time::Duration};

use ratchet_engine::{Command, Commands};
use ratchet_kernel::{CarrierNews, Carriers, KernelError};

/// How long to wait before listening again after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// How long to wait after news: what comes meanwhile is told together. The root of a pod can set
/// its interface up and down as often as it likes, and must not keep the engine from other work.
const PACE: Duration = Duration::from_millis(10);

/// Listens in the calling thread's network namespace for as long as the process lives, on a thread
/// of its own: it waits in the kernel.
///
/// # Errors
/// When there can be no more threads.
pub(crate) fn listen(engine: Commands) -> io::Result<()> {
    let thread = thread::Builder::new().name("carriers".to_owned());
    thread.spawn(move || {
        while let Err(error) = hear(&engine) {
            tracing::error!(%error, "carriers of pods are not heard of; trying again");
            thread::sleep(PAUSE);
            if engine.send(Command::Carriers(CarrierNews::Lost)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Ends when the engine has.
fn hear(engine: &Commands) -> Result<(), KernelError> {
    let mut carriers = Carriers::listen()?;
    loop {
        let news = carriers.read()?;
        if engine.send(Command::Carriers(news)).is_err() {
            return Ok(());
        }
        thread::sleep(PACE);
    }
}
