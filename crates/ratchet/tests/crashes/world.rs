//! Two nodes; on the first one agents die.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::{
    check::{add_by_hand, known_by},
    script::{Played, Script},
    support::{
        Cluster, Netns, Node, Pinger, Pod, Sandbox,
        etcd::{Etcd, EtcdCluster},
        eventually,
    },
};

/// In the course of what the agent dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// ADD of a pod with a link to a pod here and one to a pod on the other node.
    Add,
    /// ADD of its next sandbox, and then DEL of the old one.
    Replace,
    /// DEL, its peers staying.
    Del,
    /// ADD, its peers having waited.
    AddAgain,
    /// Its next sandbox comes on the other node, and then DEL of the old one: the link with the pod
    /// here becomes a tunnel.
    MoveAway,
    /// The other way round.
    MoveBack,
    /// The agent's start after the state directory was lost.
    Lost,
    /// The agent's start after the pod's namespace has vanished.
    Start,
    /// DEL of its peer, the last pod of the link that is here.
    DelLast,
}

/// What follows a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// The plugin starts another agent; a runtime whose ADD has failed sends DEL and makes a new
    /// sandbox.
    OnDemand,
    /// The same with a runtime that repeats what has failed.
    Repeat,
    /// The plugin can start nothing, and undo nothing; somebody else starts the agent, and then the
    /// runtime sends DEL.
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
    /// Whether somebody has added something to the survivors' interfaces.
    pub by_hand: bool,
    /// The subject's sandbox whose namespace vanished, and whose DEL is yet to come.
    vanished: Option<Sandbox>,
}

impl Life {
    /// The subject, if it is on this node.
    pub fn subject_on(&self, node: usize) -> Option<&Sandbox> {
        self.subject
            .as_ref()
            .filter(|_| usize::from(self.is_away) == node)
    }
}

pub struct World {
    pingers: Vec<Pinger>,
    /// Pods with links of their own, which nothing happens to.
    pub still: [Sandbox; 3],
    script: Script,
    pub cluster: Cluster,
    pub etcd: Option<Etcd>,
}

