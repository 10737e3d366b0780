//! The socket: requests in, commands to the engine, answers out. It keeps no state and decides
//! nothing.

use std::{future::pending, path::Path, time::Duration};

use ratchet_engine::{Answer, Command, Commands, NewSandbox};
use ratchet_model::{Reason, declaration::Declaration};
use ratchet_protocol::{
    Attach, Failure, FailureKind, Hello, Links, MAX_MESSAGE, PROTOCOL, Prepare, Prepared, Reply,
    Request, SUPPORTED, parse_request,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{mpsc, oneshot, watch},
};

use crate::labels::Labels;

/// How long a client may take to send its request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What every connection needs.
#[derive(Clone)]
pub(crate) struct Server {
    /// The engine.
    pub engine: Commands,
    /// What pods declare.
    pub labels: Labels,
    /// Told when the links or the notices may have changed.
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
                    // Too many open files, for example: some may be closed soon.
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
        // The socket's mode keeps others out. This holds even if the mode was changed.
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
            Ok((protocol, Request::Attach(attach))) => match self.attach(attach, &write).await {
                Some(reply) => (protocol, reply),
                None => return,
            },
            Ok((protocol, request)) => (protocol, self.answer(request).await),
        };
        // The client may have closed the connection; then nothing waits for the reply.
        let _ = write.write_all(&reply.to_line(protocol)).await;
    }

    async fn answer(&self, request: Request) -> Reply {
        let reply = match request {
            Request::Hello => self.hello().await,
            Request::Prepare(prepare) => self.prepare(prepare).await,
            Request::Expect(attach) => self.wire(attach, Command::Expect).await,
            Request::Attach(attach) => {
                let Prepare { pod, settings, .. } = &attach.prepare;
                let (pod, settings) = (pod.clone(), settings.clone());
                let reply = self.wire(attach, Command::Attach).await;
                if reply.is_ok() {
                    self.labels.warn_of_owner(pod, &settings);
                }
                reply
            }
            Request::Detach(detach) => self.ask(|answer| Command::Detach(detach, answer)).await,
            Request::Check(check) => self.ask(|answer| Command::Check(check, answer)).await,
            Request::Collect(collect) => self.ask(|answer| Command::Collect(collect, answer)).await,
            Request::Status { settings } => {
                self.ask(|answer| Command::Status(settings, answer)).await
            }
            Request::Links { .. } => self.links().await.map(Reply::Links),
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
        // The receiver lives as long as the agent.
        let _ = self.release.send(()).await;
        Ok(Reply::Done)
    }

    async fn prepare(&self, prepare: Prepare) -> Result<Reply, Failure> {
        let settings = prepare.settings.clone();
        let asked = self.labels.resolve(&prepare, |declaration| {
            let ours = declaration?.is_some();
            ours.then(|| self.send(|answer| Command::Prepare(settings, answer)))
                .transpose()
        });
        match asked.await? {
            Some(answer) => received(answer).await,
            None => Ok(Reply::Prepared(Prepared { ours: false })),
        }
    }

    /// Attaches a sandbox, unless the client goes before the labels are known: its DEL may have
    /// been answered already, and nothing would ever detach the sandbox.
    async fn attach(&self, attach: Attach, write: &OwnedWriteHalf) -> Option<Reply> {
        tokio::select! {
            biased;
            () = closed(write) => None,
            reply = self.answer(Request::Attach(attach)) => Some(reply),
        }
    }

    /// Has the engine expect or attach a sandbox.
    async fn wire(
        &self,
        attach: Attach,
        command: fn(Box<NewSandbox>, Answer<Reply>) -> Command,
    ) -> Result<Reply, Failure> {
        let Attach {
            attachment,
            netns,
            prepare,
        } = attach;
        let asked = self.labels.resolve(&prepare, |declaration| {
            let sandbox = NewSandbox {
                attachment,
                netns,
                settings: prepare.settings.clone(),
                kubernetes: (prepare.pod.namespace.clone(), prepare.pod.name.clone()),
                use_labels: prepare.use_labels,
                declaration: ours(declaration?)?,
            };
            self.send(|answer| command(Box::new(sandbox), answer))
        });
        received(asked.await?).await
    }

    /// Sends a command to the engine.
    fn send<T>(
        &self,
        command: impl FnOnce(Answer<T>) -> Command,
    ) -> Result<oneshot::Receiver<Result<T, Failure>>, Failure> {
        let (answer, receiver) = oneshot::channel();
        self.engine.send(command(answer)).map_err(|_| stopping())?;
        Ok(receiver)
    }

    /// Sends a command to the engine and waits for the answer.
    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, Failure> {
        received(self.send(command)?).await
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

    async fn links(&self) -> Result<Links, Failure> {
        let mut links = self.ask(Command::Links).await?;
        if let Some(error) = self.labels.failure() {
            links.notice(&Reason::ApiOffline { error });
        }
        Ok(links)
    }

    /// Sends the links, and again after every change, until the client goes.
    async fn stream_links(mut self, protocol: u32, mut write: OwnedWriteHalf) {
        let mut last = None;
        loop {
            self.progress.mark_unchanged();
            let reply = self.links().await.map_or_else(Reply::Error, Reply::Links);
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

/// The declaration of a pod that must be Ratchet's.
fn ours(declaration: Option<Declaration>) -> Result<Declaration, Failure> {
    declaration.ok_or_else(|| {
        Failure::new(
            FailureKind::Invalid,
            "the pod has neither ratchet: \"true\" nor the annotation ratchet.dev/links: it is \
             not Ratchet's",
        )
    })
}

fn stopping() -> Failure {
    Failure::new(FailureKind::TryLater, "the agent is stopping")
}

async fn received<T>(answer: oneshot::Receiver<Result<T, Failure>>) -> Result<T, Failure> {
    answer.await.map_err(|_| stopping())?
}

/// Waits until the client has closed its end, or sends more.
async fn gone(write: &OwnedWriteHalf) {
    let _ = write.as_ref().ready(Interest::READABLE).await;
}

/// Waits until the client has closed the connection. Does not end for a client that only sends
/// more, or has only closed its sending half.
async fn closed(write: &OwnedWriteHalf) {
    match write.as_ref().ready(Interest::READABLE).await {
        Ok(ready) if !ready.is_write_closed() => pending().await,
        Ok(_) | Err(_) => {}
    }
}
