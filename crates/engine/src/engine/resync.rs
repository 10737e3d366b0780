//! A resync: the look at everything, which mends what somebody else did to our devices and finds
//! what was left of ours.
//!
//! It is done in portions, some pods at a time with all that is in their sandboxes and the node's
//! own namespace last, so that it needs memory for one portion only, and between two of them
//! commands have their turn. What a command changes meanwhile is harmless: each portion works from
//! what is known when it begins. A resync decides nothing; it ends in [`Engine::reconcile`] like
//! everything else.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use ratchet_model::PodKey;

use super::{Engine, RETRY, reconcile::Scope, sandboxes};

/// How often everything is looked at anew although nothing has happened.
pub(super) const PERIOD: Duration = Duration::from_secs(60);

/// A resync takes at most one part in so many of the time of one core: where there is much to look
/// at it is done less often, though at least every [`LONGEST_PERIOD`]. (10,000 links: 0.25 to 0.3
/// s, so every ten minutes.)
const REST: u32 = 2500;

/// At the latest after this long somebody's meddling with our devices is noticed and mended,
/// however much there is to look at.
const LONGEST_PERIOD: Duration = Duration::from_secs(600);

/// The ends of links in one portion, unless a single pod has more.
const PORTION: usize = 1000;

/// A resync that is under way.
pub(super) struct Resync {
    /// The pods that are still to be looked at. When there are none left, the node's own namespace
    /// is.
    left: BTreeSet<PodKey>,
    /// Whether all has gone well so far.
    worked: bool,
    /// The time that its portions took.
    took: Duration,
}

impl Engine {
    /// Looks at the node, the store and which sandboxes there are, and begins a resync; one that is
    /// under way begins anew.
    pub(super) fn begin_resync(&mut self) {
        let begun = self.clock.now();
        self.resync = None;
        // Whatever goes wrong from here on brings it forward.
        self.next_look = begun + LONGEST_PERIOD;
        self.refresh_effective();
        if !self.adopt() {
            // Whose the devices are that are there is not known: nothing is done to them.
            self.look_again_soon();
            return self.tell();
        }
        self.drop_dead_sandboxes();
        self.recall_own_pods();
        let registered = self
            .register_node()
            .inspect_err(|failure| tracing::warn!(%failure, "cannot tell the store of this node"));
        if !self.inform() {
            // Not knowing what is wanted, everything there stays.
            self.look_again_soon();
            return self.tell();
        }
        self.declare_again();
        let left = self.sandboxes.pods();
        self.resync = Some(Resync {
            left,
            worked: registered.is_ok(),
            took: self.clock.now().duration_since(begun),
        });
    }

    /// Looks at the next portion, if a resync is under way.
    pub(super) fn continue_resync(&mut self) {
        let Some(mut resync) = self.resync.take() else {
            return;
        };
        let begun = self.clock.now();
        let pods = self.take_portion(&mut resync.left);
        let is_last = pods.is_empty();
        // A store that is offline need not be asked for every portion.
        resync.worked &= self.offline.is_none() && self.refresh_facts(&pods);
        resync.worked &= if is_last {
            self.reconcile_node() & self.finish_removals()
        } else {
            self.reconcile(&Scope::Sandboxes(pods))
        };
        resync.took += self.clock.now().duration_since(begun);
        if is_last {
            self.end_resync(&resync)
        } else {
            self.resync = Some(resync)
        }
    }

    fn end_resync(&mut self, resync: &Resync) {
        let pause = (resync.took * REST).clamp(PERIOD, LONGEST_PERIOD);
        self.next_look = self.next_look.min(self.clock.now() + pause);
        if resync.worked {
            self.retry = RETRY.0;
            self.forget_unclaimed_leftovers();
        } else {
            self.look_again_soon();
        }
        self.tell();
    }

    /// All links that there are have been seen: what devices left that nobody wants any more is of
    /// no use.
    fn forget_unclaimed_leftovers(&mut self) {
        let (links, sandboxes, restored) = (&self.links, &self.sandboxes, &self.restored);
        self.leftovers.retain(|left| {
            let is_link = links.get(left.link).is_some() || restored.has(left.link);
            is_link && sandboxes.get(&left.sandbox).is_some()
        });
    }

    /// Takes pods from those that are left until they have enough links, neighbours together: the
    /// store's facts about one are mostly about the other as well.
    pub(super) fn take_portion(&self, left: &mut BTreeSet<PodKey>) -> BTreeSet<PodKey> {
        let (mut portion, mut ends) = (BTreeSet::new(), 0);
        let mut next = VecDeque::new();
        while let Some(pod) = next.pop_front().or_else(|| left.first().cloned()) {
            if !left.contains(&pod) {
                continue;
            }
            // The store may have forgotten what it declares.
            let declared = self
                .sandboxes
                .of(&pod)
                .map(|state| state.links.len())
                .max()
                .unwrap_or(0);
            ends += 1 + self.known.links_with(&pod).max(declared);
            if ends > PORTION && !portion.is_empty() {
                break;
            }
            left.remove(&pod);
            next.extend(self.known.neighbours(&pod));
            portion.insert(pod);
        }
        portion
    }

