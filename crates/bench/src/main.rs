//! Measures Ratchet against the kernel, against Debian's plugins and against itself; each
//! comparison in the same run.
//!
//! `make bench` and `make bench-quick` are the ways to it; bench/README.md says how to read what it
//! prints. Nobody installs this.

mod batch;
mod line;
mod machine;
mod route;
mod rows;
mod site;
mod stats;
mod world;

use std::{
    ffi::OsStr,
    fs,
    io::{Read, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::Parser;

use line::Line;
use rows::{ROWS, Row};

/// Under this name the program is a CNI plugin that does nothing.
const NOOP: &str = "rb-noop";

/// Measures Ratchet against the kernel, Debian's plugins and itself.
#[derive(Debug, Parser)]
struct Options {
    /// The binary under test
    #[arg(long, value_name = "PATH", default_value = "target/release/ratchet")]
    ratchet: PathBuf,
    /// Measure these rows alone (see --list)
    #[arg(long = "row", value_name = "NAME")]
    rows: Vec<String>,
    /// Smaller numbers and fewer rounds: under two minutes for all
    #[arg(long)]
    quick: bool,
    /// So many rounds of each
    #[arg(long, value_name = "COUNT")]
    rounds: Option<usize>,
    /// Write the results there, too
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Show what the agents log
    #[arg(long)]
    logs: bool,
    /// Say which rows there are
    #[arg(long)]
    list: bool,
}

/// What the rows are measured with.
struct Bench {
    /// The binary under test.
    ratchet: PathBuf,
    /// A directory that is gone afterwards; the plugin that does nothing is in it.
    scratch: PathBuf,
    quick: bool,
    rounds: Option<usize>,
    /// Whether the agents' logs are shown.
    logs: bool,
}

impl Bench {
    /// One of two, by whether it has to be quick.
    fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    fn rounds(&self, quick: usize, full: usize) -> usize {
        self.rounds.unwrap_or(self.pick(quick, full))
    }
}

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    if Path::new(&called).file_name() == Some(OsStr::new(NOOP)) {
        return noop();
    }
    match measure(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ratchet-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The plugin that does nothing: what a plugin costs that is started and asked.
fn noop() -> ExitCode {
    let mut config = Vec::new();
    let read = std::io::stdin().read_to_end(&mut config);
    let written = std::io::stdout().write_all(br#"{"cniVersion":"1.0.0"}"#);
    if read.and(written).is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn measure(options: &Options) -> Result<()> {
    if options.list {
        ROWS.iter()
            .for_each(|row| println!("{}: {}", row.name, row.how));
        return Ok(());
    }
    if let Some(unknown) = options
        .rows
        .iter()
        .find(|name| ROWS.iter().all(|row| row.name != **name))
    {
        let known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        bail!(
            "there is no row {unknown:?}; there are {}",
            known.join(", ")
        );
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("network namespaces are needed: run this as root");
    }
    let ratchet = fs::canonicalize(&options.ratchet).with_context(|| {
        format!(
            "{}: build it first, with `make build`",
            options.ratchet.display()
        )
    })?;
    let scratch = tempfile::Builder::new().prefix("rb-").tempdir()?;
    world::prepare(scratch.path())?;
    symlink(std::env::current_exe()?, scratch.path().join(NOOP))?;
    let bench = Bench {
        ratchet,
        scratch: scratch.path().to_owned(),
        quick: options.quick,
        rounds: options.rounds,
        logs: options.logs,
    };
    let machine = machine::describe();
    print!("{machine}");

    let (mut results, mut failed) = (Vec::new(), Vec::new());
    for row in ROWS
        .iter()
        .filter(|row| options.rows.is_empty() || options.rows.iter().any(|name| name == row.name))
    {
        let begun = Instant::now();
        println!("\n{}", row.name);
        match (row.run)(&bench) {
            Ok(lines) => {
                lines.iter().for_each(|line| println!("{}", line.text()));
                results.push((row, lines));
            }
            Err(error) => {
                println!("  cannot be measured: {error:#}");
                failed.push(row.name);
            }
        }
        println!("  ({:.0} s)", begun.elapsed().as_secs_f64());
    }
    if let Some(path) = &options.out {
        fs::write(path, results_text(&machine, &results, &failed))
            .with_context(|| format!("write {}", path.display()))?;
        println!("\nwritten to {}", path.display());
    }
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("not measured: {}", failed.join(", "))
    }
}

/// bench/RESULTS.md.
fn results_text(machine: &str, results: &[(&Row, Vec<Line>)], failed: &[&str]) -> String {
    let all = results.iter().flat_map(|(_, lines)| lines);
    let (count, met) = (
        all.clone().count(),
        all.clone().filter(|line| line.is_met).count(),
    );
    let mut text = format!(
        "# Results\n\nWritten by `make bench`; README.md says how to read it. {met} of {count} \
         lines reach what they must.\n\n{machine}\n{}",
        line::table(all)
    );
    if !failed.is_empty() {
        text += &format!(
            "\nCould not be measured in this run: {}.\n",
            failed.join(", ")
        );
    }
    text += "\n## How each was measured\n";
    for (row, lines) in results {
        text += &format!("\n### {}\n\n", row.name);
        for line in lines {
            text += &format!("* {}\n", line.work);
        }
        text += &format!("\n{}\n", wrapped(row.how));
    }
    text
}

/// A paragraph in lines of at most 120 columns, as scripts/check-form wants them.
fn wrapped(paragraph: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in paragraph.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= 120 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}