fn link(interface: &str, peer: &str, subnet: u8) -> String {
    format!(
        "{{interface: {interface}, peer: {peer}, addresses: [10.0.{subnet}.1/24, \
        'fd00:{subnet}::1/64'], \
          peerAddresses: [10.0.{subnet}.2/24, 'fd00:{subnet}::2/64'], routes: [{{dst: \
          10.9.{subnet}.0/24, via: 10.0.{subnet}.2}}]}}"
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

    /// Everything goes, and nothing is left.
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

    /// One life, with a death in each operation: at the point that `death` says (0: none).
    pub fn live(
        &mut self,
        number: usize,
        recovery: Recovery,
        mut tell: impl FnMut(Operation, &Played),
        death: impl Fn(Operation) -> usize,
    ) {
        let mut life = self.begin(number, recovery);
        let still: Vec<_> = self.still.iter().map(known_by).collect();
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
            let death = death(operation);
            let played = self.perform(&mut life, operation, death);
            let story = format!(
                "life {number}, {recovery:?}, {operation:?}, death {death}, after {:?}",
                played.passed
            );
            self.assert_order(&life, operation, &story);
            if !life.by_hand {
                add_by_hand(&life.near);
                add_by_hand(&life.far);
                life.by_hand = true;
            }
            // A namespace that vanishes takes the survivor's end with it.
            if operation < Operation::Start {
                let now = [known_by(&life.near), known_by(&life.far)];
                assert_eq!(
                    *survivors.get_or_insert_with(|| now.clone()),
                    now,
                    "{story}"
                );
            }
            assert_eq!(
                self.still.iter().map(known_by).collect::<Vec<_>>(),
                still,
                "{story}"
            );
            tell(operation, &played);
        }
    }

    /// The pod's peers come.
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

    /// Does it, with a death of the agent in it, and what follows that.
    fn perform(&mut self, life: &mut Life, operation: Operation, death: usize) -> Played {
        let number = life.number;
        let subject = || {
            let [near, far] = [
                link("en", &format!("near-{number}/es"), 3),
                link("ef", &format!("far-{number}/es"), 4),
            ];
            Pod::with_links(&format!("subject-{number}"), &format!("[{near}, {far}]")).sandbox()
        };
        let recovery = life.recovery;
        if operation == Operation::Start {
            self.cluster.nodes[0].kill_agent();
            // The old namespace goes; the new one only stands for it, and DEL is not told of it.
            life.vanished = life.subject.take().map(|subject| Sandbox {
                netns: Netns::new("gone"),
                ..subject
            });
        }
        if operation == Operation::Lost {
            self.cluster.nodes[0].kill_agent();
            fs::remove_dir_all(&self.cluster.nodes[0].state_dir).unwrap();
        }
        self.script.begin(death);
        let (mut failed, mut moved) = (None, None);
        match operation {
            Operation::Add | Operation::AddAgain => failed = self.try_add(life, subject()),
            Operation::MoveAway => {
                let next = subject();
                self.cluster.nodes[1].add(&next);
                let old = life.subject.replace(next).unwrap();
                life.is_away = true;
                self.del(recovery, &old);
                self.wait_for_tunnel(&life.near);
                moved = Some(old);
            }
            Operation::Replace | Operation::MoveBack => {
                let old = life.subject.take().unwrap();
                failed = self.try_add(life, subject());
                if failed.is_some() {
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
        let played = self.end_of_script(operation);
        assert!(
            played.has_died || failed.is_none(),
            "{operation:?}: {:?}",
            failed.map(|(_, error)| error)
        );
        if played.has_died {
            let mut dead = self.cluster.nodes[0].agent.take().unwrap();
            eventually("the end of the agent", || match dead.try_wait().unwrap() {
                Some(_) => Ok(()),
                None => Err(format!(
                    "{operation:?}, {death}, {:?}; {:?}",
                    played.passed,
                    self.cluster.nodes[0].agent_pid()
                )),
            });
            self.cluster.nodes[0].start_agent();
        }
        // The runtime goes on.
        let node = &self.cluster.nodes[0];
        match operation {
            Operation::Add | Operation::AddAgain | Operation::Replace | Operation::MoveBack => {
                if let Some((failed, _)) = failed {
                    let next = if recovery == Recovery::Repeat {
                        failed
                    } else {
                        node.del(&failed);
                        subject()
                    };
                    node.add(&next);
                    if let Some(old) = life.subject.replace(next) {
                        self.cluster.nodes[usize::from(life.is_away)].del(&old);
                    }
                }
                life.is_away = false;
            }
            Operation::MoveAway => node.del(&moved.unwrap()),
            Operation::Lost => {}
            Operation::Del => {
                let gone = life.subject.take().unwrap();
                if recovery == Recovery::Managed {
                    node.del(&gone);
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
        played
    }

    /// Stops the counting; gives what was passed, and whether the agent is dead.
    fn end_of_script(&mut self, operation: Operation) -> Played {
        let node = &mut self.cluster.nodes[0];
        if matches!(operation, Operation::Start | Operation::Lost) {
            // It answers once it has dealt with everything.
            let Node { agent, socket, .. } = node;
            let agent = agent.as_mut().unwrap();
            eventually("the agent's start, or its end", || {
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
        // Asked after the script's end: an agent that answers now has passed its last point.
        let has_died = node.agent_pid() != Some(node.agent.as_ref().unwrap().id());
        Played { passed, has_died }
    }

    /// Waits until a survivor's interface has become a tunnel's end, or the agent is dead.
    fn wait_for_tunnel(&mut self, survivor: &Sandbox) {
        let agent = self.cluster.nodes[0].agent.as_mut().unwrap();
        eventually("the tunnel, or the agent's end", || {
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

    /// ADD; gives the sandbox back when it has failed, with the error.
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
