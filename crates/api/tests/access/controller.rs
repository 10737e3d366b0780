//! The controller, and how the API server sorts its requests and the agents'.

use kube::{
    Client,
    client::Body,
    core::{Request, params::ListParams},
};
use ratchet_api_server::Server;
use serde_json::{Value, json};

use crate::{
    OURS, core, create, get, link, merge, ours, token,
    tries::{self, Answer, Try, Verb},
};

pub async fn run(server: &Server) {
    let admin = &server.client;
    let controller = token(admin, "ratchet", "ratchet-controller", None).await;
    let controller = server.client_of(&controller);
    tries::all("the controller", &controller, work(admin).await).await;
    tries::all("the controller", &controller, without_right()).await;
    tries::all("the controller", &controller, of_nodes(admin).await).await;

    let agent = token(admin, "ratchet", "ratchet-agent", None).await;
    let agent = server.client_of(&agent);
    for (client, schema) in [
        (&controller, "ratchet-controller"),
        (&agent, "ratchet-agent"),
    ] {
        assert_eq!(
            flow_of(client).await,
            uid_of_flow(admin, schema).await,
            "{schema}"
        );
    }
}

/// The uid of the FlowSchema by which the API server sorts a client's requests.
async fn flow_of(client: &Client) -> String {
    let request = Request::new(format!("{OURS}/links")).list(&ListParams::default());
    let request = request.unwrap().map(Body::from);
    let response = client.send(request).await.unwrap();
    let flow = response.headers().get("x-kubernetes-pf-flowschema-uid");
    flow.unwrap().to_str().unwrap().to_owned()
}

async fn uid_of_flow(admin: &Client, name: &str) -> String {
    let path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    let schema = get(admin, path, name).await.unwrap();
    schema["metadata"]["uid"].as_str().unwrap().to_owned()
}

fn lease(name: &str) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
        "spec": {"holderIdentity": "one"}})
}

