//! Fake plugins for tests: shell scripts in their own directory, which record each call.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use tempfile::TempDir;

use crate::{delegate::Caller, environment::Environment, exec::Executor};

/// A writer that several owners share.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A directory of fake plugins.
pub struct Fakes {
    dir: TempDir,
    pub stderr: Shared,
}

impl Fakes {
    pub fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            stderr: Shared::default(),
        }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A plugin that records verb, stdin and environment of each call and then runs this script.
    pub fn plugin(&self, kind: &str, script: &str) {
        let dir = self.dir().display();
        let note = format!(
            "D='{dir}'; N='{kind}'; echo \"$CNI_COMMAND $N\" >>$D/calls; \
             cat >$D/$N.$CNI_COMMAND.stdin; env >$D/$N.$CNI_COMMAND.env"
        );
        self.script(kind, &format!("{note}\n{script}"));
    }

    /// A plain script.
    pub fn script(&self, name: &str, script: &str) {
        let path = self.dir().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir().join(name)).unwrap_or_default()
    }

    /// `VERB plugin` of all calls, in order.
    pub fn calls(&self) -> Vec<String> {
        self.read("calls").lines().map(str::to_owned).collect()
    }

    pub fn env(&self) -> Environment {
        let path = self.dir().to_str().unwrap();
        [
            ("PATH", "/usr/bin:/bin"),
            ("TRACEPARENT", "00-1"),
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/run/netns/c1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "A=b"),
            ("CNI_PATH", path),
        ]
        .into_iter()
        .collect()
    }

    /// Short pauses, but enough of them: a fork in another test may hold a script open for writing.
    pub fn executor(&self) -> Executor {
        Executor::with_stderr(self.stderr.clone()).with_busy_pause(Duration::from_millis(50))
    }

    pub fn caller(&self) -> Caller {
        Caller::new(&self.env()).with_executor(self.executor())
    }
}
