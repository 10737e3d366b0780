//! What the Kubernetes API says of the pods of one node: their labels and annotations.
//!
//! It asks for metadata only and for this node's pods only (`spec.nodeName`), so that its traffic
//! grows with the node and not with the cluster. It decides nothing: what a label means is the
//! model's.

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

/// Why the API could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// It does not answer, or refuses.
    #[error("the Kubernetes API {0}")]
    Unavailable(String),
}

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 403 => Self::Unavailable(format!(
                "refuses: {}; the agent needs get, list and watch on pods (deploy/rbac.yaml)",
                status.message
            )),
            kube::Error::Api(status) => {
                Self::Unavailable(format!("refuses: {} ({})", status.message, status.code))
            }
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

/// Asks for one pod; `None` when the API knows none of that name.
///
/// # Errors
/// When there is no answer within `timeout`, or a refusal.
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