/// What the controller has to do.
async fn work(admin: &Client) -> Vec<Try> {
    let topology = json!({"apiVersion": "ratchet.dev/v1alpha1", "kind": "Topology",
        "metadata": {"name": "lab"}, "spec": {"links": [{"endpoints": ["r1:eth1", "r2:eth1"]}]}});
    let topology = create(admin, &ours("team-a", "topologies"), &topology).await;
    let mut made = link("lab-0123456789", "n1", "n2");
    made["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "ratchet.dev/v1alpha1", "kind": "Topology", "name": "lab",
        "uid": topology["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    }]);
    let block = json!({"apiVersion": "ratchet.dev/v1alpha1", "kind": "VNIBlock",
        "metadata": {"name": "0"}, "spec": {"entries": {"11": {"link": "team-a/lab-0123456789"}}}});
    let conditions = json!({"status": {"conditions": [{
        "type": "Accepted", "status": "True", "reason": "Resolved", "message": "",
        "lastTransitionTime": "2026-11-30T00:00:00Z",
    }]}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/ratchet/leases";
    let mut tries = Vec::new();
    let mut add = |verb, path: &str, name, object: &Value| {
        tries.push(Try::new(verb, path, name, object.clone(), Answer::Done));
    };
    for path in ["/api/v1/pods", "/api/v1/nodes"] {
        add(Verb::List, path, "", &Value::Null);
    }
    for kind in [
        "topologies",
        "linkgrants",
        "links",
        "nodeunderlays",
        "vniblocks",
    ] {
        add(Verb::List, &format!("{OURS}/{kind}"), "", &Value::Null);
    }
    add(Verb::Create, &format!("{OURS}/vniblocks"), "", &block);
    add(
        Verb::Merge(""),
        &format!("{OURS}/vniblocks"),
        "0",
        &json!({"spec": {"entries": null}}),
    );
    let links = ours("team-a", "links");
    add(Verb::Create, &links, "", &made);
    add(
        Verb::Merge(""),
        &links,
        "lab-0123456789/status",
        &conditions,
    );
    add(
        Verb::Merge(""),
        &links,
        "lab-0123456789",
        &json!({"metadata": {"finalizers": []}}),
    );
    add(Verb::Delete, &links, "lab-0123456789", &Value::Null);
    add(Verb::Create, &links, "", &made);
    add(
        Verb::Merge(""),
        &links,
        "lab-0123456789",
        &json!({"metadata": {"finalizers": []}}),
    );
    add(
        Verb::Merge(""),
        &ours("team-a", "topologies"),
        "lab/status",
        &conditions,
    );
    add(Verb::Create, leases, "", &lease("ratchet-controller"));
    let renewed = json!({"spec": {"holderIdentity": "two"}});
    add(Verb::Merge(""), leases, "ratchet-controller", &renewed);
    tries
}

fn without_right() -> Vec<Try> {
    let mut tries = Vec::new();
    let mut add = |verb, path: &str, name, word, resource| {
        let answer = Answer::NoRight(word, resource);
        tries.push(Try::new(verb, path, name, json!({}), answer));
    };
    let topologies = ours("team-a", "topologies");
    add(Verb::Merge(""), &topologies, "lab", "patch", "topologies");
    add(Verb::Delete, &topologies, "lab", "delete", "topologies");
    add(
        Verb::Create,
        &ours("team-a", "linkgrants"),
        "",
        "create",
        "linkgrants",
    );
    let underlays = format!("{OURS}/nodeunderlays");
    add(Verb::Merge(""), &underlays, "n1", "patch", "nodeunderlays");
    add(
        Verb::List,
        &core("ratchet", "secrets"),
        "",
        "list",
        "secrets",
    );
    add(Verb::Delete, "/api/v1/nodes", "n1", "delete", "nodes");
    add(Verb::Create, "/api/v1/nodes", "", "create", "nodes");
    add(Verb::Replace, "/api/v1/nodes", "n1", "update", "nodes");
    let status = "n1/status";
    add(
        Verb::Merge(""),
        "/api/v1/nodes",
        status,
        "patch",
        "nodes/status",
    );
    add(
        Verb::Delete,
        &core("team-a", "pods"),
        "r1",
        "delete",
        "pods",
    );
    let leases = "/apis/coordination.k8s.io/v1/namespaces";
    let (own, system) = (
        format!("{leases}/ratchet/leases"),
        format!("{leases}/kube-system/leases"),
    );
    add(Verb::Merge(""), &own, "another", "patch", "leases");
    add(
        Verb::Merge(""),
        &system,
        "kube-scheduler",
        "patch",
        "leases",
    );
    tries
}

/// A node may lose one taint by the controller, and nothing else.
async fn of_nodes(admin: &Client) -> Vec<Try> {
    let ours = json!({"key": "ratchet.dev/agent-not-ready", "effect": "NoSchedule"});
    let other = json!({"key": "example.com/other", "effect": "NoExecute"});
    let node = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "tainted", "labels": {"role": "worker"}}});
    create(admin, "/api/v1/nodes", &node).await;
    // The API server gives new nodes a taint of its own.
    let both = json!({"spec": {"taints": [ours, other]}});
    merge(admin, "/api/v1/nodes", "tainted", both).await;
    let policy = |message| Answer::Policy("ratchet-controller-nodes", message);
    let taints = "the controller may only remove the taint ratchet.dev/agent-not-ready";
    let rest = "the controller may only remove a taint of a node";
    let third = json!({"key": "example.com/third", "effect": "NoExecute"});
    let left = json!([other]);
    [
        (json!({"spec": {"taints": null}}), policy(taints)),
        (json!({"spec": {"taints": [ours]}}), policy(taints)),
        (
            json!({"spec": {"taints": [ours, other, third]}}),
            policy(taints),
        ),
        (
            json!({"spec": {"taints": left, "unschedulable": true}}),
            policy(rest),
        ),
        (
            json!({"spec": {"taints": left, "providerID": "x://y"}}),
            policy(rest),
        ),
        (
            json!({"spec": {"taints": left}, "metadata": {"labels": {"role": "control-plane"}}}),
            policy(rest),
        ),
        (
            json!({"spec": {"taints": left}, "metadata": {"annotations": {"a": "b"}}}),
            policy(rest),
        ),
        (json!({"spec": {"taints": left}}), Answer::Done),
    ]
    .into_iter()
    .map(|(change, answer)| Try::new(Verb::Merge(""), "/api/v1/nodes", "tainted", change, answer))
    .collect()
}
