//! Reads the labels and annotations of one node's pods from the Kubernetes API.
//!
//! It requests metadata only, and only of this node's pods (`spec.nodeName`), so that its traffic
//! grows with the node and not with the cluster. It decides nothing: the model knows what a label
//! means.

mod events;
mod source;
mod watch;

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;

pub use events::Reporter;
pub use kube::Client;
pub use source::{Source, SourceError};
pub use watch::{PodFacts, PodNews, watch};

/// Why a request to the API failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The API does not answer, or refuses the request.
    #[error("the Kubernetes API {0}")]
    Unavailable(String),
}

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 403 => Self::Unavailable(format!(
                "refuses the request: {}; the agent needs get, list and watch on pods \
                 (deploy/rbac.yaml)",
                status.message
            )),
            kube::Error::Api(status) => Self::Unavailable(format!(
                "refuses the request: {} (HTTP {})",
                status.message, status.code
            )),
            other => Self::Unavailable(format!("cannot be reached: {}", chain(other))),
        }
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// Reads one pod; `None` when the API has no pod of that name.
///
/// # Errors
/// When the API does not answer within `timeout`, or refuses the request.
pub async fn get(
    client: Client,
    namespace: &str,
    name: &str,
    timeout: Duration,
) -> Result<Option<PodFacts>, ApiError> {
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    match tokio::time::timeout(timeout, pods.get_metadata_opt(name)).await {
        Ok(found) => Ok(found?.and_then(|pod| PodFacts::of(&pod.metadata))),
        Err(_) => Err(ApiError::Unavailable(format!(
            "does not answer within {} s",
            timeout.as_secs()
        ))),
    }
}
