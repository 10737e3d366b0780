//! Requests of an account, and what the API server must answer.

use kube::{
    Client,
    api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams},
    core::Request,
};
use serde_json::Value;

/// What an account does.
#[derive(Clone, Copy)]
pub enum Verb {
    Get,
    List,
    Create,
    /// Server-side apply, as a field manager.
    Apply(&'static str),
    /// A merge patch, as a field manager.
    Merge(&'static str),
    Replace,
    Delete,
    DeleteAll,
}

/// What the API server answers.
pub enum Answer {
    Done,
    /// RBAC refuses it: the verb and the resource.
    NoRight(&'static str, &'static str),
    /// A policy refuses it: the policy and a part of its message.
    Policy(&'static str, &'static str),
}

/// One request. `name` may have a subresource behind a slash.
pub struct Try {
    pub verb: Verb,
    pub path: String,
    pub name: String,
    pub object: Value,
    pub answer: Answer,
}

impl Try {
    pub fn new(verb: Verb, path: &str, name: &str, object: Value, answer: Answer) -> Self {
        Self {
            verb,
            path: path.to_owned(),
            name: name.to_owned(),
            object,
            answer,
        }
    }

    async fn send(&self, client: &Client) -> Result<(), kube::Error> {
        let request = Request::new(&self.path);
        let body = || self.object.to_string().into_bytes();
        let post = PostParams::default();
        let request = match self.verb {
            Verb::Get => request.get(&self.name, &GetParams::default()),
            Verb::List => request.list(&ListParams::default()),
            // Subresources of objects are created, too.
            Verb::Create if self.name.is_empty() => request.create(&post, body()),
            Verb::Create => {
                Request::new(format!("{}/{}", self.path, self.name)).create(&post, body())
            }
            Verb::Apply(manager) => {
                let parameters = PatchParams::apply(manager).force();
                request.patch(&self.name, &parameters, &Patch::Apply(&self.object))
            }
            Verb::Merge(manager) => {
                let parameters = PatchParams {
                    field_manager: Some(manager.to_owned()).filter(|name| !name.is_empty()),
                    ..PatchParams::default()
                };
                request.patch(&self.name, &parameters, &Patch::Merge(&self.object))
            }
            Verb::Replace => request.replace(&self.name, &post, body()),
            Verb::Delete => request.delete(&self.name, &DeleteParams::default()),
            Verb::DeleteAll => {
                request.delete_collection(&DeleteParams::default(), &ListParams::default())
            }
        };
        client.request_text(request.unwrap()).await.map(drop)
    }
}

/// Sends each request and compares the answers.
pub async fn all(who: &str, client: &Client, tries: Vec<Try>) {
    let mut wrong = Vec::new();
    for tried in tries {
        let answer = match tried.send(client).await {
            Ok(()) => "200: done".to_owned(),
            Err(kube::Error::Api(status)) => format!("{}: {}", status.code, status.message),
            Err(error) => panic!("{who}: {error}"),
        };
        let parts = match &tried.answer {
            Answer::Done => vec!["200: ".to_owned()],
            Answer::NoRight(verb, resource) => vec![
                "403: ".to_owned(),
                format!("cannot {verb} resource \"{resource}\""),
            ],
            // A policy's answer is 422 by default.
            Answer::Policy(policy, message) => vec![
                format!("ValidatingAdmissionPolicy '{policy}'"),
                format!("denied request: {message}"),
            ],
        };
        if !parts.iter().all(|part| answer.contains(part)) {
            let Try {
                path, name, object, ..
            } = &tried;
            wrong.push(format!(
                "{path} {name} {object}\n  answer: {answer}\n  expected: {parts:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{who}:\n{}", wrong.join("\n"));
}
