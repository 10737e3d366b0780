//! The conditions of Links and the statuses of Topologies.

use std::collections::BTreeMap;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use ratchet_api::{
    ACCEPTED, Accepted, Condition, EndState, Link, LinkEnd, LinkEndStatus, READY, Topology,
    TopologyStatus, schema::MESSAGE,
};
use ratchet_model::text::{bounded, few};

use crate::{
    derived::Derived,
    memory::Memory,
    plan::Plan,
    snapshot::{Key, Snapshot},
    wanted::Wanted,
};

/// A Link that is not accepted for a shorter time than this is not told of it: pods get their nodes
/// a moment after they are created, and each condition is a write more.
pub(crate) const PATIENCE: SignedDuration = SignedDuration::from_secs(1);

/// The status of a Topology is written at most so often, unless it gets ready.
const BETWEEN_STATUSES: SignedDuration = SignedDuration::from_secs(1);

/// So much longer for each of its links: the API server checks all of them again, which takes it
/// 0.14 ms for each.
const PER_LINK: SignedDuration = SignedDuration::from_millis(10);

/// The reason of `Ready` when all links are up.
const LINKS_UP: &str = "LinksUp";

/// The reason of `Ready` when some are not.
const LINKS_NOT_UP: &str = "LinksNotUp";

/// What is found of a Link.
#[derive(Debug, Clone)]
pub(crate) struct Judgement {
    accepted: Accepted,
    message: String,
    /// Whether both ends are up, as they are declared.
    is_up: bool,
    /// Why it is not up, if it is accepted.
    waits: String,
}

impl Judgement {
    /// A Link as it is wanted, and as it is.
    pub fn of(wanted: &Wanted, present: Option<&Link>) -> Self {
        let is_current = present.is_some_and(|link| link.spec == wanted.spec);
        let waits = present.map_or(Some(String::new()), waits);
        Self {
            accepted: wanted.accepted,
            message: bounded(&*wanted.message, MESSAGE),
            is_up: is_current && wanted.accepted == Accepted::Resolved && waits.is_none(),
            waits: waits.unwrap_or_default(),
        }
    }

    /// Why no link can be made, if that does not pass by itself: pods come, and get their nodes.
    pub fn trouble(&self) -> Option<(Accepted, &str)> {
        let passes = [
            Accepted::Resolved,
            Accepted::PodNotFound,
            Accepted::NotScheduled,
        ];
        (!passes.contains(&self.accepted)).then_some((self.accepted, &self.message))
    }

    /// A Link that must go before it is made again.
    pub fn leaving() -> Self {
        Self {
            accepted: Accepted::Resolved,
            message: String::new(),
            is_up: false,
            waits: "its former Link is being deleted".to_owned(),
        }
    }
}

/// What a Link waits for; `None` when both its ends are up.
fn waits(link: &Link) -> Option<String> {
    let status = link.status.as_ref();
    let generation = link.metadata.generation.unwrap_or_default();
    let ends = [
        (&link.spec.a, status.and_then(|status| status.a.as_ref())),
        (&link.spec.b, status.and_then(|status| status.b.as_ref())),
    ];
    let of_end = |(end, said): (&LinkEnd, Option<&LinkEndStatus>)| {
        let said = said.filter(|said| {
            end.pod_uid.as_ref() == Some(&said.pod_uid) && said.observed_generation >= generation
        });
        match said {
            Some(said) if said.state == EndState::Up => None,
            Some(said) => Some(said.message.clone().unwrap_or_default()),
            None => Some(String::new()),
        }
    };
    let waits: Vec<String> = ends.into_iter().filter_map(of_end).collect();
    (!waits.is_empty()).then(|| {
        waits
            .into_iter()
            .find(|why| !why.is_empty())
            .unwrap_or_default()
    })
}

/// Adds the conditions of Links that must be written.
///
/// A Link that was accepted from the start gets none: that would be a fourth write for each Link.
pub(crate) fn links(
    snapshot: &Snapshot,
    judgements: &BTreeMap<Key, Judgement>,
    memory: &mut Memory,
    now: Timestamp,
    plan: &mut Plan,
) {
    memory.keep_troubles(|key| {
        let judgement = judgements.get(key);
        judgement.is_some_and(|judgement| judgement.accepted != Accepted::Resolved)
    });
    for (key, judgement) in judgements {
        let Some(link) = snapshot.links.get(key) else {
            continue;
        };
        let status = link.status.as_ref();
        let present = status.and_then(|status| find(&status.conditions, ACCEPTED));
        let is_accepted = judgement.accepted == Accepted::Resolved;
        if link.metadata.deletion_timestamp.is_some() || (is_accepted && present.is_none()) {
            continue;
        }
        let condition = condition(
            (ACCEPTED, judgement.accepted.as_str(), is_accepted),
            &judgement.message,
            link.metadata.generation,
            (present, now),
        );
        if present.is_some_and(|present| says_the_same(present, &condition)) {
            continue;
        }
        if !is_accepted {
            let since = memory.troubled_since(key, judgement.accepted, now);
            let lasted = now.duration_since(since);
            if lasted < PATIENCE {
                plan.again_in(PATIENCE - lasted);
                continue;
            }
        }
        plan.accepted.push((key.clone(), condition));
    }
}

