//! Two nodes; agents crash on the first one.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::{
    check::{add_by_hand, identities},
    script::{Played, Script},
    support::{
        Cluster, Netns, Node, Pinger, Pod, Sandbox,
        etcd::{Etcd, EtcdCluster},
        eventually,
    },
};

/// The operation during which the agent crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// ADD of a pod with a link to a pod here and one to a pod on the other node.
    Add,
    /// ADD of its next sandbox, and then DEL of the old one.
    Replace,
    /// DEL; its peers stay.
    Del,
    /// ADD; its peers have stayed.
    AddAgain,
    /// ADD of its next sandbox on the other node, and then DEL of the old one: the link with the
    /// pod here becomes a tunnel.
    MoveAway,
    /// The reverse of `MoveAway`.
    MoveBack,
    /// Start of the agent after the state directory was lost.
    Lost,
    /// Start of the agent after the pod's namespace has vanished.
    Start,
    /// DEL of its peer here, the last pod of the link.
    DelLast,
}

/// What happens after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// The plugin starts another agent. A runtime whose ADD has failed calls DEL and makes a new
    /// sandbox.
    OnDemand,
    /// As `OnDemand`, with a runtime that repeats the ADD.
    Repeat,
    /// The plugin cannot start an agent and cannot undo anything. The agent is started by hand, and
    /// then the runtime calls DEL.
    Managed,
}

impl Recovery {
    pub const ALL: [Self; 3] = [Self::OnDemand, Self::Repeat, Self::Managed];
}

/// The pods of one life.
pub struct Life {
    pub number: usize,
    recovery: Recovery,
    pub near: Sandbox,
    pub far: Sandbox,
    pub subject: Option<Sandbox>,
    /// Whether the subject is on the other node.
    pub is_away: bool,
    /// Whether an address and a route were added by hand to the survivors' interfaces.
    pub by_hand: bool,
    /// The subject's sandbox whose namespace has vanished, until its DEL.
    vanished: Option<Sandbox>,
}

impl Life {
    /// A new sandbox of the subject.
    fn next_subject(&self) -> Sandbox {
        let number = self.number;
        let [near, far] = [
            link("en", &format!("near-{number}/es"), 3),
            link("ef", &format!("far-{number}/es"), 4),
        ];
        Pod::with_links(&format!("subject-{number}"), &format!("[{near}, {far}]")).sandbox()
    }

    /// The subject, if it is on this node.
    pub fn subject_on(&self, node: usize) -> Option<&Sandbox> {
        self.subject
            .as_ref()
            .filter(|_| usize::from(self.is_away) == node)
    }
}

/// The sandboxes of an attempted operation that the runtime has to deal with.
#[derive(Default)]
struct Attempt {
    /// The sandbox whose ADD has failed, and the error.
    failed: Option<(Sandbox, String)>,
    /// The old sandbox of a pod that has moved to the other node.
    moved: Option<Sandbox>,
}

pub struct World {
    pingers: Vec<Pinger>,
    /// Linked pods that no operation touches.
    pub still: [Sandbox; 3],
    script: Script,
    pub cluster: Cluster,
    pub etcd: Option<Etcd>,
}

fn link(interface: &str, peer: &str, subnet: u8) -> String {
    format!(
        "{{interface: {interface}, peer: {peer}, \
          addresses: [10.0.{subnet}.1/24, 'fd00:{subnet}::1/64'], \
          peerAddresses: [10.0.{subnet}.2/24, 'fd00:{subnet}::2/64'], \
          routes: [{{dst: 10.9.{subnet}.0/24, via: 10.0.{subnet}.2}}]}}"
    )
}

impl World {
    pub fn on_sqlite() -> Self {
        Self::new(Cluster::new(2), None)
    }

    pub fn on_etcd() -> Self {
        let EtcdCluster { cluster, etcd } = EtcdCluster::new(2);
        Self::new(cluster, Some(etcd))
    }

    fn new(mut cluster: Cluster, etcd: Option<Etcd>) -> Self {
        let path: PathBuf = cluster.dir.path().join("script");
        cluster.nodes[0]
            .environment
            .insert("RATCHET_FAILPOINT_SCRIPT", path.clone());
        cluster.nodes.iter_mut().for_each(Node::start_agent);
        let hub = format!(
            "[{}, {}]",
            link("eth1", "still-b/eth1", 1),
            link("eth2", "still-c/eth1", 2)
        );
        let still = [
            ("still-a", hub.as_str()),
            ("still-b", "[]"),
            ("still-c", "[]"),
        ];
        let still = still.map(|(name, links)| Pod::with_links(name, links).sandbox());
        for (node, sandbox) in [0, 0, 1].into_iter().zip(&still) {
            cluster.nodes[node].add(sandbox);
        }
        let pingers = ["10.0.1.2", "10.0.2.2"]
            .map(|address| Pinger::start(&still[0].netns, address))
            .into();
        Self {
            pingers,
            still,
            script: Script::new(path),
            cluster,
            etcd,
        }
    }

