//! Connections, with a bound on everything.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, thread, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::{sleep, timeout},
};

use crate::{
    Health,
    pages::Pages,
    places::{Place, Places},
};

/// How long a client may take for the head of its request.
const HEAD_TIME: Duration = Duration::from_secs(2);

/// How long a connection may last, in any case.
const CONNECTION_TIME: Duration = Duration::from_secs(5);

/// The most bytes of a request's head that are read: hyper's least.
const HEAD_BYTES: usize = 8192;

/// The most headers of a request.
const HEADERS: usize = 32;

/// Between two attempts to listen.
const PAUSE: Duration = Duration::from_secs(2);

/// A server, which ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    _stop: oneshot::Sender<Infallible>,
}

impl Server {
    /// Serves the health of a process, on a thread of its own: a flood of the port takes no
    /// time of the process' other work.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(address: SocketAddr, health: Arc<dyn Health>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let work = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(address, health) => {}
                    _closed = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name("health".into());
        thread.spawn(work)?;
        Ok(Self { _stop: stop })
    }
}

/// Serves without end. An address that cannot be used is tried again: the
/// process has other work, and may only have been started before the address was there.
async fn serve(address: SocketAddr, health: Arc<dyn Health>) {
    let listener = listen(address).await;
    let pages = Arc::new(Pages::new(health));
    let places = Places::default();
    loop {
        match listener.accept().await {
            // Without a place, the connection is closed.
            Ok((stream, peer)) => {
                let local = stream.local_addr();
                let place = local.map(|local| places.take(local.ip(), peer.ip()));
                if let Ok(Some(place)) = place {
                    tokio::spawn(talk(stream, pages.clone(), place));
                }
            }
            // Too many open files, for example: some may be closed soon.
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection to the health port");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    let mut is_told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(%address, "serving health and metrics");
                return listener;
            }
            Err(error) if !is_told => {
                tracing::error!(%address, %error, "cannot serve health and metrics; trying again");
                is_told = true;
            }
            Err(_) => {}
        }
        sleep(PAUSE).await;
    }
}

/// One request, and one answer.
async fn talk(stream: TcpStream, pages: Arc<Pages>, _place: Place) {
    let answer = |request: Request<Incoming>| {
        let pages = pages.clone();
        async move {
            let (head, _body) = request.into_parts();
            Ok::<_, Infallible>(pages.answer(&head.method, head.uri.path()).await)
        }
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    // What went wrong is the client's affair.
    let _ended = timeout(CONNECTION_TIME, connection).await;
}
