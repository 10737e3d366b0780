//! Tenants: accounts with rights in one namespace.

use kube::{Client, api::DeleteParams, core::Request};
use ratchet_api_server::Server;
use serde_json::{Value, json};

use crate::{
    OURS, RBAC, account, core, create, get, link, ours, token,
    tries::{self, Answer, Try, Verb},
    until,
};

const ONLY_THE_CONTROLLER: Answer = Answer::Policy(
    "ratchet-links",
    "only the controller writes Links: declare links in a Topology",
);

pub async fn run(server: &Server) {
    let admin = &server.client;
    let editor = tenant(server, "editor", "ClusterRole", "edit").await;
    let viewer = tenant(server, "viewer", "ClusterRole", "view").await;
    until("Kubernetes' own roles have Ratchet's rights", async || {
        let list = Request::new(ours("team-a", "topologies")).list(&Default::default());
        let delete = Request::new(ours("team-a", "linkgrants"));
        let delete = delete.delete("none", &DeleteParams::default());
        viewer.request_text(list.unwrap()).await.is_ok()
            && matches!(editor.request_text(delete.unwrap()).await,
                Err(kube::Error::Api(status)) if status.code == 404)
    })
    .await;
    tries::all("who may edit", &editor, may_edit()).await;
    tries::all("who may edit", &editor, may_not_edit()).await;
    tries::all("who may view", &viewer, may_view()).await;

    let everything = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "everything"},
        "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
    });
    create(
        admin,
        &format!("{RBAC}/namespaces/team-a/roles"),
        &everything,
    )
    .await;
    let owner = tenant(server, "owner", "Role", "everything").await;
    until("the owner of the namespace has rights", async || {
        let list = Request::new(core("team-a", "secrets")).list(&Default::default());
        owner.request_text(list.unwrap()).await.is_ok()
    })
    .await;
    tries::all("the owner of a namespace", &owner, owns()).await;
    kubernetes_itself(admin).await;
}

/// An account of team-a that has a role there.
async fn tenant(server: &Server, name: &str, kind: &str, role: &str) -> Client {
    let admin = &server.client;
    account(admin, "team-a", name).await;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "team-a"}],
    });
    create(
        admin,
        &format!("{RBAC}/namespaces/team-a/rolebindings"),
        &binding,
    )
    .await;
    server.client_of(&token(admin, "team-a", name, None).await)
}

fn topology(name: &str) -> Value {
    json!({"apiVersion": "ratchet.dev/v1alpha1", "kind": "Topology", "metadata": {"name": name},
        "spec": {"links": [{"endpoints": ["r1:eth1", "team-b/r2:eth1"]}]}})
}

fn grant() -> Value {
    json!({"apiVersion": "ratchet.dev/v1alpha1", "kind": "LinkGrant", "metadata": {"name": "g"},
        "spec": {"from": [{"namespace": "team-b"}], "to": [{}]}})
}

fn may_edit() -> Vec<Try> {
    let done = |verb, plural, name, object| {
        Try::new(verb, &ours("team-a", plural), name, object, Answer::Done)
    };
    vec![
        done(Verb::Create, "topologies", "", topology("mine")),
        done(
            Verb::Merge(""),
            "topologies",
            "mine",
            json!({"spec": {"links": []}}),
        ),
        done(Verb::Delete, "topologies", "mine", Value::Null),
        done(Verb::Create, "linkgrants", "", grant()),
        done(Verb::Delete, "linkgrants", "g", Value::Null),
        done(Verb::List, "links", "", Value::Null),
        done(Verb::Get, "links", "first", Value::Null),
    ]
}

fn may_not_edit() -> Vec<Try> {
    let mut tries = Vec::new();
    let mut add = |verb, path: &str, name, object, word, resource| {
        tries.push(Try::new(
            verb,
            path,
            name,
            object,
            Answer::NoRight(word, resource),
        ));
    };
    let (links, topologies) = (ours("team-a", "links"), ours("team-a", "topologies"));
    add(
        Verb::Create,
        &links,
        "",
        link("mine", "n1", "n2"),
        "create",
        "links",
    );
    add(
        Verb::Apply("x"),
        &links,
        "first",
        link("first", "n1", "n3"),
        "patch",
        "links",
    );
    add(Verb::Replace, &links, "first", json!({}), "update", "links");
    add(
        Verb::Delete,
        &links,
        "first",
        Value::Null,
        "delete",
        "links",
    );
    add(
        Verb::DeleteAll,
        &links,
        "",
        Value::Null,
        "deletecollection",
        "links",
    );
    add(
        Verb::Merge("ratchet-a"),
        &links,
        "first/status",
        json!({}),
        "patch",
        "links/status",
    );
    add(
        Verb::Merge(""),
        &topologies,
        "lab/status",
        json!({}),
        "patch",
        "topologies/status",
    );
    // Another namespace, and what is of no namespace.
    for plural in ["topologies", "linkgrants"] {
        let path = ours("team-b", plural);
        add(Verb::List, &path, "", Value::Null, "list", plural);
        add(Verb::Delete, &path, "x", Value::Null, "delete", plural);
    }
    add(
        Verb::Create,
        &ours("team-b", "topologies"),
        "",
        topology("x"),
        "create",
        "topologies",
    );
    add(
        Verb::Create,
        &ours("team-b", "linkgrants"),
        "",
        grant(),
        "create",
        "linkgrants",
    );
    add(
        Verb::List,
        &ours("team-b", "links"),
        "",
        Value::Null,
        "list",
        "links",
    );
    add(
        Verb::List,
        &format!("{OURS}/links"),
        "",
        Value::Null,
        "list",
        "links",
    );
    for (plural, name) in [("nodeunderlays", "n1"), ("vniblocks", "0")] {
        let path = format!("{OURS}/{plural}");
        add(Verb::Get, &path, name, Value::Null, "get", plural);
        add(Verb::Create, &path, "", json!({}), "create", plural);
        add(Verb::Merge(""), &path, name, json!({}), "patch", plural);
    }
    // The way to an agent's or the controller's account.
    add(
        Verb::Create,
        &core("ratchet", "pods"),
        "",
        json!({}),
        "create",
        "pods",
    );
    let (accounts, resource) = (core("ratchet", "serviceaccounts"), "serviceaccounts/token");
    add(
        Verb::Create,
        &accounts,
        "ratchet-agent/token",
        json!({}),
        "create",
        resource,
    );
    add(
        Verb::Create,
        &accounts,
        "ratchet-controller/token",
        json!({}),
        "create",
        resource,
    );
    tries
}