    /// Sees to it that what the store says of all of this node's pods has been read once: before
    /// that nothing is removed. It is read before anything is done, since what one pod declares may
    /// be at odds with what another does.
    fn inform(&mut self) -> bool {
        if !self.informed {
            let mut left = self.sandboxes.pods();
            loop {
                let portion = self.take_portion(&mut left);
                if !self.read_facts(&portion) {
                    return false;
                }
                if left.is_empty() {
                    break;
                }
            }
            self.informed = true;
        }
        self.tell_interest();
        true
    }

    /// Until the store has been read, what is known of this node's own pods is what is on disk:
    /// enough to tell which of their links are with each other, so that a DEL leaves the survivors
    /// theirs although the store is away.
    fn recall_own_pods(&mut self) {
        let Ok(effective) = self.effective().cloned() else {
            return;
        };
        if self.informed {
            return;
        }
        for pod in self.sandboxes.pods() {
            if let Some(state) = self.sandboxes.current(&pod)
                && self.known.record(&pod).is_none()
            {
                self.known
                    .set(&pod, Some(sandboxes::record(state, &effective)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, path::Path, sync::mpsc, thread};

    use ratchet_kernel::NetnsHandle;
    use ratchet_model::{DeclaredEnd, DeclaredLink};
    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        engine::{Command, testing::Node},
        state::{SandboxState, StateDir, boot_id},
    };

    /// More than half a portion.
    const LINKS: usize = PORTION / 2 + 1;

    /// A sandbox of a pod that waits for all of its peers.
    fn sandbox(name: &str, netns: &Path) -> SandboxState {
        let pod = PodKey::new("default", name).unwrap();
        let end =
            |pod: &PodKey, n| DeclaredEnd::bare(pod.clone(), format!("e{n}").parse().unwrap());
        let peer = PodKey::new("default", &format!("{name}-peer")).unwrap();
        let link = |n| DeclaredLink {
            local: end(&pod, n),
            remote: end(&peer, n),
            mtu: None,
            vni: None,
        };
        let identity = NetnsHandle::open(netns).unwrap().identity();
        SandboxState {
            id: name.parse().unwrap(),
            links: (0..LINKS).map(link).collect(),
            netns: netns.to_owned(),
            netns_identity: (identity.dev, identity.inode),
            boot_id: boot_id().unwrap(),
            created: 1,
            kubernetes: ("default".into(), name.into()),
            use_labels: false,
            attachments: BTreeSet::new(),
            leaving: false,
            pod,
        }
    }

    /// An engine in a network namespace of its own, with three pods of a portion each. Nobody
    /// drives its runtime: what the store's watch would tell is not heard.
    fn with_engine(test: impl FnOnce(Engine, mpsc::Receiver<Command>) + Send + 'static) {
        let body = move || {
            let node = Node::new();
            let states = StateDir::open(node.dir.path()).unwrap();
            states.set_complete().unwrap();
            for name in ["a", "b", "c"] {
                states
                    .save(&sandbox(name, Path::new("/proc/thread-self/ns/net")))
                    .unwrap();
            }
            let (commands, inbox) = mpsc::channel();
            test(node.engine(&commands), inbox);
        };
        thread::spawn(body).join().unwrap();
    }

    #[test]
    fn a_command_waits_for_one_portion_only() {
        with_engine(|mut engine, inbox| {
            engine.begin_resync();
            assert_eq!(engine.resync.as_ref().unwrap().left.len(), 3);
            let mut taken = VecDeque::new();
            for left in [2, 1, 0] {
                let (answer, mut answered) = oneshot::channel();
                engine.commands.send(Command::Links(answer)).unwrap();
                assert!(engine.turn(&inbox, &mut taken));
                let links = answered.try_recv().expect("an answer").unwrap().links;
                assert_eq!(
                    links.len(),
                    (2 - left) * LINKS,
                    "what the portions before have found"
                );
                assert_eq!(engine.resync.as_ref().unwrap().left.len(), left);
            }
            assert!(engine.turn(&inbox, &mut taken));
            assert!(engine.resync.is_none());
            assert_eq!(engine.report().links.len(), 3 * LINKS);
        });
    }

    #[test]
    fn nothing_is_looked_at_before_all_has_been_read() {
        with_engine(|mut engine, _inbox| {
            engine.asked.store = Some("sqlite:/dev/null/store.db".into());
            engine.begin_resync();
            assert!(engine.resync.is_none() && !engine.informed);
        });
    }
}