    /// Deletes all pods. Nothing may be left.
    pub fn end(self) {
        self.pingers.into_iter().for_each(Pinger::assert_no_loss);
        for (node, sandbox) in [0, 0, 1].into_iter().zip(&self.still) {
            self.cluster.nodes[node].del(sandbox);
        }
        self.cluster.assert_nothing_left();
        if let Some(etcd) = &self.etcd {
            etcd.wait_until_empty();
        } else {
            eventually("an empty store", || match self.cluster.store_rows() {
                rows if rows.trim() == "[]" => Ok(()),
                rows => Err(rows),
            });
        }
    }

    /// One life, with a crash in each operation at the point `crash_at` (0: no crash). Calls
    /// `report` after each operation.
    pub fn live(
        &mut self,
        number: usize,
        recovery: Recovery,
        mut report: impl FnMut(Operation, &Played),
        crash_at: impl Fn(Operation) -> usize,
    ) {
        let mut life = self.begin(number, recovery);
        let still: Vec<_> = self.still.iter().map(identities).collect();
        let mut survivors = None;
        for operation in [
            Operation::Add,
            Operation::Replace,
            Operation::Del,
            Operation::AddAgain,
            Operation::MoveAway,
            Operation::MoveBack,
            Operation::Lost,
            Operation::Start,
            Operation::DelLast,
        ] {
            let crash_at = crash_at(operation);
            let played = self.perform(&mut life, operation, crash_at);
            let what = format!(
                "life {number}, {recovery:?}, {operation:?}, crash at {crash_at}, after {:?}",
                played.passed
            );
            self.assert_as_declared(&life, operation, &what);
            if !life.by_hand {
                add_by_hand(&life.near);
                add_by_hand(&life.far);
                life.by_hand = true;
            }
            // A namespace that vanishes takes the survivor's end with it.
            if operation < Operation::Start {
                let now = [identities(&life.near), identities(&life.far)];
                assert_eq!(*survivors.get_or_insert_with(|| now.clone()), now, "{what}");
            }
            assert_eq!(
                self.still.iter().map(identities).collect::<Vec<_>>(),
                still,
                "{what}"
            );
            report(operation, &played);
        }
    }

    /// Adds the pod's peers.
    fn begin(&self, number: usize, recovery: Recovery) -> Life {
        let [near, far] = ["near", "far"]
            .map(|name| Pod::with_links(&format!("{name}-{number}"), "[]").sandbox());
        self.cluster.nodes[0].add(&near);
        self.cluster.nodes[1].add(&far);
        Life {
            number,
            recovery,
            near,
            far,
            subject: None,
            is_away: false,
            by_hand: false,
            vanished: None,
        }
    }

    /// Performs an operation with a crash of the agent in it, and the runtime's calls afterwards.
    fn perform(&mut self, life: &mut Life, operation: Operation, crash_at: usize) -> Played {
        self.prepare(life, operation);
        self.script.begin(crash_at);
        let attempt = self.attempt(life, operation);
        let played = self.end_of_script(operation);
        assert!(
            played.has_crashed || attempt.failed.is_none(),
            "{operation:?}: {:?}",
            attempt.failed.map(|(_, error)| error)
        );
        if played.has_crashed {
            let mut crashed = self.cluster.nodes[0].agent.take().unwrap();
            eventually("the end of the agent", || {
                match crashed.try_wait().unwrap() {
                    Some(_) => Ok(()),
                    None => Err(format!(
                        "{operation:?}, {crash_at}, {:?}; {:?}",
                        played.passed,
                        self.cluster.nodes[0].agent_pid()
                    )),
                }
            });
            self.cluster.nodes[0].start_agent();
        }
        self.finish(life, operation, attempt);
        played
    }

    /// Makes what an operation finds: a state directory or a namespace that is lost.
    fn prepare(&mut self, life: &mut Life, operation: Operation) {
        let node = &mut self.cluster.nodes[0];
        if operation == Operation::Start {
            node.kill_agent();
            // This drops the old namespace. The new one replaces it only in this value; DEL does
            // not get its path.
            life.vanished = life.subject.take().map(|subject| Sandbox {
                netns: Netns::new("gone"),
                ..subject
            });
        }
        if operation == Operation::Lost {
            node.kill_agent();
            fs::remove_dir_all(&node.state_dir).unwrap();
        }
    }

