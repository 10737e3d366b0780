//! What is to be written, and since when. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::links::EndKey;
use crate::StoreHealth;

/// What waits for longer than this to be written is a trouble.
const LONG: Duration = Duration::from_secs(30);

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Item {
    /// The node's underlay.
    Underlay,
    /// The status of an end.
    Status(EndKey),
}

/// The result of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// It is done, or of no use any more.
    Done,
    /// The API refuses it, and will do so again.
    Refused,
    /// It is tried again.
    Again,
}

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    since: BTreeMap<Item, Instant>,
    /// Of these, what is being written.
    on_the_way: BTreeSet<Item>,
    writes: u64,
    failures: u64,
}

impl Backlog {
    /// Something is to be written. It may have been so before.
    pub fn add(&mut self, item: Item, now: Instant) {
        self.since.entry(item).or_insert(now);
    }

    /// It is being written.
    pub fn begin(&mut self, item: Item) {
        self.on_the_way.insert(item);
    }

    /// It need not be written any more, unless that is being done.
    pub fn drop(&mut self, item: &Item) {
        if !self.on_the_way.contains(item) {
            self.since.remove(item);
        }
    }

    /// Notes the result of a write. What has changed meanwhile has to be added again.
    pub fn end(&mut self, item: &Item, written: Written) {
        self.on_the_way.remove(item);
        match written {
            Written::Done => self.writes += 1,
            Written::Refused | Written::Again => self.failures += 1,
        }
        if written != Written::Again {
            self.since.remove(item);
        }
    }

    /// How it goes. `is_known`: the Links have been listed.
    pub fn health(&self, is_known: bool, now: Instant) -> StoreHealth {
        let is_old = |since: &Instant| now.saturating_duration_since(*since) > LONG;
        let unready = match self.since.values().any(is_old) {
            _ if !is_known => Some("the Links have not been listed yet"),
            true => Some("a status has waited for over 30 s to be written"),
            false => None,
        };
        StoreHealth {
            unready,
            writes: self.writes,
            failures: self.failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::known::Side, *};

    fn key(name: &str) -> EndKey {
        let link = super::super::known::LinkKey {
            namespace: "default".into(),
            name: name.into(),
        };
        (link, Side::A)
    }

    #[test]
    fn what_waits_for_long_is_told_until_it_is_written_or_refused_or_of_no_use() {
        let start = Instant::now();
        let later = start + LONG + Duration::from_secs(1);
        let one = Item::Status(key("one"));
        let two = Item::Status(key("two"));
        let mut backlog = Backlog::default();
        assert!(backlog.health(false, start).unready.is_some());
        for item in [&one, &two, &Item::Underlay] {
            backlog.add(item.clone(), start);
        }
        assert_eq!(backlog.health(true, start + LONG).unready, None);
        let is_late = |backlog: &Backlog| backlog.health(true, later).unready.is_some();
        assert!(is_late(&backlog));
        backlog.begin(one.clone());
        backlog.end(&one, Written::Again);
        backlog.add(one.clone(), later);
        assert!(is_late(&backlog), "it waits from the first attempt on");
        backlog.begin(one.clone());
        for item in [&one, &two] {
            backlog.drop(item);
        }
        assert!(is_late(&backlog), "one is on the way");
        backlog.end(&Item::Underlay, Written::Done);
        assert!(is_late(&backlog), "one is on the way");
        backlog.end(&one, Written::Refused);
        let expected = StoreHealth {
            unready: None,
            writes: 1,
            failures: 2,
        };
        assert_eq!(backlog.health(true, later), expected);
    }
}
