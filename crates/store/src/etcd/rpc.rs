//! Calls to an etcd cluster: one member at a time, and the next one if it does not answer.

use std::{
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use prost::Message;
use ratchet_failpoint as failpoint;
use tokio::{sync::mpsc, time};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::AsciiMetadataValue,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{
    access::Access,
    error,
    proto::{
        Authenticate, Authenticated, Grant, Granted, Ignored, KeptAlive, Lease, Range, RangeResult,
        Txn, TxnResult, WatchNews, WatchRequest,
    },
};
use crate::{EtcdOptions, HostPort, StoreError};

/// How long a member may take to connect, and to answer.
const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(5);

/// After this time without data, a keepalive ping is sent, and this is the timeout for its answer.
/// etcd closes connections with more pings than one in 5 s (`--grpc-keepalive-min-time`).
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(5);

/// The largest answer. etcd's own limit for a request is 1.5 MB. An answer can have many such
/// records; one that is too large is requested in smaller parts ([`super::reader`]).
const MESSAGE_MAX: usize = 16 << 20;

/// How many requests of a watch may be under way.
const WATCH_REQUESTS: usize = 16;

/// An etcd cluster.
pub(super) struct Rpc {
    url: String,
    access: Access,
    current: AtomicUsize,
    token: RwLock<Option<AsciiMetadataValue>>,
}

/// Both directions of a watch.
pub(super) struct WatchStream {
    pub requests: mpsc::Sender<WatchRequest>,
    pub news: Streaming<WatchNews>,
}

impl Rpc {
    /// A cluster with these members. Sends nothing yet.
    pub(super) fn new(
        url: String,
        hosts: &[HostPort],
        tls: bool,
        options: &EtcdOptions,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            access: Access::new(&url, hosts, tls, options)?,
            url,
            current: AtomicUsize::new(0),
            token: RwLock::new(None),
        })
    }

    /// The cluster's URL.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// KV.Range.
    pub(super) async fn range(&self, request: Range) -> Result<RangeResult, StoreError> {
        self.call("/etcdserverpb.KV/Range", request).await
    }

    /// KV.Txn.
    pub(super) async fn txn(&self, request: Txn) -> Result<TxnResult, StoreError> {
        let result = self.call("/etcdserverpb.KV/Txn", request).await;
        failpoint::pass("etcd.txn");
        result
    }

    /// Lease.LeaseGrant.
    pub(super) async fn grant(&self, request: Grant) -> Result<Granted, StoreError> {
        self.call("/etcdserverpb.Lease/LeaseGrant", request).await
    }

    /// Lease.LeaseRevoke.
    pub(super) async fn revoke(&self, lease: Lease) -> Result<(), StoreError> {
        self.call("/etcdserverpb.Lease/LeaseRevoke", lease)
            .await
            .map(|Ignored {}| ())
    }

    /// Lease.LeaseKeepAlive, once.
    pub(super) async fn keep_alive(&self, lease: Lease) -> Result<KeptAlive, StoreError> {
        self.attempt(|channel| keep_alive(channel, self.authorized(tokio_stream::once(lease))))
            .await
    }

    /// Watch.Watch, with a first request: etcd answers nothing before it.
    pub(super) async fn watch(&self, first: WatchRequest) -> Result<WatchStream, StoreError> {
        self.attempt(|channel| {
            let (requests, queue) = mpsc::channel(WATCH_REQUESTS);
            // There is room, since it is the first.
            let _fits = requests.try_send(first.clone());
            open_watch(
                channel,
                requests,
                self.authorized(ReceiverStream::new(queue)),
            )
        })
        .await
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, StoreError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.attempt(|channel| unary(channel, path, self.authorized(request.clone())))
            .await
    }

    /// Calls the current member, or the next one if it does not answer. A call without an answer
    /// may have been done, so a second one must do no harm.
    async fn attempt<T, F>(&self, todo: impl Fn(Channel) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let hosts = self.access.hosts();
        let begin = self.current.load(Relaxed);
        let mut last = None;
        for n in 0..hosts.len() {
            let index = (begin + n) % hosts.len();
            let host = &hosts[index];
            match self.with_renewed(index, &todo).await {
                Ok(done) => {
                    self.current.store(index, Relaxed);
                    return Ok(done);
                }
                Err(status) if error::is_offline(&status) => last = Some((host, status)),
                Err(status) => return Err(error::explain(&self.url, host, &status)),
            }
        }
        Err(last.map_or_else(
            || StoreError::Config(format!("store {}: no host", self.url)),
            |(host, status)| error::explain(&self.url, host, &status),
        ))
    }

    /// Does it again if it fails and the certificates were renewed since the connection was made.
    /// An alert of TLS has many forms, so any failure counts.
    async fn with_renewed<T, F>(
        &self,
        index: usize,
        todo: &impl Fn(Channel) -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        match self.logged_in(index, todo).await {
            Err(_) if self.access.renew() => self.logged_in(index, todo).await,
            result => result,
        }
    }

    /// Logs in first if there is a user, and again when the token is no longer valid.
    async fn logged_in<T, F>(&self, index: usize, todo: &impl Fn(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        if self.access.has_user() && self.token().is_none() {
            self.log_in(index).await?;
        }
        match in_time(todo(self.access.channel(index))).await {
            Err(status) if self.access.has_user() && error::is_stale_login(&status) => {
                self.log_in(index).await?;
                in_time(todo(self.access.channel(index))).await
            }
            result => result,
        }
    }

    async fn log_in(&self, index: usize) -> Result<(), Status> {
        let Some((name, password)) = self.access.credentials() else {
            return Ok(());
        };
        let request = Request::new(Authenticate { name, password });
        let answer: Authenticated = in_time(unary(
            self.access.channel(index),
            "/etcdserverpb.Auth/Authenticate",
            request,
        ))
        .await?;
        let token = answer
            .token
            .parse()
            .map_err(|_| Status::new(Code::Internal, "etcd's token is not valid in a header"))?;
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(())
    }

    fn token(&self) -> Option<AsciiMetadataValue> {
        self.token
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn authorized<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = self.token() {
            request.metadata_mut().insert("token", token);
        }
        // A member without a leader fails the call instead of waiting.
        request
            .metadata_mut()
            .insert("hasleader", AsciiMetadataValue::from_static("true"));
        request
    }
}

