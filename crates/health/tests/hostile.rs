//! Clients that mean no good: what they get, and that others are served meanwhile.
#![allow(clippy::unwrap_used)]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use ratchet_health::{Health, Metrics, Server, Verdict};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

/// Is well, and counts how often it was asked.
#[derive(Default)]
struct Well(AtomicUsize);

#[async_trait]
impl Health for Well {
    async fn live(&self) -> Verdict {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn ready(&self) -> Verdict {
        std::future::pending().await
    }

    async fn metrics(&self) -> Metrics {
        Metrics::default()
    }
}

async fn start() -> (SocketAddr, Arc<Well>, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let well = Arc::new(Well::default());
    let server = Server::start(address, well.clone()).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).await.is_err() {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (address, well, server)
}

/// Sends a text and returns all that comes, until the other side closes the connection.
async fn say(stream: &mut TcpStream, text: &[u8]) -> String {
    // The other side may have closed the connection already.
    let _ = stream.write_all(text).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    say(&mut stream, request.as_bytes()).await
}

#[tokio::test]
async fn pages_have_a_status_and_a_page_that_takes_too_long_is_a_bad_one() {
    let (address, _well, _server) = start().await;
    let live = get(address, "/livez?verbose").await;
    assert!(live.starts_with("HTTP/1.1 200 OK\r\n"), "{live}");
    assert!(live.ends_with("\r\n\r\nok\n"), "{live}");
    let ready = get(address, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
    assert!(ready.ends_with("no answer within 1 s\n"), "{ready}");
    let metrics = get(address, "/metrics").await;
    assert!(
        metrics.contains("content-type: text/plain; version=0.0.4"),
        "{metrics}"
    );
    assert!(
        metrics.contains("\nratchet_build_info{version="),
        "{metrics}"
    );
    assert!(get(address, "/").await.starts_with("HTTP/1.1 404 "));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let answer = say(&mut stream, b"POST /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn a_page_is_made_once_a_second_however_often_it_is_asked_for() {
    let (address, well, _server) = start().await;
    let begun = Instant::now();
    let mut asked = 0;
    while begun.elapsed() < Duration::from_millis(1500) {
        assert!(get(address, "/livez").await.contains("200 OK"));
        asked += 1;
    }
    let most = usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    let made = well.0.load(Ordering::Relaxed);
    assert!(asked > 20 && made <= most, "{made} of {asked}");
}

/// A connection from another address of this host than the server's.
async fn from(client: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((client, 0).into()).unwrap();
    socket.connect(address).await.unwrap()
}

#[tokio::test]
async fn slow_large_and_many_requests_have_an_end() {
    let (address, _well, _server) = start().await;
    let begun = Instant::now();
    let mut slow = from([127, 0, 0, 2], address).await;
    let answer = say(&mut slow, b"GET /livez HTTP/1.1\r\nX: ").await;
    assert!(!answer.contains("200"), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(4), "it was closed");
    let large = format!("GET /livez HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let answer = say(&mut stream, large.as_bytes()).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
        "{answer}"
    );
    let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let answer = say(&mut stream, many.as_bytes()).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
        "{answer}"
    );
    // More connections than there are places: those beyond are closed at once, and when the
    // first have had their time, there is room again.
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    let mut last = held.pop().unwrap();
    assert_eq!(say(&mut last, b"").await, "");
    let end = Instant::now() + Duration::from_secs(10);
    while !get(address, "/livez").await.contains("200 OK") {
        assert!(Instant::now() < end);
    }
}
