//! Agents: each writes for its own node.

use kube::Client;
use ratchet_api::{MANAGER_OF_A, MANAGER_OF_B};
use ratchet_api_server::Server;
use serde_json::{Value, json};

use crate::{
    OURS, RBAC, core, create, get, link, merge, ours, token,
    tries::{self, Answer, Try, Verb},
    until,
};

const POLICY: &str = "ratchet-agent";
const MANAGER: &str = "ratchet-agent";
const ELSEWHERE: &str = "an agent may change the status of Links with an end on its node only";

pub async fn run(server: &Server) {
    let admin = &server.client;
    for (name, a, b) in [
        ("first", "n1", "n2"),
        ("inside", "n1", "n1"),
        ("foreign", "n2", "n3"),
    ] {
        create(admin, &ours("team-a", "links"), &link(name, a, b)).await;
    }
    let mut unplaced = link("unplaced", "n1", "n2");
    for end in ["a", "b"] {
        let end = unplaced["spec"][end].as_object_mut().unwrap();
        end.retain(|key, _| !["node", "podUID", "vtep"].contains(&key.as_str()));
    }
    create(admin, &ours("team-a", "links"), &unplaced).await;

    let n1 = agent(server, "agent-1", Some("n1")).await;
    let n2 = agent(server, "agent-2", Some("n2")).await;
    until("the policy for agents works", async || {
        let request = kube::core::Request::new(format!("{OURS}/nodeunderlays"));
        let parameters = kube::api::PatchParams::apply(MANAGER).dry_run();
        let patch = kube::api::Patch::Apply(underlay("n9"));
        let request = request.patch("n9", &parameters, &patch).unwrap();
        n1.request_text(request).await.is_err()
    })
    .await;

    let before = links(admin).await;
    tries::all("the agent of n1", &n1, work()).await;
    tries::all("the agent of n1", &n1, underlays()).await;
    tries::all("the agent of n1", &n1, statuses()).await;
    tries::all("the agent of n1", &n1, events()).await;
    tries::all("the agent of n1", &n1, without_right()).await;
    tries::all("the agent of n2", &n2, of_the_other_agent()).await;
    assert_eq!(before, links(admin).await, "agents change statuses only");
    without_a_node(server).await;
    with_more_rights(admin, &n1).await;
    after_a_move(admin, &n1, &n2).await;
    after_the_pod(admin, &n1).await;
}

/// A client with the token of an agent's pod. A pod without a node has not been scheduled.
async fn agent(server: &Server, pod: &str, node: Option<&str>) -> Client {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod},
        "spec": {"serviceAccountName": "ratchet-agent",
            "containers": [{"name": "agent", "image": "ratchet"}]},
    });
    if let Some(node) = node {
        object["spec"]["nodeName"] = json!(node);
    }
    create(&server.client, &core("ratchet", "pods"), &object).await;
    let token = token(&server.client, "ratchet", "ratchet-agent", Some(pod)).await;
    server.client_of(&token)
}

/// All Links without their statuses.
async fn links(admin: &Client) -> Vec<Value> {
    let mut links = Vec::new();
    for name in ["first", "inside", "foreign", "unplaced"] {
        let link = get(admin, &ours("team-a", "links"), name).await.unwrap();
        let metadata = &link["metadata"];
        links.push(json!([
            metadata["generation"],
            metadata["labels"],
            metadata["annotations"],
            metadata["finalizers"],
            metadata["ownerReferences"],
            link["spec"],
            link["status"]["conditions"],
        ]));
    }
    links
}

fn underlay(node: &str) -> Value {
    json!({
        "apiVersion": "ratchet.dev/v1alpha1", "kind": "NodeUnderlay", "metadata": {"name": node},
        "spec": {"vtep": "192.0.2.1", "mtu": 1450, "port": 4789, "version": "0.1.0"},
    })
}

/// The status of one end.
fn end(node: &str) -> Value {
    json!({"node": node, "podUID": "u", "observedGeneration": 1, "state": "Up"})
}

fn status(status: &Value) -> Value {
    json!({"apiVersion": "ratchet.dev/v1alpha1", "kind": "Link", "status": status})
}

/// A write of a Link's status.
fn of_link(name: &'static str, verb: Verb, written: &Value, answer: Answer) -> Try {
    let name = format!("{name}/status");
    Try::new(
        verb,
        &ours("team-a", "links"),
        &name,
        status(written),
        answer,
    )
}

