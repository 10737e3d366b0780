//! Work in the background that lives as long as its owner.

use std::future::Future;

use tokio::{runtime::Handle, task::AbortHandle};

use crate::engine::{Command, Commands};

/// Work that must go on for as long as this value lives. If it panics, the agent ends and is
/// started again like one that crashed: without the work it would go on half deaf.
#[derive(Debug)]
pub struct Task(AbortHandle);

impl Task {
    /// Begins the work. `what` names it in the log.
    pub fn spawn(
        runtime: &Handle,
        engine: Commands,
        what: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let work = runtime.spawn(work);
        let task = Self(work.abort_handle());
        runtime.spawn(async move {
            if work.await.is_err_and(|error| error.is_panic()) {
                // An engine that has ended needs no word of it.
                let _ = engine.send(Command::Panicked(what));
            }
        });
        task
    }

    /// Ends the work.
    pub fn stop(&self) {
        self.0.abort();
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        sync::mpsc::{self, TryRecvError},
    };

    use futures_util::FutureExt;
    use tokio::task::yield_now;

    use super::*;

    #[test]
    fn the_engine_is_told_of_work_that_panics_and_of_no_other() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let (engine, told) = mpsc::channel();
        let spawn = |what, work| Task::spawn(runtime.handle(), engine.clone(), what, work);
        let tasks = [
            spawn("ends", ready(()).boxed()),
            spawn("goes on", pending().boxed()),
            spawn("panics", async { panic!("as it should") }.boxed()),
        ];
        drop(engine);
        let mut panicked = Vec::new();
        runtime.block_on(async {
            while panicked.is_empty() {
                match told.try_recv() {
                    Ok(Command::Panicked(what)) => panicked.push(what),
                    Ok(_) => panic!("another command"),
                    Err(_) => yield_now().await,
                }
            }
            // With the last task its sender goes.
            drop(tasks);
            loop {
                match told.try_recv() {
                    Ok(_) => panic!("told of another task"),
                    Err(TryRecvError::Disconnected) => break,
                    Err(TryRecvError::Empty) => yield_now().await,
                }
            }
        });
        assert_eq!(panicked, ["panics"]);
    }
}
