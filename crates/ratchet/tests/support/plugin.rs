//! A node's CNI config, and calls of the plugin.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use super::{Node, Sandbox};

impl Node {
    /// The CNI config of this node.
    pub fn config(&self) -> Value {
        let mut config = self.base_config();
        for (key, value) in &self.keys {
            config[key] = value.clone();
        }
        config
    }

    /// The config without the keys that the test has set.
    pub(super) fn base_config(&self) -> Value {
        json!({
            "cniVersion": "1.0.0",
            "name": "test-net",
            "type": "ratchet",
            "store": self.store,
            "node": self.name,
            "parent_interface": "eth0",
            "parent_address": self.address,
            "socket": self.socket,
            "state_dir": self.state_dir,
            "delegate": {"type": "loopback"},
        })
    }

    /// Sets a key of the config.
    pub fn set(&mut self, key: &str, value: Value) {
        self.keys.insert(key.to_owned(), value);
    }

    /// Makes the config, and agents that are started from now on, use another store.
    pub fn set_store(&mut self, url: &str) {
        self.store = url.to_owned();
    }

    /// Calls the plugin as a runtime does.
    pub fn plugin(&self, verb: &str, sandbox: &Sandbox, config: &Value) -> Output {
        self.plugin_with(verb, sandbox, config, |_| ())
    }

    /// As [`Node::plugin`], with a change to the command.
    pub fn plugin_with(
        &self,
        verb: &str,
        sandbox: &Sandbox,
        config: &Value,
        change: impl FnOnce(&mut Command),
    ) -> Output {
        let mut command = self.plugin_command(verb, sandbox);
        change(&mut command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(config.to_string().as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }

    /// The command of a call, without its standard input.
    pub fn plugin_command(&self, verb: &str, sandbox: &Sandbox) -> Command {
        let mut command = self.netns.command(&self.program);
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &sandbox.id)
            .env("CNI_NETNS", sandbox.netns.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin:/usr/lib/cni")
            .env(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};\
                     K8S_POD_INFRA_CONTAINER_ID={}",
                    sandbox.pod.namespace, sandbox.pod.name, sandbox.id
                ),
            );
        command
    }

    /// Calls ADD with the pod's labels and annotations in the config. Returns the result, or CNI's
    /// error object.
    pub fn try_add(&self, sandbox: &Sandbox) -> Result<Value, Value> {
        let output = self.plugin("ADD", sandbox, &sandbox.pod.configure(self.config()));
        let document: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {output:?}; agent: {}", self.log_text()));
        if output.status.success() {
            Ok(document)
        } else {
            Err(document)
        }
    }

    /// An ADD that must succeed.
    #[track_caller]
    pub fn add(&self, sandbox: &Sandbox) -> Value {
        self.try_add(sandbox).unwrap_or_else(|e| {
            panic!(
                "ADD of {}: {e}\nagent: {}",
                sandbox.pod.name,
                self.log_text()
            )
        })
    }

    /// A DEL that must succeed.
    #[track_caller]
    pub fn del(&self, sandbox: &Sandbox) {
        let output = self.plugin("DEL", sandbox, &sandbox.pod.configure(self.config()));
        assert!(
            output.status.success(),
            "DEL of {}: {output:?}\nagent: {}",
            sandbox.pod.name,
            self.log_text()
        );
    }
}
