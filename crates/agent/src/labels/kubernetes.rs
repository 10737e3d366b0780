//! The real Kubernetes API.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt, stream::BoxStream};
use ratchet_engine::node_name;
use ratchet_kubernetes::{
    ApiError, Client, NetworkOwner, PodFacts, PodNews, Posted, Reporter, connect,
};
use ratchet_model::{NodeName, Reason};
use ratchet_protocol::Settings;

use super::{Api, Connect, Target};

/// The component that events name as their source.
const COMPONENT: &str = "ratchet";

struct Kubernetes {
    client: Client,
    node: NodeName,
    reporter: Reporter,
}

/// Makes clients. What one client posted, the next does not post again.
pub(crate) fn connector() -> Connect {
    let posted = Posted::default();
    Arc::new(move |target| {
        let posted = posted.clone();
        Box::pin(client(target, posted))
    })
}

async fn client(target: Target, posted: Posted) -> Result<Arc<dyn Api>, String> {
    let client = connect(&target.kubeconfig).await?;
    let node = node_name(&Settings {
        node: target.node,
        ..Settings::default()
    })?;
    Ok(Arc::new(Kubernetes {
        reporter: Reporter::new(client.clone(), COMPONENT, node.as_str()).remembering(posted),
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

#[cfg(test)]
mod tests;
