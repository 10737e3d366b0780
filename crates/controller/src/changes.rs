//! Links as they are written.

use std::collections::BTreeMap;

use kube::api::ObjectMeta;
use ratchet_api::Link;

use crate::{plan::FINALIZER, snapshot::Key, wanted::Wanted};

/// A Link that is to be created.
pub(crate) fn creation(key: &Key, wanted: &Wanted) -> Link {
    let mut link = Link::new(&key.name, wanted.spec.clone());
    link.metadata.namespace = Some(key.namespace.clone());
    apply(&mut link.metadata, None, wanted);
    link
}

/// A Link as it should be; `None` if it is.
pub(crate) fn replacement(present: &Link, wanted: &Wanted) -> Option<Link> {
    let mut metadata = present.metadata.clone();
    apply(&mut metadata, Some(present), wanted);
    if metadata == present.metadata && wanted.spec == present.spec {
        return None;
    }
    let mut link = Link::new("", wanted.spec.clone());
    link.metadata = metadata;
    Some(link)
}

/// A Link that may go.
pub(crate) fn without_finalizer(present: &Link) -> Link {
    let mut link = Link::new("", present.spec.clone());
    link.metadata = present.metadata.clone();
    if let Some(finalizers) = &mut link.metadata.finalizers {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
    link
}

fn apply(metadata: &mut ObjectMeta, present: Option<&Link>, wanted: &Wanted) {
    metadata.labels = some(wanted.labels(present));
    let mut annotations = metadata.annotations.take().unwrap_or_default();
    annotations.extend(wanted.annotations.clone());
    metadata.annotations = some(annotations);
    if let Some(owner) = &wanted.owner {
        metadata.owner_references = Some(vec![owner.clone()]);
    }
    if wanted.spec.vni.is_some() {
        let finalizers = metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
    }
}

fn some(texts: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!texts.is_empty()).then_some(texts)
}