fn event(controller: &str, instance: &str) -> Value {
    json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"generateName": "r1", "namespace": "team-a"},
        "eventTime": "2026-11-30T00:00:00.000000Z", "type": "Warning", "reason": "Wired",
        "action": "Wiring", "reportingController": controller, "reportingInstance": instance,
        "regarding": {"apiVersion": "v1", "kind": "Pod", "namespace": "team-a", "name": "r1"},
    })
}

/// What an agent has to do.
fn work() -> Vec<Try> {
    let underlays = format!("{OURS}/nodeunderlays");
    let mut newer = underlay("n1");
    newer["spec"]["version"] = json!("0.2.0");
    let mut failed = end("n1");
    failed["state"] = json!("Failed");
    let read = |path: &str| Try::new(Verb::List, path, "", Value::Null, Answer::Done);
    vec![
        Try::new(
            Verb::Apply(MANAGER),
            &underlays,
            "n1",
            underlay("n1"),
            Answer::Done,
        ),
        Try::new(Verb::Apply(MANAGER), &underlays, "n1", newer, Answer::Done),
        Try::new(Verb::Get, &underlays, "n1", Value::Null, Answer::Done),
        read(&format!("{OURS}/links")),
        read("/api/v1/pods"),
        Try::new(
            Verb::Get,
            &core("ratchet", "pods"),
            "agent-1",
            Value::Null,
            Answer::Done,
        ),
        of_link(
            "first",
            Verb::Apply(MANAGER_OF_A),
            &json!({"a": end("n1")}),
            Answer::Done,
        ),
        of_link(
            "inside",
            Verb::Apply(MANAGER_OF_A),
            &json!({"a": end("n1")}),
            Answer::Done,
        ),
        of_link(
            "inside",
            Verb::Apply(MANAGER_OF_B),
            &json!({"b": end("n1")}),
            Answer::Done,
        ),
        // Both ends at once, if both are on the node.
        of_link(
            "inside",
            Verb::Merge(MANAGER_OF_A),
            &json!({"a": failed, "b": failed}),
            Answer::Done,
        ),
        Try::new(
            Verb::Create,
            "/apis/events.k8s.io/v1/namespaces/team-a/events",
            "",
            event("ratchet", "n1"),
            Answer::Done,
        ),
    ]
}

fn underlays() -> Vec<Try> {
    let path = format!("{OURS}/nodeunderlays");
    let own = "an agent may write the NodeUnderlay of its own node only";
    let refused =
        |verb, name, object| Try::new(verb, &path, name, object, Answer::Policy(POLICY, own));
    let unnamed = {
        let mut object = underlay("n1");
        object["metadata"] = json!({"generateName": "n1"});
        object
    };
    let no_right = |verb, name, what| {
        Try::new(
            verb,
            &path,
            name,
            Value::Null,
            Answer::NoRight(what, "nodeunderlays"),
        )
    };
    vec![
        refused(Verb::Apply(MANAGER), "n2", underlay("n2")),
        refused(Verb::Create, "", underlay("n2")),
        refused(Verb::Create, "", unnamed),
        no_right(Verb::Delete, "n1", "delete"),
        no_right(Verb::DeleteAll, "", "deletecollection"),
        no_right(Verb::List, "", "list"),
    ]
}

