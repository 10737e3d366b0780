//! The real Kubernetes API.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt, future::BoxFuture, stream::BoxStream};
use ratchet_engine::node_name;
use ratchet_kubernetes::{ApiError, Client, NetworkOwner, PodFacts, PodNews, Reporter, Source};
use ratchet_model::{NodeName, Reason};
use ratchet_protocol::Settings;
use tokio::runtime::Handle;

use super::{Api, Target};

struct Kubernetes {
    client: Client,
    node: NodeName,
    reporter: Reporter,
}

/// Makes a client, on its own thread: a kubeconfig may name a program that prints credentials, and
/// the client waits for that program.
pub(crate) fn connect(target: Target) -> BoxFuture<'static, Result<Arc<dyn Api>, String>> {
    Box::pin(async {
        let runtime = Handle::current();
        let connected = tokio::task::spawn_blocking(move || runtime.block_on(client(target)));
        connected.await.unwrap_or_else(|e| Err(e.to_string()))
    })
}

async fn client(target: Target) -> Result<Arc<dyn Api>, String> {
    let source = Source::find(&target.kubeconfig).map_err(|e| e.to_string())?;
    let client = source.client().await.map_err(|e| e.to_string())?;
    let node = node_name(&Settings {
        node: target.node,
        ..Settings::default()
    })?;
    Ok(Arc::new(Kubernetes {
        reporter: Reporter::new(client.clone(), &node),
        client,
        node,
    }))
}

#[async_trait]
impl Api for Kubernetes {
    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<PodFacts>, ApiError> {
        ratchet_kubernetes::get(self.client.clone(), namespace, name).await
    }

    async fn network_owner(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<NetworkOwner>, ApiError> {
        ratchet_kubernetes::network_owner(self.client.clone(), namespace, name).await
    }

    async fn probe(&self) -> Result<(), ApiError> {
        ratchet_kubernetes::probe(self.client.clone()).await
    }

    fn watch(&self) -> BoxStream<'static, PodNews> {
        ratchet_kubernetes::watch(self.client.clone(), &self.node).boxed()
    }

    async fn warn(&self, pod: &PodFacts, reason: &Reason, text: &str) {
        self.reporter
            .warn((&pod.namespace, &pod.name, &pod.uid), reason.name(), text)
            .await;
    }

    async fn forget(&self, uid: &str) {
        self.reporter.forget(uid).await;
    }
}