/// Adds the statuses of Topologies that must be written.
pub(crate) fn topologies(
    (snapshot, derived): (&Snapshot, &Derived),
    judgements: &BTreeMap<Key, Judgement>,
    memory: &mut Memory,
    now: Timestamp,
    plan: &mut Plan,
) {
    for (key, links) in &derived.of_topologies {
        let Some(topology) = snapshot.topologies.get(key) else {
            continue;
        };
        let of_link = |link: &Result<Key, _>| match link {
            Ok(link) => judgements.get(link).cloned(),
            Err(_) => None,
        };
        let mut told: Vec<Told> = Vec::new();
        for (link, declared) in links.iter().zip(&topology.spec.links) {
            let name = declared
                .name
                .clone()
                .unwrap_or_else(|| declared.endpoints.join(" – "));
            told.push(match (link, of_link(link)) {
                (Err(refused), _) => Told::refused(name, refused.reason, &refused.message),
                (Ok(_), None) => Told::refused(name, Accepted::Conflict, "another link has it"),
                (Ok(_), Some(judgement)) => Told { name, judgement },
            });
        }
        let status = status(topology, &told, now);
        let present = topology.status.as_ref();
        if present.is_some_and(|present| is_same(present, &status)) {
            continue;
        }
        let gets_ready = status.links == status.ready;
        let passed = memory.told(key).map(|told| now.duration_since(told));
        let pause = BETWEEN_STATUSES + PER_LINK * status.links;
        if let Some(passed) = passed.filter(|passed| *passed < pause && !gets_ready) {
            plan.again_in(pause - passed);
            continue;
        }
        memory.tell(key, now);
        plan.topologies.push((key.clone(), status));
    }
}

/// A link of a Topology: its name, and what is found of it.
struct Told {
    name: String,
    judgement: Judgement,
}

impl Told {
    fn refused(name: String, reason: Accepted, message: &str) -> Self {
        let judgement = Judgement {
            accepted: reason,
            message: message.to_owned(),
            is_up: false,
            waits: String::new(),
        };
        Self { name, judgement }
    }
}

fn status(topology: &Topology, told: &[Told], now: Timestamp) -> TopologyStatus {
    let count = |links: usize| i32::try_from(links).unwrap_or(i32::MAX);
    let generation = topology.metadata.generation;
    let conditions = topology
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.conditions);
    let refused: Vec<&Told> = told
        .iter()
        .filter(|link| link.judgement.accepted != Accepted::Resolved)
        .collect();
    let ready = told.iter().filter(|link| link.judgement.is_up).count();
    let reason = refused
        .first()
        .map_or(Accepted::Resolved, |link| link.judgement.accepted);
    let accepted = condition(
        (ACCEPTED, reason.as_str(), refused.is_empty()),
        &refusals(&refused),
        generation,
        (find(conditions, ACCEPTED), now),
    );
    let is_ready = ready == told.len();
    let is_ready_word = if is_ready { LINKS_UP } else { LINKS_NOT_UP };
    let ready_condition = condition(
        (READY, is_ready_word, is_ready),
        &waiting(told, ready),
        generation,
        (find(conditions, READY), now),
    );
    TopologyStatus {
        links: count(told.len()),
        ready: count(ready),
        observed_generation: generation.unwrap_or_default(),
        conditions: vec![accepted, ready_condition],
    }
}

fn refusals(refused: &[&Told]) -> String {
    let one = |link: &&Told| format!("{}: {}", link.name, link.judgement.message);
    few(refused.iter().map(one)).join("; ")
}

fn waiting(told: &[Told], ready: usize) -> String {
    let all = told.len();
    let waiting: Vec<&Told> = told.iter().filter(|link| !link.judgement.is_up).collect();
    let one = |link: &&Told| {
        let Judgement {
            message,
            waits,
            accepted,
            ..
        } = &link.judgement;
        let why = if *accepted == Accepted::Resolved {
            waits
        } else {
            message
        };
        match why.is_empty() {
            true => link.name.clone(),
            false => format!("{}: {why}", link.name),
        }
    };
    let links = few(waiting.iter().map(one)).join("; ");
    match waiting.is_empty() {
        true => format!("{ready} of {all} links are up"),
        false => format!("{ready} of {all} links are up; not yet: {links}"),
    }
}

fn find<'c>(conditions: &'c [Condition], of: &str) -> Option<&'c Condition> {
    conditions.iter().find(|condition| condition.type_ == of)
}

fn condition(
    (of, reason, is_true): (&str, &str, bool),
    message: &str,
    generation: Option<i64>,
    (present, now): (Option<&Condition>, Timestamp),
) -> Condition {
    let status = if is_true { "True" } else { "False" };
    let since = present.filter(|present| present.status == status);
    Condition {
        type_: of.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: bounded(message, MESSAGE),
        observed_generation: generation,
        // The API keeps whole seconds.
        last_transition_time: since.map_or_else(
            || Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
            |since| since.last_transition_time.clone(),
        ),
    }
}

/// Whether two conditions say the same of, perhaps, two generations.
fn says_the_same(one: &Condition, other: &Condition) -> bool {
    let said = |condition: &Condition| {
        let Condition {
            status,
            reason,
            message,
            ..
        } = condition;
        (status.clone(), reason.clone(), message.clone())
    };
    said(one) == said(other)
}

fn is_same(one: &TopologyStatus, other: &TopologyStatus) -> bool {
    let of = [ACCEPTED, READY].map(|of| (find(&one.conditions, of), find(&other.conditions, of)));
    let is_same = |(one, other): (Option<&Condition>, Option<&Condition>)| match (one, other) {
        (Some(one), Some(other)) => says_the_same(one, other),
        _ => false,
    };
    (one.links, one.ready, one.observed_generation)
        == (other.links, other.ready, other.observed_generation)
        && of.into_iter().all(is_same)
}