fn statuses() -> Vec<Try> {
    let (a, b) = (json!({"a": end("n1")}), json!({"b": end("n1")}));
    let refused = |name, verb, written: &Value, message| {
        of_link(name, verb, written, Answer::Policy(POLICY, message))
    };
    let other_end = "end b is on another node: the agent there writes status.b";
    let manager = "an agent writes status.a as the field manager ratchet-a";
    let condition = json!([{
        "type": "Accepted", "status": "True", "reason": "Resolved", "message": "",
        "lastTransitionTime": "2026-11-30T00:00:00Z",
    }]);
    let mut newer = end("n1");
    newer["state"] = json!("Failed");
    let mut more = status(&json!({"a": newer}));
    more["spec"] = json!({"vni": 12});
    more["metadata"] = json!({"labels": {"node.ratchet.dev/n9": ""}, "finalizers": [],
        "annotations": {"x": "y"}});
    vec![
        // Links of others.
        refused("foreign", Verb::Apply(MANAGER_OF_A), &a, ELSEWHERE),
        refused("foreign", Verb::Apply(MANAGER_OF_B), &b, ELSEWHERE),
        refused("foreign", Verb::Apply(MANAGER_OF_A), &json!({}), ELSEWHERE),
        refused("unplaced", Verb::Apply(MANAGER_OF_A), &a, ELSEWHERE),
        // The other end of an own Link.
        refused("first", Verb::Apply(MANAGER_OF_B), &b, other_end),
        refused("first", Verb::Apply(MANAGER_OF_A), &b, other_end),
        refused("first", Verb::Merge(MANAGER_OF_A), &b, other_end),
        refused(
            "first",
            Verb::Merge(MANAGER_OF_A),
            &json!({"a": newer, "b": end("n1")}),
            other_end,
        ),
        refused(
            "first",
            Verb::Apply(MANAGER_OF_A),
            &json!({"a": newer, "b": end("n2")}),
            other_end,
        ),
        // In the name of the other end, whose next apply would then remove end a.
        refused("first", Verb::Apply(MANAGER_OF_B), &a, manager),
        refused("first", Verb::Apply(MANAGER), &a, manager),
        refused("first", Verb::Merge(""), &json!({"a": newer}), manager),
        // In the name of another node.
        refused(
            "first",
            Verb::Apply(MANAGER_OF_A),
            &json!({"a": end("n2")}),
            "the node in an end's status must be the node of the agent that writes it",
        ),
        // What is the controller's.
        refused(
            "first",
            Verb::Apply(MANAGER_OF_A),
            &json!({"a": end("n1"), "conditions": condition}),
            "the controller writes status.conditions",
        ),
        // What else is in such a write has no effect: `links` compares.
        Try::new(
            Verb::Merge(MANAGER_OF_A),
            &ours("team-a", "links"),
            "first/status",
            more,
            Answer::Done,
        ),
    ]
}

fn events() -> Vec<Try> {
    let message = "an agent may write its own events only";
    let tried = |controller, instance| {
        Try::new(
            Verb::Create,
            "/apis/events.k8s.io/v1/namespaces/team-a/events",
            "",
            event(controller, instance),
            Answer::Policy("ratchet-agent-events", message),
        )
    };
    vec![tried("kubelet", "n1"), tried("ratchet", "n2")]
}

/// What no agent has a right to, on any node.
fn without_right() -> Vec<Try> {
    let mut tries = Vec::new();
    let mut add = |verb, path: &str, name, word, resource| {
        tries.push(Try::new(
            verb,
            path,
            name,
            json!({}),
            Answer::NoRight(word, resource),
        ));
    };
    let links = ours("team-a", "links");
    add(Verb::Create, &links, "", "create", "links");
    add(Verb::Merge(MANAGER_OF_A), &links, "first", "patch", "links");
    add(Verb::Apply(MANAGER_OF_A), &links, "first", "patch", "links");
    add(Verb::Replace, &links, "first", "update", "links");
    add(
        Verb::Replace,
        &links,
        "first/status",
        "update",
        "links/status",
    );
    add(Verb::Delete, &links, "first", "delete", "links");
    add(Verb::DeleteAll, &links, "", "deletecollection", "links");
    for plural in ["topologies", "linkgrants"] {
        let path = ours("team-a", plural);
        add(Verb::List, &path, "", "list", plural);
        add(Verb::Create, &path, "", "create", plural);
        add(Verb::Delete, &path, "x", "delete", plural);
    }
    let blocks = format!("{OURS}/vniblocks");
    add(Verb::Get, &blocks, "0", "get", "vniblocks");
    add(Verb::Create, &blocks, "", "create", "vniblocks");
    add(Verb::Merge(""), &blocks, "0", "patch", "vniblocks");
    for namespace in ["team-a", "kube-system", "ratchet"] {
        add(
            Verb::List,
            &core(namespace, "secrets"),
            "",
            "list",
            "secrets",
        );
        add(
            Verb::Get,
            &core(namespace, "secrets"),
            "x",
            "get",
            "secrets",
        );
        add(
            Verb::List,
            &core(namespace, "configmaps"),
            "",
            "list",
            "configmaps",
        );
    }
    let pods = core("team-a", "pods");
    add(Verb::Create, &pods, "", "create", "pods");
    add(Verb::Delete, &pods, "r1", "delete", "pods");
    add(Verb::Merge(""), &pods, "r1", "patch", "pods");
    add(Verb::Merge(""), &pods, "r1/status", "patch", "pods/status");
    add(Verb::Create, &pods, "r1/exec", "create", "pods/exec");
    add(
        Verb::Create,
        &pods,
        "r1/eviction",
        "create",
        "pods/eviction",
    );
    add(Verb::Get, &pods, "r1/log", "get", "pods/log");
    add(Verb::List, "/api/v1/nodes", "", "list", "nodes");
    add(Verb::Merge(""), "/api/v1/nodes", "n1", "patch", "nodes");
    add(
        Verb::Create,
        &core("team-a", "events"),
        "",
        "create",
        "events",
    );
    let accounts = core("ratchet", "serviceaccounts");
    add(
        Verb::Create,
        &accounts,
        "ratchet-agent/token",
        "create",
        "serviceaccounts/token",
    );
    add(
        Verb::Create,
        &accounts,
        "ratchet-controller/token",
        "create",
        "serviceaccounts/token",
    );
    let leases = "/apis/coordination.k8s.io/v1/namespaces/ratchet/leases";
    add(Verb::Get, leases, "another", "get", "leases");
    add(
        Verb::Merge(""),
        leases,
        "ratchet-controller",
        "patch",
        "leases",
    );
    add(Verb::Create, leases, "", "create", "leases");
    let daemons = "/apis/apps/v1/namespaces/ratchet/daemonsets";
    add(
        Verb::Merge(""),
        daemons,
        "ratchet-agent",
        "patch",
        "daemonsets",
    );
    let roles = format!("{RBAC}/clusterroles");
    add(
        Verb::Merge(""),
        &roles,
        "ratchet-agent",
        "patch",
        "clusterroles",
    );
    let policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    add(
        Verb::Delete,
        policies,
        "ratchet-agent",
        "delete",
        "validatingadmissionpolicies",
    );
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    add(
        Verb::Delete,
        crds,
        "links.ratchet.dev",
        "delete",
        "customresourcedefinitions",
    );
    tries
}