fn may_view() -> Vec<Try> {
    let no = |verb, plural, name, word| {
        Try::new(
            verb,
            &ours("team-a", plural),
            name,
            json!({}),
            Answer::NoRight(word, plural),
        )
    };
    let read = |plural| {
        Try::new(
            Verb::List,
            &ours("team-a", plural),
            "",
            Value::Null,
            Answer::Done,
        )
    };
    vec![
        read("links"),
        read("topologies"),
        read("linkgrants"),
        no(Verb::Create, "topologies", "", "create"),
        no(Verb::Create, "linkgrants", "", "create"),
        no(Verb::Merge(""), "topologies", "lab", "patch"),
        no(Verb::Create, "links", "", "create"),
    ]
}

/// A role with all rights in a namespace reaches no pod of another one.
fn owns() -> Vec<Try> {
    let links = ours("team-a", "links");
    let no = |verb, name, object| Try::new(verb, &links, name, object, ONLY_THE_CONTROLLER);
    let mut reaching = link("reaching", "n1", "n2");
    reaching["spec"]["b"]["namespace"] = json!("team-b");
    let state = json!({"status": {"a": {"node": "n1", "podUID": "u", "observedGeneration": 1,
        "state": "Removed"}}});
    vec![
        no(Verb::Create, "", reaching.clone()),
        no(Verb::Apply("x"), "reaching", reaching),
        no(Verb::Merge(""), "first", json!({"spec": {"mtu": 1300}})),
        no(
            Verb::Merge(""),
            "first",
            json!({"metadata": {"finalizers": []}}),
        ),
        no(
            Verb::Merge(""),
            "first",
            json!({"metadata": {"labels": {"node.ratchet.dev/n3": ""}}}),
        ),
        no(Verb::Merge("ratchet-a"), "first/status", state),
        // To delete a link of the own namespace is to do without it. The finalizer stays.
        Try::new(Verb::Delete, &links, "inside", Value::Null, Answer::Done),
    ]
}

/// The garbage collector changes and deletes Links, and a namespace with Links ends.
async fn kubernetes_itself(admin: &Client) {
    let (topologies, links) = (ours("team-a", "topologies"), ours("team-a", "links"));
    let owned = create(admin, &topologies, &topology("owner")).await;
    let mut of_owner = link("of-owner", "n1", "n2");
    of_owner["metadata"] = json!({"name": "of-owner", "ownerReferences": [{
        "apiVersion": "ratchet.dev/v1alpha1", "kind": "Topology", "name": "owner",
        "uid": owned["metadata"]["uid"],
    }]});
    create(admin, &links, &of_owner).await;
    let delete = Request::new(&topologies)
        .delete("owner", &DeleteParams::orphan())
        .unwrap();
    admin.request_text(delete).await.unwrap();
    until(
        "the garbage collector has cut the Link off its owner",
        async || {
            let link = get(admin, &links, "of-owner").await.unwrap();
            link["metadata"].get("ownerReferences").is_none()
                && get(admin, &topologies, "owner").await.is_err()
        },
    )
    .await;

    let delete = Request::new(&topologies).delete("lab", &DeleteParams::default());
    admin.request_text(delete.unwrap()).await.unwrap();
    until("the Link ends with its Topology", async || {
        get(admin, &links, "lab-0123456789").await.is_err()
    })
    .await;

    let in_team_b = ours("team-b", "links");
    let mut plain = link("plain", "n1", "n2");
    plain["metadata"] = json!({"name": "plain"});
    create(admin, &in_team_b, &plain).await;
    let delete = Request::new("/api/v1/namespaces").delete("team-b", &DeleteParams::default());
    admin.request_text(delete.unwrap()).await.unwrap();
    until("the namespace ends with its Link", async || {
        get(admin, "/api/v1/namespaces", "team-b").await.is_err()
    })
    .await;
}
