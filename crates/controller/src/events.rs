//! What users are told by events on Links, Topologies and pods: that something cannot be made, and
//! why. Pure.
//!
//! Conditions and statuses say the same; an event brings it to who looks at `kubectl describe` or
//! `kubectl get events`. What it says is what the API already has, so a controller that starts
//! again needs to know nothing.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::ObjectReference,
    jiff::{SignedDuration, Timestamp},
};
use kube::Resource;
use ratchet_api::{ACCEPTED, Condition, EndState, Link, LinkEnd, LinkEndStatus, Topology};
use ratchet_model::Reason;

use crate::{
    derived::Derived,
    plan::Plan,
    snapshot::{Pod, Snapshot},
};

/// What is not accepted for a shorter time is not worth an event.
const PATIENCE: SignedDuration = SignedDuration::from_secs(5);

/// An object has an event of a reason at most so often.
const BETWEEN: SignedDuration = SignedDuration::from_mins(5);

/// What lasts is told again after this time: the API keeps events for an hour.
const LASTS: SignedDuration = SignedDuration::from_hours(1);

/// How many events are posted in a second.
const IN_A_SECOND: u32 = 10;

const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// The reason of an end that has failed, if its agent gives none.
const FAILED: &str = "Failed";

/// A warning on an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Warning {
    /// The object.
    pub object: ObjectReference,
    /// A word in CamelCase.
    pub reason: String,
    /// What is wrong.
    pub text: String,
}

/// An object's uid and the reason.
type Id = (String, String);

impl Warning {
    fn id(&self) -> Id {
        let uid = self.object.uid.clone().unwrap_or_default();
        (uid, self.reason.clone())
    }
}

/// Which warnings there were, by uid and reason.
#[derive(Debug, Default)]
pub(crate) struct Warned {
    told: BTreeMap<Id, Told>,
    /// How many were told in the second that began then.
    second: Option<(Timestamp, u32)>,
}

#[derive(Debug)]
struct Told {
    at: Timestamp,
    text: String,
    /// Whether it has been over since, or is something else of the same reason by now.
    is_over: bool,
}

impl Warned {
    /// Whether to tell this now; if not, after which time to ask again.
    fn may_tell(&mut self, warning: &Warning, now: Timestamp) -> Result<(), SignedDuration> {
        let id = warning.id();
        if let Some(told) = self.told.get(&id) {
            let rest = if told.is_over { BETWEEN } else { LASTS };
            let passed = now.duration_since(told.at);
            if passed < rest {
                return Err(rest - passed);
            }
        }
        let (begun, count) = self
            .second
            .filter(|(begun, _)| now.duration_since(*begun) < SECOND)
            .unwrap_or((now, 0));
        if count >= IN_A_SECOND {
            return Err(SECOND - now.duration_since(begun));
        }
        self.second = Some((begun, count + 1));
        let told = Told {
            at: now,
            text: warning.text.clone(),
            is_over: false,
        };
        self.told.insert(id, told);
        Ok(())
    }

    /// Notes which warnings still hold.
    fn keep(&mut self, holds: &BTreeSet<(Id, String)>, now: Timestamp) {
        self.told.retain(|id, told| {
            told.is_over |= !holds.contains(&(id.clone(), told.text.clone()));
            !told.is_over || now.duration_since(told.at) < BETWEEN
        });
    }
}

/// Adds the warnings that are to be posted.
pub(crate) fn warn(
    (snapshot, derived): (&Snapshot, &Derived),
    warned: &mut Warned,
    now: Timestamp,
    plan: &mut Plan,
) {
    let mut found = Vec::new();
    for topology in snapshot.topologies.values() {
        of_topology(topology, now, &mut found);
    }
    for link in snapshot.links.values() {
        of_link(link, now, &mut found);
    }
    for pod in snapshot.pods.values().filter(|pod| !pod.leaving) {
        of_pod(pod, derived.waiting.get(&pod.key), now, &mut found);
    }
    let of = |found: &Found| (found.warning.id(), found.warning.text.clone());
    warned.keep(&found.iter().map(of).collect(), now);
    for Found { warning, lasted } in found {
        if lasted < PATIENCE {
            plan.again_in(PATIENCE - lasted);
            continue;
        }
        match warned.may_tell(&warning, now) {
            Ok(()) => plan.warnings.push(warning),
            Err(time) => plan.again_in(time),
        }
    }
}

/// What is wrong, and for how long it has been.
struct Found {
    warning: Warning,
    lasted: SignedDuration,
}

/// A pod whose declaration is wrong, or whose place another pod has.
fn of_pod(pod: &Pod, waits: Option<&Reason>, now: Timestamp, found: &mut Vec<Found>) {
    let object = || ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.key.namespace().to_owned()),
        name: Some(pod.key.name().to_owned()),
        uid: Some(pod.uid.clone()),
        ..ObjectReference::default()
    };
    let warning = |reason: &Reason, text: String| Warning {
        object: object(),
        reason: reason.name().to_owned(),
        text,
    };
    if let Some(problem) = &pod.problem {
        let warning = warning(&problem.reason, problem.to_string());
        let lasted = PATIENCE;
        found.push(Found { warning, lasted });
    }
    if let Some(reason) = waits {
        let warning = warning(reason, reason.to_string());
        let created = pod.created.unwrap_or(now);
        let lasted = now.duration_since(created);
        found.push(Found { warning, lasted });
    }
}

fn of_topology(topology: &Topology, now: Timestamp, found: &mut Vec<Found>) {
    if let Some(status) = &topology.status
        && topology.metadata.deletion_timestamp.is_none()
    {
        found.extend(refused(topology, &status.conditions, now));
    }
}

fn of_link(link: &Link, now: Timestamp, found: &mut Vec<Found>) {
    let Some(status) = &link.status else { return };
    if link.metadata.deletion_timestamp.is_some() {
        return;
    }
    found.extend(refused(link, &status.conditions, now));
    let ends = [(&link.spec.a, &status.a), (&link.spec.b, &status.b)];
    for (end, said) in ends {
        if let Some(said) = said
            && said.state == EndState::Failed
            && end.pod_uid.as_ref() == Some(&said.pod_uid)
        {
            let warning = failed(link, end, said);
            let lasted = PATIENCE;
            found.push(Found { warning, lasted });
        }
    }
}

/// An object that is not accepted.
fn refused<K>(object: &K, conditions: &[Condition], now: Timestamp) -> Option<Found>
where
    K: Resource<DynamicType = ()>,
{
    let mut conditions = conditions.iter();
    let condition = conditions.find(|condition| condition.type_ == ACCEPTED)?;
    if condition.status != "False" {
        return None;
    }
    let lasted = now.duration_since(condition.last_transition_time.0);
    let warning = Warning {
        object: object.object_ref(&()),
        reason: condition.reason.clone(),
        text: condition.message.clone(),
    };
    Some(Found { warning, lasted })
}

fn failed(link: &Link, end: &LinkEnd, said: &LinkEndStatus) -> Warning {
    let pod = end.pod.as_deref().unwrap_or_default();
    let why = said.message.as_deref().unwrap_or_default();
    Warning {
        object: link.object_ref(&()),
        reason: said.reason.clone().unwrap_or_else(|| FAILED.to_owned()),
        text: format!("{} of pod {pod}: {why}", end.interface),
    }
}

#[cfg(test)]
mod tests;
