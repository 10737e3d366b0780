//! The thread that owns a connection, so that a slow disk never blocks the agent's event loop.

use std::{io, sync::mpsc, thread};

use tokio::sync::oneshot;

use super::{database::Database, error::Failure};
use crate::StoreError;

type Job = Box<dyn FnOnce(&mut Database) + Send>;

/// A handle of the thread. The thread does one job after the other, and ends with the handle.
pub(super) struct Worker {
    jobs: mpsc::Sender<Job>,
}

impl Worker {
    /// Starts the thread. `name` is at most 15 bytes: the kernel's limit.
    pub(super) fn start(name: &str, mut database: Database) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                for job in inbox {
                    job(&mut database);
                }
            })?;
        Ok(Self { jobs })
    }

    /// Does a job on the thread. The job is done even if the caller no longer waits for it.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Database) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |database| {
            let result = job(database).map_err(|failure| database.explain(failure));
            let _nobody_waits = answer.send(result);
        });
        let ended = || {
            StoreError::Broken(
                "the store's thread has ended; restart the agent and report its log".into(),
            )
        };
        self.jobs.send(job).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}
