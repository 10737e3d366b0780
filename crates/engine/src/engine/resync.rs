//! A resync: the look at everything, which corrects what others did to our devices and finds what
//! was left of ours.
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

use ratchet_model::{LinkId, PodKey};

use super::Engine;
use crate::{
    retry::{Retry, Tried},
    wires::Scope,
};

/// The ends of links in one portion, unless a single pod has more.
const PORTION: usize = 1000;

/// A resync that is under way.
pub(super) struct Resync {
    /// The pods that are still to be looked at. When there are none left, the node's own namespace
    /// is.
    left: BTreeSet<PodKey>,
    /// What came of it so far.
    tried: Tried,
    /// Whether everything so far could be looked at, with the store's facts. What links of it
    /// could not be made does not matter: a pod can have such links for ever.
    is_whole: bool,
    /// The time that its portions took.
    took: Duration,
}

impl Engine {
    /// Looks at the node, the store and which sandboxes there are, and begins a resync; one that is
    /// under way begins again.
    pub(super) fn begin_resync(&mut self) {
        let begun = self.clock.now();
        self.resync = None;
        self.schedule.begin(begun);
        self.node.look(&*self.kernel);
        // This needs neither store nor state.
        self.wires.begin_resync(&*self.kernel);
        match self.prepare_resync() {
            Ok(registered) => {
                self.resync = Some(Resync {
                    left: self.sandboxes.pods(),
                    tried: registered,
                    is_whole: true,
                    took: self.clock.now().duration_since(begun),
                });
            }
            // Without knowing what is wanted, or whose the devices are, nothing is done to them.
            Err(retry) => {
                self.expect_retry(Err(retry));
                self.tell();
            }
        }
    }

    /// Sees to it that all sandboxes are known, and what the store says of them. Returns whether
    /// the store knows that this node is alive; a resync does not need that.
    fn prepare_resync(&mut self) -> Tried<Tried> {
        self.adopt()?;
        self.drop_dead_sandboxes();
        self.remember_own_pods();
        let registered = self.register_node();
        self.inform()?;
        self.declare_again();
        Ok(registered)
    }

    /// Looks at the next portion, if a resync is under way.
    pub(super) fn continue_resync(&mut self) {
        let Some(mut resync) = self.resync.take() else {
            return;
        };
        let begun = self.clock.now();
        let pods = self.take_portion(&mut resync.left);
        let is_last = pods.is_empty();
        let refreshed = self.refresh_portion(&pods);
        let (looked, removed) = if is_last {
            (self.reconcile_node(), self.finish_removals())
        } else {
            (self.look_and_reconcile(&Scope::Sandboxes(pods)), Ok(()))
        };
        resync.is_whole &= refreshed.is_ok() && looked.is_ok();
        let reconciled = removed.and(looked.flatten());
        resync.tried = resync.tried.and(refreshed).and(reconciled);
        let now = self.clock.now();
        resync.took += now.duration_since(begun);
        if !is_last {
            self.resync = Some(resync);
            return;
        }
        // A link that cannot be made keeps no VNI of others: what is released is proved by itself.
        if self.session.trouble().is_none() {
            resync.tried = resync.tried.and(self.release_unwanted_vnis());
        }
        self.schedule.end(resync.tried.is_ok(), resync.took, now);
        if resync.is_whole {
            self.wires.end_resync(&*self.kernel);
            let restored = self.session.restored();
            let is_restored = |link: LinkId| restored.has(link);
            self.wires
                .forget_unclaimed_leftovers(&self.sandboxes, is_restored);
        }
        if let Err(retry) = &resync.tried {
            super::log_retry(retry);
        }
        self.tell();
    }

    /// A store that is offline is not asked for every portion.
    fn refresh_portion(&mut self, pods: &BTreeSet<PodKey>) -> Tried {
        match self.session.offline() {
            Some(failure) => Err(Retry::Store(failure.clone())),
            None => self.refresh_facts(pods),
        }
    }

    /// Takes pods from those that are left until they have enough links, neighbours together: the
    /// store's facts about one are mostly about the other as well.
    fn take_portion(&self, left: &mut BTreeSet<PodKey>) -> BTreeSet<PodKey> {
        let known = self.session.known();
        let (mut portion, mut ends) = (BTreeSet::new(), 0);
        let mut next = VecDeque::new();
        while let Some(pod) = next.pop_front().or_else(|| left.first().cloned()) {
            if !left.contains(&pod) {
                continue;
            }
            // The store may have forgotten what it declares.
            ends += 1 + known.links_with(&pod).max(self.sandboxes.links_of(&pod));
            if ends > PORTION && !portion.is_empty() {
                break;
            }
            left.remove(&pod);
            next.extend(known.neighbours(&pod));
            portion.insert(pod);
        }
        portion
    }

    /// Sees to it that what the store says of all of this node's pods has been read once: before
    /// that nothing is removed. It is read before anything is done, since what one pod declares may
    /// contradict what another does.
    fn inform(&mut self) -> Tried {
        if !self.session.is_informed() {
            let mut left = self.sandboxes.pods();
            loop {
                let portion = self.take_portion(&mut left);
                self.read_facts(&portion)?;
                if left.is_empty() {
                    break;
                }
            }
            self.count_devices()?;
            self.session.set_informed();
        }
        self.session.set_interest(&self.sandboxes);
        Ok(())
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
        let link = |n| DeclaredLink::new(end(&pod, n), end(&peer, n));
        let identity = NetnsHandle::open(netns).unwrap().identity();
        SandboxState {
            held_by: None,
            id: name.parse().unwrap(),
            links: (0..LINKS).map(link).collect(),
            netns: netns.to_owned(),
            netns_identity: (identity.dev, identity.inode),
            boot_id: boot_id().unwrap(),
            created: 1,
            kubernetes: ("default".into(), name.into()),
            use_labels: false,
            accept: None,
            given: Default::default(),
            attachments: BTreeSet::new(),
            leaving: false,
            pod,
        }
    }

    /// An engine in a network namespace of its own, with three pods of a portion each. Nobody
    /// drives its runtime: what the store's watch would tell is not heard.
    fn with_engine(test: impl FnOnce(Engine, mpsc::Receiver<Command>) + Send + 'static) {
        with_engine_on(|_| (), test);
    }

    /// The same with something changed about the node first.
    fn with_engine_on(
        change: impl FnOnce(&mut Node) + Send + 'static,
        test: impl FnOnce(Engine, mpsc::Receiver<Command>) + Send + 'static,
    ) {
        let body = move || {
            let mut node = Node::new();
            change(&mut node);
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
                let command = Command::Links(answer);
                engine.surroundings.commands.send(command).unwrap();
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
        let unusable = |node: &mut Node| {
            node.settings.store = Some("sqlite:/dev/null/store.db".into());
        };
        with_engine_on(unusable, |mut engine, _inbox| {
            engine.begin_resync();
            assert!(engine.resync.is_none() && !engine.session.is_informed());
        });
    }
}
