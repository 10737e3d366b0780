//! What is known of the API: what the watches say, and what the controller has written itself and
//! the watches do not know yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::Event;

use crate::snapshot::Snapshot;

/// A change of what is known.
pub(crate) type News = Box<dyn FnOnce(&mut State) + Send>;

/// What is known, and how far each watch is.
#[derive(Default)]
pub(crate) struct State {
    pub known: Snapshot,
    pub feeds: Feeds,
}

/// The watches.
#[derive(Default)]
pub(crate) struct Feeds {
    pub topologies: Feed<crate::Key, ratchet_api::Topology>,
    pub meshnet: Feed<crate::Key, ratchet_api::meshnet::Topology>,
    pub pods: Feed<ratchet_model::PodKey, crate::Pod>,
    pub underlays: Feed<String, ratchet_api::NodeUnderlay>,
    pub grants: Feed<crate::Key, ratchet_api::LinkGrant>,
    pub links: Feed<crate::Key, ratchet_api::Link>,
    pub blocks: Feed<u32, ratchet_api::VNIBlock>,
    pub nodes: Feed<String, BTreeSet<IpAddr>>,
}

impl State {
    /// Without meshnet's Topologies there is no watch to wait for.
    pub fn new(with_meshnet: bool) -> Self {
        let mut state = Self::default();
        state.feeds.meshnet.is_listed = !with_meshnet;
        state
    }

    /// Whether something has changed since this was asked last.
    pub fn has_changed(&mut self) -> bool {
        let feeds = &mut self.feeds;
        let all = [
            &mut feeds.topologies.has_changed,
            &mut feeds.meshnet.has_changed,
            &mut feeds.pods.has_changed,
            &mut feeds.underlays.has_changed,
            &mut feeds.grants.has_changed,
            &mut feeds.links.has_changed,
            &mut feeds.blocks.has_changed,
            &mut feeds.nodes.has_changed,
        ];
        all.into_iter().fold(false, |any, one| mem::take(one) | any)
    }

    /// Whether all kinds have been listed.
    pub fn is_complete(&self) -> bool {
        let feeds = &self.feeds;
        feeds.topologies.is_listed
            && feeds.meshnet.is_listed
            && feeds.pods.is_listed
            && feeds.underlays.is_listed
            && feeds.grants.is_listed
            && feeds.links.is_listed
            && feeds.blocks.is_listed
            && feeds.nodes.is_listed
    }
}

/// How far the watch of a kind is.
pub(crate) struct Feed<Id, V> {
    listing: BTreeMap<Id, Arc<V>>,
    is_listed: bool,
    has_changed: bool,
    /// The newest version that the watch has told of.
    seen: u64,
}

impl<Id, V> Default for Feed<Id, V> {
    fn default() -> Self {
        Self {
            listing: BTreeMap::new(),
            is_listed: false,
            has_changed: false,
            seen: 0,
        }
    }
}

/// The number of an object's version. Those of one kind can be compared (KEP-5504). 0: unknown.
pub(crate) fn version(metadata: &ObjectMeta) -> u64 {
    let version = metadata.resource_version.as_deref();
    version
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

/// An object as it is kept: its id and, unless it counts as absent, itself.
pub(crate) type Kept<Id, V> = Option<(Id, Option<V>)>;

impl<Id: Ord + Clone, V: PartialEq> Feed<Id, V> {
    /// Takes what a watch says. `read` reads an object, and `of` its version as it is kept.
    pub fn hear<K>(
        &mut self,
        known: &mut BTreeMap<Id, Arc<V>>,
        event: Event<K>,
        read: impl Fn(K) -> (u64, Kept<Id, V>),
        of: impl Fn(&V) -> u64,
    ) {
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(object) => {
                if let (_, Some((id, Some(object)))) = read(object) {
                    self.listing.insert(id, Arc::new(object));
                }
            }
            Event::InitDone => {
                let listed = mem::take(&mut self.listing);
                self.has_changed |= *known != listed;
                *known = listed;
                self.is_listed = true;
            }
            Event::Apply(object) => {
                let (version, kept) = read(object);
                self.seen = self.seen.max(version);
                let Some((id, object)) = kept else { return };
                let present = known.get(&id);
                let is_news = present.map(|present| &**present) != object.as_ref();
                if is_news && present.is_none_or(|present| of(present) <= version) {
                    self.has_changed = true;
                    match object {
                        Some(object) => known.insert(id, Arc::new(object)),
                        None => known.remove(&id),
                    };
                }
            }
            Event::Delete(object) => {
                let (version, kept) = read(object);
                self.seen = self.seen.max(version);
                if let Some((id, _)) = kept
                    && known.get(&id).is_some_and(|known| of(known) <= version)
                {
                    known.remove(&id);
                    self.has_changed = true;
                }
            }
        }
    }

    /// Takes what the controller has written, unless the watch has told of it, or of its end.
    pub fn wrote(&self, known: &mut BTreeMap<Id, Arc<V>>, id: Id, version: u64, object: V) {
        if version > self.seen {
            known.insert(id, Arc::new(object));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Object = (u64, char);

    fn read((version, id): Object) -> (u64, Kept<char, Object>) {
        (version, Some((id, Some((version, id)))))
    }

    #[test]
    fn the_newest_of_what_is_written_and_what_is_heard_counts() {
        let mut feed: Feed<char, Object> = Feed::default();
        let mut known = BTreeMap::new();
        let of = |object: &Object| object.0;
        let hear = |feed: &mut Feed<char, Object>, known: &mut _, event| {
            feed.hear(known, event, read, of);
        };
        hear(&mut feed, &mut known, Event::Init);
        hear(&mut feed, &mut known, Event::InitApply((1, 'a')));
        assert!(!feed.is_listed && known.is_empty());
        hear(&mut feed, &mut known, Event::InitDone);
        assert!(feed.is_listed && feed.has_changed);
        feed.wrote(&mut known, 'a', 4, (4, 'a'));
        hear(&mut feed, &mut known, Event::Apply((3, 'a')));
        assert_eq!(known[&'a'].0, 4);
        hear(&mut feed, &mut known, Event::Delete((5, 'a')));
        feed.wrote(&mut known, 'a', 4, (4, 'a'));
        assert!(known.is_empty(), "it is gone already");
        feed.wrote(&mut known, 'a', 6, (6, 'a'));
        hear(&mut feed, &mut known, Event::Delete((5, 'a')));
        assert_eq!(known[&'a'].0, 6);
    }
}
