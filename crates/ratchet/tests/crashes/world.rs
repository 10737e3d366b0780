//! Two nodes; on the first one agents die.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::{Value, json};

use crate::{
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
    /// The agent's start after the pod's namespace has vanished.
    Start,
    /// DEL of its peer, the last pod of the link that is here.
    DelLast,
}

/// What follows a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// The plugin starts another agent; a runtime whose ADD has failed sends DEL and makes a new sandbox.
    OnDemand,
    /// The same with a runtime that repeats what has failed.
    Repeat,
    /// The plugin can start nothing, and undo nothing; somebody else starts the agent, and then the runtime sends DEL.
    Managed,
}

impl Recovery {
    pub const ALL: [Self; 3] = [Self::OnDemand, Self::Repeat, Self::Managed];
}

/// The pods of one life.
struct Life {
    number: usize,
    recovery: Recovery,
    near: Sandbox,
    far: Sandbox,
    subject: Option<Sandbox>,
    /// The subject's sandbox whose namespace vanished, and whose DEL is yet to come.
    vanished: Option<Sandbox>,
}

pub struct World {
    pingers: Vec<Pinger>,
    /// Pods with links of their own, which nothing happens to.
    still: [Sandbox; 3],
    script: Script,
    cluster: Cluster,
    etcd: Option<Etcd>,
}

/// Interfaces by which a bystander or survivor knows its links.
fn indexes(sandbox: &Sandbox) -> Vec<(String, Value)> {
    sandbox.netns.links().into_iter().map(|(name, link)| (name, link["ifindex"].clone())).collect()
}

