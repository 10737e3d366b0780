//! The socket: requests in, commands to the engine, answers out. No state and no decisions.

use std::{path::Path, time::Duration};

use ratchet_engine::{Answer, Command, Commands};
use ratchet_protocol::{
    Attach, Failure, FailureKind, Hello, MAX_MESSAGE, PROTOCOL, Reply, Request, SUPPORTED,
    parse_request,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{mpsc, oneshot, watch},
};

/// How long a client may take to send its request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What every connection needs.
#[derive(Clone)]
pub(crate) struct Server {
    /// The engine.
    pub engine: Commands,
    /// Told after every reconcile.
    pub progress: watch::Receiver<u64>,
    /// Told when another agent takes over.
    pub release: mpsc::Sender<()>,
    /// Whether this agent stays when another one comes.
    pub managed: bool,
}

impl Server {
    /// Accepts connections until the task is dropped.
    pub async fn serve(self, listener: UnixListener, socket: &Path) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(self.clone().talk(stream));
                }
                Err(error) => {
                    // Out of descriptors, say: others may be given back soon.
                    tracing::error!(
                        socket = %socket.display(), %error,
                        "cannot accept a connection"
                    );
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn talk(self, stream: UnixStream) {
        // The socket's mode keeps others out; this holds even where somebody has changed it.
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == 0) {
            return;
        }
        let (read, mut write) = stream.into_split();
        let mut line = Vec::new();
        let mut read = BufReader::new(read).take(MAX_MESSAGE);
        let received = tokio::time::timeout(TIMEOUT, read.read_until(b'\n', &mut line)).await;
        if !matches!(received, Ok(Ok(length)) if length > 0) {
            return;
        }
        let (protocol, reply) = match parse_request(&line) {
            Err(failure) => (PROTOCOL, Reply::Error(failure)),
            Ok((protocol, Request::Links { watch: true })) => {
                return self.stream_links(protocol, write).await;
            }
            Ok((protocol, Request::Expect(attach))) => {
                return self.expect(protocol, attach, write).await;
            }
            Ok((protocol, request)) => (protocol, self.answer(request).await),
        };
        // A client that has gone has its reasons.
        let _ = write.write_all(&reply.to_line(protocol)).await;
    }

    async fn answer(&self, request: Request) -> Reply {
        let reply = match request {
            Request::Hello => self.hello().await,
            Request::Prepare(prepare) => self.ask(|answer| Command::Prepare(prepare, answer)).await,
            Request::Expect(attach) => {
                self.ask(|answer| Command::Expect(Box::new(attach), answer))
                    .await
            }
            Request::Attach(attach) => {
                self.ask(|answer| Command::Attach(Box::new(attach), answer))
                    .await
            }
            Request::Detach(detach) => self.ask(|answer| Command::Detach(detach, answer)).await,
            Request::Check(check) => self.ask(|answer| Command::Check(check, answer)).await,
            Request::Collect(collect) => self.ask(|answer| Command::Collect(collect, answer)).await,
            Request::Status { settings } => {
                self.ask(|answer| Command::Status(settings, answer)).await
            }
            Request::Links { .. } => self.ask(Command::Links).await.map(Reply::Links),
            Request::ForgetNode(forget) => {
                self.ask(|answer| Command::ForgetNode(forget, answer)).await
            }
            Request::Release => self.release().await,
        };
        reply.unwrap_or_else(Reply::Error)
    }

    async fn hello(&self) -> Result<Reply, Failure> {
        Ok(Reply::Hello(Box::new(Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocols: SUPPORTED.to_vec(),
            pid: std::process::id(),
            managed: self.managed,
            settings: self.ask(Command::Settings).await?,
        })))
    }

    async fn release(&self) -> Result<Reply, Failure> {
        if self.managed {
            let text = format!(
                "a managed agent (pid {}) runs already; stop it first",
                std::process::id()
            );
            return Err(Failure::new(FailureKind::Exists, text));
        }
        // The receiver lives as long as the agent; if it is gone, so are we.
        let _ = self.release.send(()).await;
        Ok(Reply::Done)
    }

    /// Has the engine do something and waits for it.
    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, Failure> {
        let stopping = || Failure::new(FailureKind::TryLater, "the agent is stopping");
        let (answer, done) = oneshot::channel();
        self.engine.send(command(answer)).map_err(|_| stopping())?;
        done.await.map_err(|_| stopping())?
    }

    /// A sandbox is expected for as long as the client stays.
    async fn expect(self, protocol: u32, attach: Attach, mut write: OwnedWriteHalf) {
        let id = attach.attachment.container_id.clone();
        let reply = self.answer(Request::Expect(attach)).await;
        if write.write_all(&reply.to_line(protocol)).await.is_ok() {
            gone(&write).await;
        }
        // An engine that has stopped has left it on disk as one to be undone.
        let _ = self.engine.send(Command::Unexpect(id));
    }

    /// The links, and again after every change, until the client goes.
    async fn stream_links(mut self, protocol: u32, mut write: OwnedWriteHalf) {
        let mut last = None;
        loop {
            self.progress.mark_unchanged();
            let reply = self
                .ask(Command::Links)
                .await
                .map_or_else(Reply::Error, Reply::Links);
            let ended = matches!(reply, Reply::Error(_));
            if last.as_ref() != Some(&reply)
                && write.write_all(&reply.to_line(protocol)).await.is_err()
                || ended
            {
                return;
            }
            last = Some(reply);
            tokio::select! {
                changed = self.progress.changed() => if changed.is_err() { return },
                _ = gone(&write) => return,
            }
        }
    }
}

/// Waits until the client has closed its end.
async fn gone(write: &OwnedWriteHalf) {
    let _ = write.as_ref().ready(tokio::io::Interest::READABLE).await;
}
