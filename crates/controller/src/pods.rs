//! Which pod is meant: by name, by the name that its labels give it, or by a slot's selector.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_api::{PodSelector, Slot};
use ratchet_model::PodKey;

use crate::snapshot::{Pod, Snapshot};

/// What was found for an end.
#[derive(Debug, Clone)]
pub(crate) enum Found<'s> {
    /// One pod.
    Pod(&'s Pod),
    /// None.
    Missing,
    /// Several where one is meant. If the end's present pod is one of them, it stays.
    Ambiguous {
        /// The end's present pod.
        keeps: Option<&'s Pod>,
        /// Some of their names.
        names: Vec<&'s str>,
    },
}

impl<'s> Found<'s> {
    /// The pod, if there is one.
    pub fn pod(&self) -> Option<&'s Pod> {
        match self {
            Self::Pod(pod) => Some(pod),
            Self::Ambiguous { keeps, .. } => *keeps,
            Self::Missing => None,
        }
    }
}

/// The pods, by all their names.
pub(crate) struct Pods<'s> {
    by_name: BTreeMap<&'s PodKey, &'s Pod>,
    /// By the name that the pod's labels give it (`ratchet.pod_name`), where that is another one.
    by_label: BTreeMap<&'s PodKey, &'s Pod>,
    by_namespace: BTreeMap<&'s str, Vec<&'s Pod>>,
}

impl<'s> Pods<'s> {
    /// Those of a snapshot.
    pub fn of(snapshot: &'s Snapshot) -> Self {
        let mut pods = Self {
            by_name: BTreeMap::new(),
            by_label: BTreeMap::new(),
            by_namespace: BTreeMap::new(),
        };
        for pod in snapshot.pods.values() {
            pods.by_name.insert(&pod.key, pod);
            let namespace = pods.by_namespace.entry(pod.key.namespace());
            namespace.or_default().push(pod);
            let declared = pod.declaration.as_ref().map(|declaration| &declaration.pod);
            if let Some(name) = declared.filter(|name| **name != pod.key) {
                let holder = pods.by_label.entry(name).or_insert(pod);
                if pod.rank() < holder.rank() {
                    *holder = pod;
                }
            }
        }
        pods
    }

    /// The pod that declarations mean by a name.
    pub fn declared(&self, name: &PodKey) -> Found<'s> {
        let pod = self.by_label.get(name).or_else(|| self.by_name.get(name));
        pod.map_or(Found::Missing, |pod| Found::Pod(pod))
    }

    /// The pod of a name.
    pub fn named(&self, name: &PodKey) -> Found<'s> {
        let pod = self.by_name.get(name);
        pod.map_or(Found::Missing, |pod| Found::Pod(pod))
    }

    /// The pod that has the name which a pod's labels give it, if that is another one. Of several
    /// pods that say the same name, one has it, and the others wait.
    pub fn holder_of_its_name(&self, pod: &Pod) -> Option<&'s Pod> {
        let name = &pod.declaration.as_ref()?.pod;
        let holder = self.declared(name).pod();
        holder.filter(|holder| holder.uid != pod.uid)
    }

    /// The pods that a slot's selector fits beside the one that has the slot.
    pub fn waiting_for(&self, namespace: &str, slot: &Slot, holder: &Pod) -> Vec<&'s Pod> {
        let Some(selector) = &slot.selector else {
            return Vec::new();
        };
        let mut fit = self.fitting(namespace, selector);
        fit.retain(|pod| pod.uid != holder.uid && !pod.leaving);
        fit
    }

    fn fitting(&self, namespace: &str, selector: &PodSelector) -> Vec<&'s Pod> {
        let all = self.by_namespace.get(namespace).into_iter().flatten();
        all.filter(|pod| selector.matches(|key| pod.labels.get(key).map(String::as_str)))
            .copied()
            .collect()
    }

    /// The pod of a slot, and the pod's name, if that is known without the pod.
    pub fn in_slot(
        &self,
        namespace: &str,
        slot: &Slot,
        present: Option<&str>,
    ) -> (Found<'s>, Option<String>) {
        if let Some(pod) = &slot.stateful_set {
            let name = pod.pod_name();
            let key = PodKey::new(namespace, &name);
            let found = key.map_or(Found::Missing, |key| self.named(&key));
            return (found, Some(name));
        }
        let selected = |selector| self.selected(namespace, selector, present);
        let found = slot.selector.as_ref().map_or(Found::Missing, selected);
        (found, None)
    }

    /// The one pod of a namespace that a selector means. `present` is the uid of the end's pod.
    ///
    /// During a rolling update of a Deployment there are two for a while, of two ReplicaSets. The
    /// one that runs is meant, and if both do, the present one, until it is being deleted.
    fn selected(
        &self,
        namespace: &str,
        selector: &PodSelector,
        present: Option<&str>,
    ) -> Found<'s> {
        let fit = self.fitting(namespace, selector);
        let pool = narrowed(&narrowed(&fit, |pod| !pod.leaving), |pod| pod.running);
        let best = pool.iter().min_by_key(|pod| pod.rank()).copied();
        let (Some(best), true) = (best, pool.len() > 1) else {
            return best.map_or(Found::Missing, Found::Pod);
        };
        let kept = pool.iter().find(|pod| Some(&*pod.uid) == present).copied();
        let controllers: BTreeSet<_> = pool.iter().filter_map(|p| p.controller.as_ref()).collect();
        if best.leaving || controllers.len() == pool.len() {
            return Found::Pod(kept.unwrap_or(best));
        }
        Found::Ambiguous {
            keeps: kept,
            names: pool.iter().map(|pod| pod.key.name()).collect(),
        }
    }
}

/// Those for which it is true, if there are any, else all.
fn narrowed<'s>(pods: &[&'s Pod], is: impl Fn(&Pod) -> bool) -> Vec<&'s Pod> {
    let some: Vec<&Pod> = pods.iter().filter(|pod| is(pod)).copied().collect();
    if some.is_empty() { pods.to_vec() } else { some }
}
