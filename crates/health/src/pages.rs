//! The pages, each made once a second at most.

use std::{sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    body::Bytes,
    header::{CONTENT_TYPE, HeaderValue},
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{Health, Verdict};

/// For how long a page is good.
const FRESH: Duration = Duration::from_secs(1);

/// How long making a page may take.
const LIMIT: Duration = Duration::from_secs(1);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// The pages of a process.
pub(crate) struct Pages {
    health: Arc<dyn Health>,
    live: Kept,
    ready: Kept,
    metrics: Kept,
}

/// A page as it was made last.
type Kept = Mutex<Option<(Instant, Page)>>;

#[derive(Debug, Clone)]
struct Page {
    status: StatusCode,
    kind: HeaderValue,
    text: Bytes,
}

impl Pages {
    pub fn new(health: Arc<dyn Health>) -> Self {
        Self {
            health,
            live: Kept::default(),
            ready: Kept::default(),
            metrics: Kept::default(),
        }
    }

    /// The answer to a request.
    pub async fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if ![Method::GET, Method::HEAD].contains(method) {
            return Page::text(StatusCode::METHOD_NOT_ALLOWED, "GET only").answer();
        }
        let page = match path {
            "/livez" => keep(&self.live, async { Page::of(self.health.live().await) }).await,
            "/readyz" => keep(&self.ready, async { Page::of(self.health.ready().await) }).await,
            "/metrics" => keep(&self.metrics, self.make_metrics()).await,
            _ => Page::text(StatusCode::NOT_FOUND, "/livez, /readyz or /metrics"),
        };
        page.answer()
    }

    async fn make_metrics(&self) -> Page {
        Page {
            status: StatusCode::OK,
            kind: METRICS,
            text: self.health.metrics().await.into_text().into(),
        }
    }
}

/// The page, made again if it is too old. Those who ask meanwhile wait for it.
async fn keep(kept: &Kept, make: impl Future<Output = Page>) -> Page {
    let mut kept = kept.lock().await;
    if let Some((made, page)) = &*kept
        && made.elapsed() < FRESH
    {
        return page.clone();
    }
    let late = || Page::of(Err(format!("no answer within {} s", LIMIT.as_secs())));
    let page = timeout(LIMIT, make).await.unwrap_or_else(|_| late());
    *kept = Some((Instant::now(), page.clone()));
    page
}

impl Page {
    fn of(verdict: Verdict) -> Self {
        match verdict {
            Ok(()) => Self::text(StatusCode::OK, "ok"),
            Err(why) => Self::text(StatusCode::SERVICE_UNAVAILABLE, &why),
        }
    }

    fn text(status: StatusCode, text: &str) -> Self {
        Self {
            status,
            kind: TEXT,
            text: format!("{text}\n").into(),
        }
    }

    fn answer(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.text));
        *response.status_mut() = self.status;
        *response.headers_mut() = HeaderMap::from_iter([(CONTENT_TYPE, self.kind)]);
        response
    }
}