/// With our times.
pub(super) fn timed(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_ANSWER)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
}

async fn ready(channel: Channel) -> Result<Grpc<Channel>, Status> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MESSAGE_MAX);
    grpc.ready()
        .await
        .map_err(|error| Status::new(Code::Unavailable, error::chain(&error)))?;
    Ok(grpc)
}

async fn unary<Q, A>(channel: Channel, path: &'static str, request: Request<Q>) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = ready(channel).await?;
    Ok(grpc
        .unary(
            request,
            PathAndQuery::from_static(path),
            ProstCodec::default(),
        )
        .await?
        .into_inner())
}

async fn keep_alive(
    channel: Channel,
    request: Request<tokio_stream::Once<Lease>>,
) -> Result<KeptAlive, Status> {
    let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");
    let mut answers = ready(channel)
        .await?
        .streaming(request, path, ProstCodec::default())
        .await?
        .into_inner();
    answers.message().await?.ok_or_else(|| {
        Status::new(
            Code::Unavailable,
            "etcd has ended the call without an answer",
        )
    })
}

async fn open_watch(
    channel: Channel,
    requests: mpsc::Sender<WatchRequest>,
    request: Request<ReceiverStream<WatchRequest>>,
) -> Result<WatchStream, Status> {
    let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
    let news = ready(channel)
        .await?
        .streaming(request, path, ProstCodec::default())
        .await?
        .into_inner();
    Ok(WatchStream { requests, news })
}

async fn in_time<T>(todo: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    time::timeout(ANSWER, todo).await.unwrap_or_else(|_| {
        Err(Status::new(
            Code::DeadlineExceeded,
            format!("no answer for {ANSWER:?}"),
        ))
    })
}