fn link(interface: &str, peer: &str, subnet: u8) -> String {
    format!(
        "{{interface: {interface}, peer: {peer}, addresses: [10.0.{subnet}.1/24, 'fd00:{subnet}::1/64'], \
          peerAddresses: [10.0.{subnet}.2/24, 'fd00:{subnet}::2/64'], routes: [{{dst: 10.9.{subnet}.0/24, via: 10.0.{subnet}.2}}]}}"
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
        cluster.nodes[0].environment.insert("RATCHET_FAILPOINT_SCRIPT", path.clone());
        cluster.nodes.iter_mut().for_each(Node::start_agent);
        let hub = format!("[{}, {}]", link("eth1", "still-b/eth1", 1), link("eth2", "still-c/eth1", 2));
        let still = [("still-a", hub.as_str()), ("still-b", "[]"), ("still-c", "[]")];
        let still = still.map(|(name, links)| Pod::with_links(name, links).sandbox());
        for (node, sandbox) in [0, 0, 1].into_iter().zip(&still) {
            cluster.nodes[node].add(sandbox);
        }
        let pingers = ["10.0.1.2", "10.0.2.2"].map(|address| Pinger::start(&still[0].netns, address)).into();
        Self { pingers, still, script: Script::new(path), cluster, etcd }
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
        let still: Vec<_> = self.still.iter().map(indexes).collect();
        let mut survivors = None;
        for operation in [
            Operation::Add,
            Operation::Replace,
            Operation::Del,
            Operation::AddAgain,
            Operation::Start,
            Operation::DelLast,
        ] {
            let death = death(operation);
            let played = self.perform(&mut life, operation, death);
            let story = format!("life {number}, {recovery:?}, {operation:?}, death {death}, after {:?}", played.passed);
            self.assert_order(&life, operation, &story);
            // A namespace that vanishes takes the survivor's end with it.
            if matches!(operation, Operation::Add | Operation::Replace | Operation::Del | Operation::AddAgain) {
                let now = [indexes(&life.near), indexes(&life.far)];
                assert_eq!(*survivors.get_or_insert_with(|| now.clone()), now, "{story}");
            }
            assert_eq!(self.still.iter().map(indexes).collect::<Vec<_>>(), still, "{story}");
            tell(operation, &played);
        }
    }

    /// The pod's peers come.
    fn begin(&self, number: usize, recovery: Recovery) -> Life {
        let [near, far] = ["near", "far"].map(|name| Pod::with_links(&format!("{name}-{number}"), "[]").sandbox());
        self.cluster.nodes[0].add(&near);
        self.cluster.nodes[1].add(&far);
        Life { number, recovery, near, far, subject: None, vanished: None }
    }

    /// Does it, with a death of the agent in it, and what follows that.
    fn perform(&mut self, life: &mut Life, operation: Operation, death: usize) -> Played {
        let number = life.number;
        let subject = || {
            let [near, far] = [link("en", &format!("near-{number}/es"), 3), link("ef", &format!("far-{number}/es"), 4)];
            Pod::with_links(&format!("subject-{number}"), &format!("[{near}, {far}]")).sandbox()
        };
        let recovery = life.recovery;
        if operation == Operation::Start {
            self.cluster.nodes[0].kill_agent();
            // The old namespace goes; the new one only stands for it, and DEL is not told of it.
            life.vanished = life.subject.take().map(|subject| Sandbox { netns: Netns::new("gone"), ..subject });
        }
        self.script.begin(death);
        let mut failed = None;
        match operation {
            Operation::Add | Operation::AddAgain => failed = self.try_add(life, subject()),
            Operation::Replace => {
                let old = life.subject.take().unwrap();
                failed = self.try_add(life, subject());
                if failed.is_none() {
                    self.del(recovery, &old);
                } else {
                    life.subject = Some(old);
                }
            }
            Operation::Del => self.del(recovery, life.subject.as_ref().unwrap()),
            Operation::DelLast => self.del(recovery, &life.near),
            Operation::Start => self.cluster.nodes[0].spawn_agent(&[]),
        }
        let played = self.end_of_script(operation);
        assert!(played.has_died || failed.is_none(), "{operation:?}: {:?}", failed.map(|(_, error)| error));
        if played.has_died {
            let mut dead = self.cluster.nodes[0].agent.take().unwrap();
            eventually("the end of the agent", || match dead.try_wait().unwrap() {
                Some(_) => Ok(()),
                None => {
                    Err(format!("{operation:?}, {death}, {:?}; {:?}", played.passed, self.cluster.nodes[0].agent_pid()))
                }
            });
            self.cluster.nodes[0].start_agent();
        }
        // The runtime goes on.
        let node = &self.cluster.nodes[0];
        match operation {
            Operation::Add | Operation::AddAgain | Operation::Replace => {
                if let Some((failed, _)) = failed {
                    let next = if recovery == Recovery::Repeat {
                        failed
                    } else {
                        node.del(&failed);
                        subject()
                    };
                    node.add(&next);
                    if let Some(old) = life.subject.replace(next) {
                        node.del(&old);
                    }
                }
            }
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
        if operation == Operation::Start {
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

    fn config(&self, recovery: Recovery, sandbox: &Sandbox) -> Value {
        let mut config = sandbox.pod.configure(self.cluster.nodes[0].config());
        if recovery == Recovery::Managed {
            config["child_path"] = json!("/bin/false");
        }
        config
    }

    /// ADD; gives the sandbox back when it has failed, with the error.
    fn try_add(&self, life: &mut Life, sandbox: Sandbox) -> Option<(Sandbox, String)> {
        let output = self.cluster.nodes[0].plugin("ADD", &sandbox, &self.config(life.recovery, &sandbox));
        if output.status.success() {
            life.subject = Some(sandbox);
            return None;
        }
        Some((sandbox, String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    fn del(&self, recovery: Recovery, sandbox: &Sandbox) {
        let output = self.cluster.nodes[0].plugin("DEL", sandbox, &self.config(recovery, sandbox));
        assert!(output.status.success(), "{output:?}");
    }

    /// Waits until everything is as declared.
    fn assert_order(&self, life: &Life, operation: Operation, story: &str) {
        eventually(story, || {
            let problems = self.problems(life, operation == Operation::DelLast);
            if problems.is_empty() { Ok(()) } else { Err(format!("{problems:#?}")) }
        });
        let Some(subject) = &life.subject else { return };
        for address in ["10.0.3.2", "10.0.4.2", "fd00:3::2", "fd00:4::2"] {
            eventually(&format!("{story}: an answer from {address}"), || {
                if subject.netns.ping(address) { Ok(()) } else { Err("none".into()) }
            });
        }
    }

    fn problems(&self, life: &Life, is_over: bool) -> Vec<String> {
        let mut problems = Vec::new();
        let mut devices = |sandbox: &Sandbox, expected: &[(&str, &str, &str)]| {
            let found: Vec<_> = sandbox.netns.links().into_values().map(|link| describe(&link)).collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|(name, kind, address)| {
                    format!(
                        "{name} {kind} 1450 up {:?}",
                        [*address, &address.replace("10.0.", "fd00:").replacen('.', "::", 1)]
                    )
                })
                .collect();
            if found != expected {
                problems.push(format!("{}: {found:?}, not {expected:?}", sandbox.pod.name));
            }
        };
        if let Some(subject) = &life.subject {
            devices(subject, &[("ef", "vxlan", "10.0.4.1"), ("en", "veth", "10.0.3.1")]);
            devices(&life.near, &[("es", "veth", "10.0.3.2")]);
            devices(&life.far, &[("es", "vxlan", "10.0.4.2")]);
        } else if is_over {
            devices(&life.near, &[]);
            devices(&life.far, &[]);
        }
        let living =
            |sandbox: &&Sandbox| !is_over || !std::ptr::eq(*sandbox, &life.near) && !std::ptr::eq(*sandbox, &life.far);
        let here: Vec<&Sandbox> =
            [&self.still[0], &self.still[1], &life.near].into_iter().chain(&life.subject).filter(living).collect();
        let there: Vec<&Sandbox> = [&self.still[2], &life.far].into_iter().filter(living).collect();
        let store = self.store();
        for (node, sandboxes) in self.cluster.nodes.iter().zip([&here, &there]) {
            let ids: BTreeSet<String> = sandboxes.iter().map(|sandbox| format!("{}.json", sandbox.id)).collect();
            let files = fs::read_dir(node.state_dir.join("sandboxes")).unwrap();
            let files: BTreeSet<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
            if files != ids {
                problems.push(format!("{}: state of {files:?}, not {ids:?}", node.name));
            }
            let devices: Vec<String> = node.netns.links().into_keys().filter(|name| name != "eth0").collect();
            // While its peer is away, the survivor's other end is parked here.
            let parked = usize::from(std::ptr::eq(node, &self.cluster.nodes[0]) && life.subject.is_none() && !is_over);
            if devices.len() > parked {
                problems.push(format!("{}: {devices:?}", node.name));
            }
            problems.extend(
                sandboxes.iter().filter(|s| !store.contains(&s.id)).map(|s| format!("store: no {}", s.pod.name)),
            );
        }
        let known = store.matches("ab12").count();
        if known != here.len() + there.len() || is_over && store.contains(&format!("-{}", life.number)) {
            problems.push(format!("store: {store}"));
        }
        problems
    }

    /// All that is in the store, as text.
    fn store(&self) -> String {
        self.etcd.as_ref().map_or_else(|| self.cluster.store_rows(), |etcd| format!("{:?}", etcd.everything()))
    }
}

/// What matters of a device: name, kind, MTU, whether it is up, and its addresses.
fn describe(link: &Value) -> String {
    let addresses = link["addr_info"].as_array().unwrap().iter().filter(|address| address["scope"] == "global");
    let addresses: Vec<&str> = addresses.filter_map(|address| address["local"].as_str()).collect();
    let is_up = link["flags"].as_array().unwrap().contains(&json!("UP"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!(
        "{} {} {} {} {addresses:?}",
        text(&link["ifname"]),
        text(&link["linkinfo"]["info_kind"]),
        link["mtu"],
        if is_up { "up" } else { "down" }
    )
}
