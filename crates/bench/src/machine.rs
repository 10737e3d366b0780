//! Describes the machine that the benchmark runs on.

use std::{fs, process::Command};

/// The machine, the time and the command, as a list in Markdown.
pub fn describe() -> String {
    let line = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let found = text
            .lines()
            .find(|line| line.starts_with(key))
            .and_then(|line| line.split_once(':'));
        found.map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map_or("unknown".to_owned(), |output| {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        })
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let command: Vec<String> = std::env::args().collect();
    [
        ("date", output("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        ("kernel", output("uname", &["-sr"])),
        (
            "CPU",
            format!("{}, {cores} cores", line("/proc/cpuinfo", "model name")),
        ),
        ("memory", line("/proc/meminfo", "MemTotal")),
        (
            "load before",
            fs::read_to_string("/proc/loadavg")
                .unwrap_or_default()
                .trim()
                .to_owned(),
        ),
        ("iproute2", output("ip", &["-V"])),
        ("command", format!("`{}`", command.join(" "))),
    ]
    .map(|(what, value)| format!("* {what}: {value}\n"))
    .concat()
}
