//! What the store has been told of this node, and when to look for lost ones.

use std::time::{Duration, Instant};

/// How often to look for lost nodes, unless this node's own timeout is shorter.
const PERIOD: Duration = Duration::from_secs(60);

/// This node's presence in one store.
#[derive(Debug)]
pub(super) struct Presence {
    /// Whether the store knows that this node is alive (or that it has nothing to lose); none:
    /// neither.
    registered: Option<bool>,
    next_check: Instant,
}

impl Presence {
    /// In a store that was not told anything.
    pub fn new(now: Instant) -> Self {
        Self {
            registered: None,
            next_check: now,
        }
    }

    /// Notes what the store has been told; none: that is not known.
    pub fn set_registered(&mut self, registered: Option<bool>) {
        self.registered = registered;
    }

    /// Whether the store knows that this node is alive.
    pub fn is_registered(&self) -> bool {
        self.registered == Some(true)
    }

    /// Whether the store knows that this node has nothing to lose.
    pub fn is_deregistered(&self) -> bool {
        self.registered == Some(false)
    }

    /// When to look for lost nodes next.
    pub fn next_check(&self) -> Instant {
        self.next_check
    }

    /// Whether that is now. If so, the next time is a period later, or this node's own `timeout`.
    pub fn take_check(&mut self, now: Instant, timeout: Option<Duration>) -> bool {
        let due = self.next_check <= now;
        if due {
            self.next_check = now + timeout.map_or(PERIOD, |timeout| timeout.min(PERIOD));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_nodes_are_looked_for_once_a_period_or_more_often_with_a_short_timeout() {
        let now = Instant::now();
        let mut presence = Presence::new(now);
        assert!(presence.take_check(now, None));
        assert!(!presence.take_check(now, None));
        assert_eq!(presence.next_check(), now + PERIOD);
        let short = Some(Duration::from_secs(3));
        assert!(presence.take_check(now + PERIOD, short));
        assert_eq!(presence.next_check(), now + PERIOD + Duration::from_secs(3));
    }

    #[test]
    fn what_the_store_was_told_may_be_unknown() {
        let mut presence = Presence::new(Instant::now());
        for (told, registered, deregistered) in [
            (Some(true), true, false),
            (Some(false), false, true),
            (None, false, false),
        ] {
            presence.set_registered(told);
            let known = (presence.is_registered(), presence.is_deregistered());
            assert_eq!(known, (registered, deregistered));
        }
    }
}
