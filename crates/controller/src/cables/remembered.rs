//! What pods that are missing declared, as far as their Links tell: a pod that starts again finds
//! its links as they were, and its peer's interface stays meanwhile. The same of a pod that runs
//! and whose declaration was changed to a wrong one.

use ratchet_api::{DeclaredBy, Link, LinkEnd, LinkSpec};
use ratchet_model::{DeclaredEnd, DeclaredLink};

use super::{Cable, CableEnd, Cables, of_pods};
use crate::{
    names::DeclaredName,
    pods::{Found, Pods},
    snapshot::{Key, Snapshot},
};

/// The annotation of a Link with its two ends as pods declare them.
pub(crate) const ENDS: &str = "ratchet.dev/ends";

/// The annotation of a Link that says which ends declare it: `a`, `b` or `a b`.
pub(crate) const DECLARED_BY: &str = "ratchet.dev/declared-by";

/// Adds what missing pods declared.
pub(super) fn add<'s>(cables: &mut Cables<'s>, snapshot: &'s Snapshot, pods: &Pods<'s>) {
    for (key, link) in &snapshot.links {
        if link.metadata.deletion_timestamp.is_some() {
            continue;
        }
        match cables.all.get_mut(key) {
            Some(cable) => consent(cable, link),
            None => {
                if let Some(cable) = remembered(link, pods) {
                    add_cable(cables, key, cable);
                }
            }
        }
    }
}

fn add_cable<'s>(cables: &mut Cables<'s>, key: &Key, cable: Cable<'s>) {
    let ends = cable.ends.each_ref().map(CableEnd::key);
    if cables.between(&ends).is_none() {
        cables.insert(key.clone(), cable);
    }
}

/// A pod that is missing consents to what it consented to when it was there: its peer is wired.
/// When it comes back, it is asked again.
fn consent(cable: &mut Cable<'_>, link: &Link) {
    let [a, b] = &cable.ends;
    if a.declared.pod.namespace() == b.declared.pod.namespace() {
        return;
    }
    let present = [&link.spec.a, &link.spec.b];
    for (own, other) in [(0, 1), (1, 0)] {
        let [own, other] = [own, other].map(|end: usize| (&cable.ends[end], present[end]));
        if own.0.found.pod().is_none() && other.1.node.is_some() {
            let bare = |end: &CableEnd<'_>| {
                DeclaredEnd::bare(end.pod.clone(), end.declared.interface.clone())
            };
            let declaration = DeclaredLink::new(bare(own.0), bare(other.0));
            cable.declarations.push(declaration);
            return;
        }
    }
}

/// The cable of a Link that a missing pod declared.
fn remembered<'s>(link: &Link, pods: &Pods<'s>) -> Option<Cable<'s>> {
    let spec = &link.spec;
    if !matches!(spec.declared_by, DeclaredBy::Annotation | DeclaredBy::Label) {
        return None;
    }
    let annotations = link.metadata.annotations.as_ref()?;
    let mut ends = annotations.get(ENDS)?.split(' ').map(DeclaredName::read);
    let names = [ends.next()??, ends.next()??];
    let declarers = annotations.get(DECLARED_BY)?;
    let found = names.each_ref().map(|name| pods.declared(&name.pod));
    if found.iter().all(|found| found.pod().is_none()) {
        return None;
    }
    // What a running pod declares wrongly leaves what it declared before.
    let is_silent = |end: usize| match &found[end] {
        Found::Missing => true,
        Found::Pod(pod) => {
            let uid = [&spec.a, &spec.b][end].pod_uid.as_ref();
            pod.problem.is_some() && uid == Some(&pod.uid)
        }
        Found::Ambiguous { .. } => false,
    };
    let is_silent_declarer =
        |end: usize| is_silent(end) && declarers.split(' ').any(|d| d == ["a", "b"][end]);
    let declarer = [0, 1].into_iter().find(|end| is_silent_declarer(*end))?;
    let [a, b] = names;
    let [found_a, found_b] = found;
    let bare = |name: &DeclaredName| DeclaredEnd::bare(name.pod.clone(), name.interface.clone());
    let ends = [
        of_pods::end(&bare(&a), found_a),
        of_pods::end(&bare(&b), found_b),
    ];
    let [a, b] = [said(&spec.a, &ends[0])?, said(&spec.b, &ends[1])?];
    let (local, remote) = if declarer == 0 { (a, b) } else { (b, a) };
    Some(Cable {
        by: spec.declared_by,
        topology: None,
        declarations: vec![declaration(spec, local, remote)?],
        ends,
        conflict: None,
    })
}

fn declaration(spec: &LinkSpec, local: DeclaredEnd, remote: DeclaredEnd) -> Option<DeclaredLink> {
    Some(DeclaredLink {
        mtu: spec.read_mtu().ok()?,
        wiring: spec.read_wiring().ok()?,
        ..DeclaredLink::new(local, remote)
    })
}

/// What a Link says of an end, in the records' terms.
fn said(end: &LinkEnd, of: &CableEnd<'_>) -> Option<DeclaredEnd> {
    let named = LinkEnd {
        pod: Some(of.pod.name().to_owned()),
        ..end.clone()
    };
    named.declared().ok()?
}