fn of_the_other_agent() -> Vec<Try> {
    let b = json!({"b": end("n2")});
    vec![
        of_link("first", Verb::Apply(MANAGER_OF_B), &b, Answer::Done),
        of_link(
            "foreign",
            Verb::Apply(MANAGER_OF_A),
            &json!({"a": end("n2")}),
            Answer::Done,
        ),
        of_link(
            "inside",
            Verb::Apply(MANAGER_OF_B),
            &b,
            Answer::Policy(POLICY, ELSEWHERE),
        ),
        Try::new(
            Verb::Apply(MANAGER),
            &format!("{OURS}/nodeunderlays"),
            "n1",
            underlay("n1"),
            Answer::Policy(
                POLICY,
                "an agent may write the NodeUnderlay of its own node only",
            ),
        ),
    ]
}

/// Tokens of the agents' account that name no node: one without a pod, and a pod without a node.
async fn without_a_node(server: &Server) {
    let unbound = token(&server.client, "ratchet", "ratchet-agent", None).await;
    let unscheduled = agent(server, "agent-3", None).await;
    let message = "this token names no node: an agent needs the token of its pod";
    for client in [server.client_of(&unbound), unscheduled] {
        let underlays = format!("{OURS}/nodeunderlays");
        let by = |policy| Answer::Policy(policy, message);
        let tried = vec![
            Try::new(
                Verb::Apply(MANAGER),
                &underlays,
                "n1",
                underlay("n1"),
                by(POLICY),
            ),
            of_link(
                "first",
                Verb::Apply(MANAGER_OF_A),
                &json!({"a": end("n1")}),
                by(POLICY),
            ),
            of_link(
                "unplaced",
                Verb::Apply(MANAGER_OF_A),
                &json!({"a": end("n1")}),
                by(POLICY),
            ),
            Try::new(
                Verb::Create,
                "/apis/events.k8s.io/v1/namespaces/team-a/events",
                "",
                event("ratchet", "n1"),
                by("ratchet-agent-events"),
            ),
        ];
        tries::all("a token without a node", &client, tried).await;
    }
}

