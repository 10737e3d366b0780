//! From labels and annotations to a declaration. Pure.

use ratchet_engine::Declared;
use ratchet_kubernetes::PodFacts;
use ratchet_model::{
    PodKey, Quotas, Reason,
    declaration::{Declaration, DeclarationError, Texts, declare_within},
};
use ratchet_protocol::{Failure, FailureKind, Prepare};

fn invalid(error: &DeclarationError) -> Failure {
    Failure {
        message: error.to_string(),
        ..Failure::because(FailureKind::Invalid, &error.reason)
    }
}

/// Reads what a pod declares; `None` when it is not Ratchet's.
pub(super) fn read(
    quotas: &Quotas,
    prepare: &Prepare,
    labels: &Texts,
    annotations: &Texts,
) -> Result<Option<Declaration>, Failure> {
    let (namespace, name) = (&prepare.pod.namespace, &prepare.pod.name);
    let declared = parse(quotas, namespace, name, labels, annotations);
    let Some(declaration) = declared.map_err(|e| invalid(&e))? else {
        return Ok(None);
    };
    for end in declaration
        .links
        .iter()
        .flat_map(|link| [&link.local, &link.remote])
    {
        if end.pod == declaration.pod && end.interface.as_str() == prepare.interface {
            let key = format!("interface {}", end.interface);
            let reason = Reason::InterfaceOfNetwork {};
            return Err(invalid(&DeclarationError::new(&end.pod, key, reason)));
        }
    }
    Ok(Some(declaration))
}

fn parse(
    quotas: &Quotas,
    namespace: &str,
    name: &str,
    labels: &Texts,
    annotations: &Texts,
) -> Result<Option<Declaration>, DeclarationError> {
    let pod = PodKey::new(namespace, name).map_err(|error| {
        let pod = format!("{namespace}/{name}");
        DeclarationError::new(pod, "name", error.into())
    })?;
    declare_within(quotas, &pod, labels, annotations)
}

/// The labels and annotations that count for a call: what came with it, and what the API says.
pub(super) fn texts(prepare: &Prepare, facts: &PodFacts) -> (Texts, Texts) {
    let labels = if prepare.use_labels {
        let mut labels = facts.labels.clone();
        labels.extend(prepare.labels.clone());
        labels
    } else {
        Texts::new()
    };
    let annotations = if prepare.annotations_passed {
        &prepare.annotations
    } else {
        &facts.annotations
    };
    (labels, annotations.clone())
}

/// What a running pod declares.
pub(super) fn of_running(quotas: &Quotas, facts: &PodFacts) -> Declared {
    let (namespace, name) = (&facts.namespace, &facts.name);
    let read = |labels| parse(quotas, namespace, name, labels, &facts.annotations);
    Declared {
        kubernetes: (facts.namespace.clone(), facts.name.clone()),
        with_labels: read(&facts.labels),
        annotations_only: read(&Texts::new()),
    }
}

/// The failure of a call that needs the API and cannot reach it.
pub(super) fn unknown(prepare: &Prepare, why: &str) -> Failure {
    Failure::new(
        FailureKind::TryLater,
        format!(
            "pod {}/{}: {why}, so its labels are not known; to do without them, declare the \
             capability io.kubernetes.cri.pod-annotations in the config and use annotations",
            prepare.pod.namespace, prepare.pod.name
        ),
    )
}