    /// The calls of an operation, during which the agent may crash.
    fn attempt(&mut self, life: &mut Life, operation: Operation) -> Attempt {
        let recovery = life.recovery;
        let mut attempt = Attempt::default();
        match operation {
            Operation::Add | Operation::AddAgain => {
                attempt.failed = self.try_add(life, life.next_subject());
            }
            Operation::MoveAway => {
                let next = life.next_subject();
                self.cluster.nodes[1].add(&next);
                let old = life.subject.replace(next).unwrap();
                life.is_away = true;
                self.del(recovery, &old);
                self.wait_for_tunnel(&life.near);
                attempt.moved = Some(old);
            }
            Operation::Replace | Operation::MoveBack => {
                let old = life.subject.take().unwrap();
                attempt.failed = self.try_add(life, life.next_subject());
                if attempt.failed.is_some() {
                    life.subject = Some(old);
                } else if operation == Operation::MoveBack {
                    self.cluster.nodes[1].del(&old);
                } else {
                    self.del(recovery, &old);
                }
            }
            Operation::Del => self.del(recovery, life.subject.as_ref().unwrap()),
            Operation::DelLast => self.del(recovery, &life.near),
            Operation::Start | Operation::Lost => self.cluster.nodes[0].spawn_agent(&[]),
        }
        attempt
    }

    /// The runtime's calls after an operation, crashed or not.
    fn finish(&self, life: &mut Life, operation: Operation, attempt: Attempt) {
        let recovery = life.recovery;
        let node = &self.cluster.nodes[0];
        match operation {
            Operation::Add | Operation::AddAgain | Operation::Replace | Operation::MoveBack => {
                if let Some((failed, _)) = attempt.failed {
                    let next = if recovery == Recovery::Repeat {
                        failed
                    } else {
                        node.del(&failed);
                        life.next_subject()
                    };
                    node.add(&next);
                    if let Some(old) = life.subject.replace(next) {
                        self.cluster.nodes[usize::from(life.is_away)].del(&old);
                    }
                }
                life.is_away = false;
            }
            Operation::MoveAway => node.del(&attempt.moved.unwrap()),
            Operation::Lost => {}
            Operation::Del => {
                let deleted = life.subject.take().unwrap();
                if recovery == Recovery::Managed {
                    node.del(&deleted);
                }
            }
            Operation::DelLast => {
                node.del(&life.near);
                self.cluster.nodes[1].del(&life.far);
            }
            Operation::Start => {
                let vanished = life.vanished.take().unwrap();
                let config = self.config(recovery, &vanished);
                let output = node.plugin_with("DEL", &vanished, &config, |command| {
                    command.env("CNI_NETNS", "");
                });
                assert!(output.status.success(), "{output:?}");
            }
        }
    }

    /// Stops the counting. Returns the points that were passed, and whether the agent has crashed.
    fn end_of_script(&mut self, operation: Operation) -> Played {
        let node = &mut self.cluster.nodes[0];
        if matches!(operation, Operation::Start | Operation::Lost) {
            // An agent answers after its first resync.
            let Node { agent, socket, .. } = node;
            let agent = agent.as_mut().unwrap();
            eventually("an agent that answers or has ended", || {
                let has_ended = agent.try_wait().unwrap().is_some();
                if has_ended
                    || ratchet_protocol::Client::call(
                        socket,
                        &ratchet_protocol::Request::Hello,
                        crate::support::DEADLINE,
                    )
                    .is_ok()
                {
                    Ok(())
                } else {
                    Err("neither".into())
                }
            });
        }
        let passed = self.script.end();
        let node = &self.cluster.nodes[0];
        // Called after the script's end: an agent that answers now has passed its last point.
        let has_crashed = node.agent_pid() != Some(node.agent.as_ref().unwrap().id());
        Played {
            passed,
            has_crashed,
        }
    }

    /// Waits until a survivor's interface is the end of a tunnel, or the agent has ended.
    fn wait_for_tunnel(&mut self, survivor: &Sandbox) {
        let agent = self.cluster.nodes[0].agent.as_mut().unwrap();
        eventually("a tunnel, or the end of the agent", || {
            let links = survivor.netns.links();
            let is_done = links.get("es").is_some_and(|link| {
                let alias = link["ifalias"].as_str().unwrap_or_default();
                link["linkinfo"]["info_kind"] == "vxlan" && alias.contains("sandbox=")
            });
            if is_done || agent.try_wait().unwrap().is_some() {
                Ok(())
            } else {
                Err(format!("{links:?}"))
            }
        });
    }

    fn config(&self, recovery: Recovery, sandbox: &Sandbox) -> Value {
        let mut config = sandbox.pod.configure(self.cluster.nodes[0].config());
        if recovery == Recovery::Managed {
            config["child_path"] = json!("/bin/false");
        }
        config
    }

    /// Calls ADD. Returns the sandbox and the error if it fails.
    fn try_add(&self, life: &mut Life, sandbox: Sandbox) -> Option<(Sandbox, String)> {
        let output =
            self.cluster.nodes[0].plugin("ADD", &sandbox, &self.config(life.recovery, &sandbox));
        if output.status.success() {
            life.subject = Some(sandbox);
            return None;
        }
        Some((
            sandbox,
            String::from_utf8_lossy(&output.stdout).into_owned(),
        ))
    }

    fn del(&self, recovery: Recovery, sandbox: &Sandbox) {
        let output = self.cluster.nodes[0].plugin("DEL", sandbox, &self.config(recovery, sandbox));
        assert!(output.status.success(), "{output:?}");
    }
}