/// The policy does not stand on RBAC alone: with all rights on our kinds, the same is refused.
async fn with_more_rights(admin: &Client, n1: &Client) {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "too-much"},
        "rules": [{"apiGroups": ["ratchet.dev"], "resources": ["*"], "verbs": ["*"]}],
    });
    create(admin, &format!("{RBAC}/clusterroles"), &role).await;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "too-much"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "too-much"},
        "subjects": [{"kind": "ServiceAccount", "name": "ratchet-agent", "namespace": "ratchet"}],
    });
    create(admin, &format!("{RBAC}/clusterrolebindings"), &binding).await;
    let vniblocks = format!("{OURS}/vniblocks");
    until("the rights are there", async || {
        let request = kube::core::Request::new(&vniblocks).list(&kube::api::ListParams::default());
        n1.request_text(request.unwrap()).await.is_ok()
    })
    .await;
    let (links, underlays) = (ours("team-a", "links"), format!("{OURS}/nodeunderlays"));
    let by = |message| Answer::Policy(POLICY, message);
    let status_only = "an agent may change the status of Links only";
    let change = json!({"spec": {"mtu": 1300}});
    let mut replaced = get(admin, &links, "foreign").await.unwrap();
    replaced["status"] = json!({});
    let tried = vec![
        Try::new(
            Verb::Delete,
            &underlays,
            "n1",
            Value::Null,
            by("an agent may not delete"),
        ),
        Try::new(
            Verb::DeleteAll,
            &underlays,
            "",
            Value::Null,
            by("an agent may not delete"),
        ),
        Try::new(
            Verb::Create,
            &links,
            "",
            link("new", "n1", "n1"),
            by(status_only),
        ),
        Try::new(
            Verb::Apply(MANAGER_OF_A),
            &links,
            "new",
            link("new", "n1", "n1"),
            by(status_only),
        ),
        Try::new(
            Verb::Merge(MANAGER_OF_A),
            &links,
            "first",
            change,
            by(status_only),
        ),
        Try::new(Verb::Delete, &links, "first", Value::Null, by(status_only)),
        Try::new(Verb::DeleteAll, &links, "", Value::Null, by(status_only)),
        Try::new(
            Verb::Replace,
            &links,
            "foreign/status",
            replaced,
            by(ELSEWHERE),
        ),
    ];
    tries::all("an agent with more rights", n1, tried).await;
    let delete = kube::api::DeleteParams::default();
    let request = kube::core::Request::new(format!("{RBAC}/clusterrolebindings"));
    let request = request.delete("too-much", &delete).unwrap();
    admin.request_text(request).await.unwrap();
}

/// An end that has moved is its new node's.
async fn after_a_move(admin: &Client, n1: &Client, n2: &Client) {
    let moved = json!({"spec": {"a": {"node": "n2", "podUID": "uid-new"}}});
    merge(admin, &ours("team-a", "links"), "first", moved).await;
    let removed = json!({"a": {"node": "n1", "podUID": "u", "observedGeneration": 1,
        "state": "Removed"}});
    let refused = Answer::Policy(POLICY, ELSEWHERE);
    let late = of_link("first", Verb::Apply(MANAGER_OF_A), &removed, refused);
    tries::all("the agent of n1", n1, vec![late]).await;
    // While end a still has what n1 wrote, n2 writes the other end.
    let mut b = end("n2");
    b["state"] = json!("Waiting");
    let other = of_link(
        "first",
        Verb::Apply(MANAGER_OF_B),
        &json!({"b": b}),
        Answer::Done,
    );
    let own = of_link(
        "first",
        Verb::Apply(MANAGER_OF_A),
        &json!({"a": end("n2")}),
        Answer::Done,
    );
    tries::all("the agent of n2", n2, vec![other, own]).await;
    let link = get(admin, &ours("team-a", "links"), "first").await.unwrap();
    assert_eq!(link["status"]["a"]["node"], "n2");
    assert_eq!(link["status"]["b"]["state"], "Waiting");
}

/// With the agent's pod ends its token.
async fn after_the_pod(admin: &Client, n1: &Client) {
    let at_once = kube::api::DeleteParams::default().grace_period(0);
    let request = kube::core::Request::new(core("ratchet", "pods"));
    let request = request.delete("agent-1", &at_once).unwrap();
    admin.request_text(request).await.unwrap();
    until("the token of a pod that is gone is refused", async || {
        let answer = get(n1, &ours("team-a", "links"), "first").await;
        matches!(answer, Err(kube::Error::Api(status)) if status.code == 401)
    })
    .await;
}
