//! A ping in the background.

use std::{
    io::Read,
    process::{Child, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::Netns;

/// A ping that runs until [`Pinger::assert_no_loss`] or drop.
pub struct Pinger {
    child: Child,
}

impl Pinger {
    /// Starts when the address answers.
    #[track_caller]
    pub fn start(netns: &Netns, address: &str) -> Self {
        netns.wait_for_answer(address);
        let child = netns
            .command("ping")
            .args(["-i", "0.01", "-W", "2", address])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child }
    }

    /// Stops and asserts that no packet was lost.
    #[track_caller]
    pub fn assert_no_loss(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGINT).unwrap();
        let mut text = String::new();
        self.child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        self.child.wait().unwrap();
        let summary = text.lines().find(|line| line.contains("packet loss"));
        let summary = summary.unwrap_or_else(|| panic!("no summary: {text}"));
        let numbers: Vec<u32> = summary
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|word| word.parse().ok())
            .collect();
        // The answer to the last request may be missing when ping is stopped.
        assert!(numbers[0] > 0 && numbers[0] - numbers[1] <= 1, "{summary}");
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
