//! Nodes lose the taint when their agent is ready.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::PatchParams;
use ratchet_controller::TAINT;

use super::*;

const OTHER: &str = "example.com/other";

impl World {
    async fn tainted_node(&self, name: &str) {
        let taint = |key| json!({"key": key, "effect": "NoSchedule"});
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {"taints": [taint(OTHER), taint(TAINT)]},
        });
        create::<Node>(Api::all(self.client.clone()), node).await;
    }

    async fn agent(&self, namespace: &str, node: &str) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("agent-{node}"), "labels": {"app": "ratchet-agent"}},
            "spec": {
                "nodeName": node, "automountServiceAccountToken": false,
                "containers": [{"name": "agent", "image": "i"}],
            },
        });
        create::<Pod>(Api::namespaced(self.client.clone(), namespace), pod).await;
    }

    async fn says(&self, namespace: &str, node: &str, ready: &str) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let conditions = json!([{"type": "Ready", "status": ready}]);
        let status = Patch::Merge(json!({"status": {"conditions": conditions}}));
        let name = format!("agent-{node}");
        let params = PatchParams::default();
        pods.patch_status(&name, &params, &status).await.unwrap();
    }

    async fn taints(&self, node: &str) -> Vec<String> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let spec = nodes.get(node).await.unwrap().spec.unwrap();
        let keys = spec.taints.unwrap_or_default().into_iter();
        let keys = keys.map(|taint| taint.key);
        // The API server gives new nodes a taint of its own.
        keys.filter(|key| key != "node.kubernetes.io/not-ready")
            .collect()
    }

    async fn has_lost_it(&self, node: &str) {
        eventually("the taint", || async move {
            match self.taints(node).await {
                taints if taints == [OTHER] => Ok(()),
                taints => Err(format!("{taints:?}")),
            }
        })
        .await;
    }
}

#[test]
fn a_node_loses_the_taint_when_its_agent_is_ready() {
    in_a_world(async |world| {
        let of_others = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tenant"},
        });
        create::<Namespace>(Api::all(world.client.clone()), of_others).await;
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"},
        });
        create::<ServiceAccount>(Api::namespaced(world.client.clone(), "tenant"), account).await;
        for node in ["old", "late", "forged", "alone", "new"] {
            world.tainted_node(node).await;
        }
        // One was ready before there was a controller.
        world.agent("default", "old").await;
        world.says("default", "old", "True").await;
        let controller = Controller::start(&world.client, "one", &[]);
        world.has_lost_it("old").await;

        world.agent("default", "late").await;
        world.says("default", "late", "False").await;
        world.agent("tenant", "forged").await;
        world.says("tenant", "forged", "True").await;
        world.agent("default", "new").await;
        world.says("default", "new", "True").await;
        world.has_lost_it("new").await;
        for node in ["late", "forged", "alone"] {
            assert_eq!(world.taints(node).await, [OTHER, TAINT], "{node}");
        }
        world.says("default", "late", "True").await;
        world.has_lost_it("late").await;

        // A node that comes back with the taint, and an agent that is ready still.
        let nodes: Api<Node> = Api::all(world.client.clone());
        nodes.delete("new", &DeleteParams::default()).await.unwrap();
        world.tainted_node("new").await;
        world.has_lost_it("new").await;
        controller.stop().await;
    });
}
