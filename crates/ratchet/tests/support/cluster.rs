//! Nodes on one underlay.

use std::process::Command;

use serde_json::Value;

use super::{Netns, Node, eventually, sh};

/// Nodes on a common underlay, with a common store and directory.
///
/// The nodes are dropped first: an agent is stopped through its socket, which is in the directory.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub store: String,
    pub(super) underlay: Netns,
    pub dir: tempfile::TempDir,
}

impl Cluster {
    /// Nodes without agents.
    pub fn new(count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = format!("sqlite:{}", dir.path().join("store.db").display());
        let underlay = Netns::new("underlay");
        underlay.sh("ip link add br0 type bridge && ip link set br0 up");
        let nodes = (0..count)
            .map(|n| Node::new(n, &underlay, dir.path(), &store))
            .collect();
        Self {
            dir,
            store,
            underlay,
            nodes,
        }
    }

    /// Nodes with an agent each.
    pub fn with_agents(count: usize) -> Self {
        let mut cluster = Self::new(count);
        for node in &mut cluster.nodes {
            node.start_agent();
        }
        cluster
    }

    /// All rows of the SQLite store, as text.
    pub fn store_rows(&self) -> String {
        let path = self.dir.path().join("store.db");
        let script = format!(
            "import sqlite3; c = sqlite3.connect('{}'); \
             t = [r[0] for r in c.execute(\"select name from sqlite_master where type='table' and \
             name not like 'sqlite%'\")]; \
             print([(n, r) for n in t for r in c.execute('select * from ' + n)])",
            path.display()
        );
        let output = Command::new("python3")
            .arg("-c")
            .arg(script)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The value of a config's key before a test has set it.
    pub fn defaults(node: &Node, key: &str) -> Value {
        let mut config = node.base_config();
        config[key].take()
    }

    /// Asserts that nothing of any pod is left on the nodes. It waits for that: a DEL succeeds
    /// while the store is busy, and the agent catches up later.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        for node in &self.nodes {
            eventually(&format!("nothing left on {}", node.name), || {
                let mut left: Vec<String> = node
                    .netns
                    .links()
                    .into_keys()
                    .filter(|name| name != "eth0")
                    .collect();
                for dir in ["sandboxes", "attachments"] {
                    let find = format!(
                        "find {}/{dir} -type f ! -name '*.lock' 2>/dev/null || true",
                        node.state_dir.display()
                    );
                    left.extend(sh(&find).lines().map(str::to_owned));
                }
                if left.is_empty() {
                    Ok(())
                } else {
                    Err(format!("{left:?} is left"))
                }
            });
        }
    }
}
