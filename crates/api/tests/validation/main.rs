//! What the API server refuses, and what it shows: the CRDs on a real one.
#![allow(clippy::unwrap_used, clippy::too_many_lines)]

mod links;
mod others;
mod topologies;

use std::path::Path;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, PostParams},
    core::{ApiResource, GroupVersionKind},
    runtime::{conditions, wait::await_condition},
};
use ratchet_api_server::{Server, on_a_server};
use serde_json::{Value, json};

/// Objects of one kind, and what the API server says to each of them.
pub struct Kind {
    api: Api<DynamicObject>,
    kind: &'static str,
}

impl Kind {
    /// A kind of the API.
    pub fn new(client: &Client, kind: &'static str, plural: &str, is_namespaced: bool) -> Self {
        let gvk = GroupVersionKind::gvk(ratchet_api::GROUP, ratchet_api::VERSION, kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
        let api = match is_namespaced {
            true => Api::namespaced_with(client.clone(), "default", &resource),
            false => Api::all_with(client.clone(), &resource),
        };
        Self { api, kind }
    }

    fn object(&self, name: &str, spec: &Value) -> DynamicObject {
        let object = json!({
            "apiVersion": format!("{}/{}", ratchet_api::GROUP, ratchet_api::VERSION),
            "kind": self.kind,
            "metadata": {"name": name},
            "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    /// Returns what is wrong, if the server refuses to create an object. It creates none.
    pub async fn refusal(&self, spec: &Value) -> Option<String> {
        let try_only = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let object = self.object("tried", spec);
        refusal(self.api.create(&try_only, &object).await)
    }

    /// Creates an object.
    pub async fn create(&self, name: &str, spec: &Value) {
        let object = self.object(name, spec);
        self.api
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
    }

    /// Deletes an object.
    pub async fn delete(&self, name: &str) {
        self.api
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }

    /// Returns what is wrong, if the server refuses to change an object. It changes none.
    pub async fn refusal_of_change(&self, name: &str, spec: &Value) -> Option<String> {
        let try_only = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let mut object = self.object(name, spec);
        object.metadata.resource_version =
            self.api.get(name).await.unwrap().metadata.resource_version;
        refusal(self.api.replace(name, &try_only, &object).await)
    }

    /// The server accepts it.
    pub async fn accepts(&self, spec: Value) {
        if let Some(refusal) = self.refusal(&spec).await {
            panic!("{} {spec} is refused: {refusal}", self.kind);
        }
    }

    /// The server refuses it, and `part` is in the message.
    pub async fn refuses(&self, part: &str, spec: Value) {
        let Some(refusal) = self.refusal(&spec).await else {
            panic!("{} {spec} is accepted; expected: {part}", self.kind);
        };
        assert!(
            refusal.contains(part),
            "{} {spec}: {refusal:?} lacks {part:?}",
            self.kind
        );
    }
}

fn refusal(answer: kube::Result<DynamicObject>) -> Option<String> {
    match answer {
        Ok(_) => None,
        Err(kube::Error::Api(status)) if status.code == 422 => Some(status.message),
        Err(other) => panic!("{other}"),
    }
}

/// A spec with a change: the value at a JSON pointer is replaced or added.
pub fn with(spec: &Value, pointer: &str, value: Value) -> Value {
    let mut spec = spec.clone();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match spec.pointer_mut(parent).unwrap() {
        Value::Object(fields) => {
            fields.insert(key.to_owned(), value);
        }
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        other => panic!("{other} has no fields"),
    }
    spec
}

/// The CRDs, as users apply them. Applying them again changes nothing.
async fn apply_definitions(server: &Server, programs: &Path) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/base/crds.yaml");
    let api: Api<CustomResourceDefinition> = Api::all(server.client.clone());
    for what_happens in ["created", "unchanged"] {
        let output = server.kubectl(programs, &["apply", "-f", file]);
        let count = output
            .lines()
            .filter(|line| line.ends_with(what_happens))
            .count();
        assert_eq!(count, ratchet_api::crds().len(), "{output}");
        for crd in ratchet_api::crds() {
            let name = crd.metadata.name.unwrap();
            let established = conditions::is_crd_established();
            await_condition(api.clone(), &name, established)
                .await
                .unwrap();
        }
    }
}

/// One server for all, since it takes some seconds to start.
#[test]
fn the_api_server_refuses_what_it_can_and_shows_what_there_is() {
    on_a_server(async |server, programs| {
        apply_definitions(&server, &programs).await;
        links::run(&server.client).await;
        topologies::run(&server.client).await;
        others::run(&server.client).await;
    });
}
