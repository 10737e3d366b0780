//! Measures Ratchet against the kernel, against Debian's plugins and against itself; both sides of
//! a comparison are measured in the same run.
//!
//! `make bench` and `make bench-quick` run it. bench/README.md says how to read its output. It is
//! not installed.

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
    /// Measure only these rows (see --list)
    #[arg(long = "row", value_name = "NAME")]
    rows: Vec<String>,
    /// Use smaller numbers and fewer rounds: all rows take less than two minutes
    #[arg(long)]
    quick: bool,
    /// The number of rounds of each row
    #[arg(long, value_name = "COUNT")]
    rounds: Option<usize>,
    /// Also write the results to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Show the agents' logs
    #[arg(long)]
    logs: bool,
    /// List the rows and how each is measured
    #[arg(long)]
    list: bool,
}

/// What a row is measured with.
struct Bench {
    /// The binary under test.
    ratchet: PathBuf,
    /// A directory that is removed at the end; it has the plugin that does nothing.
    scratch: PathBuf,
    quick: bool,
    rounds: Option<usize>,
    /// Whether the agents' logs are shown.
    logs: bool,
}

impl Bench {
    /// The first value for a quick run, the second for a full one.
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
    let measured = measure(&Options::parse());
    world::finish();
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ratchet-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The plugin that does nothing: the cost of any plugin that is started and called.
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
    let rows = selected(&options.rows)?;
    if !nix::unistd::geteuid().is_root() {
        bail!("this makes network namespaces, which only root may do: run it as root");
    }
    let ratchet = fs::canonicalize(&options.ratchet).with_context(|| {
        format!(
            "cannot find the binary under test, {}: build it with `make build`",
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
    let results = measure_rows(&bench, &rows);
    if let Some(path) = &options.out {
        fs::write(path, results_text(&machine, &results))
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("\nwritten to {}", path.display());
    }
    if results.failed.is_empty() {
        Ok(())
    } else {
        bail!("not measured: {}", results.failed.join(", "))
    }
}

/// The rows of these names; all if there are none.
fn selected(names: &[String]) -> Result<Vec<&'static Row>> {
    if let Some(unknown) = names
        .iter()
        .find(|name| ROWS.iter().all(|row| row.name != **name))
    {
        let known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        bail!(
            "there is no row {unknown:?}: choose from {}",
            known.join(", ")
        );
    }
    let is_selected = |row: &&Row| names.is_empty() || names.iter().any(|name| name == row.name);
    Ok(ROWS.iter().filter(is_selected).collect())
}

/// What was measured, and the names of the rows that could not be.
#[derive(Default)]
struct Results {
    measured: Vec<(&'static Row, Vec<Line>)>,
    failed: Vec<&'static str>,
}

/// Measures the rows and prints each when it is done.
fn measure_rows(bench: &Bench, rows: &[&'static Row]) -> Results {
    let mut results = Results::default();
    for row in rows {
        let begun = Instant::now();
        println!("\n{}", row.name);
        match (row.run)(bench) {
            Ok(lines) => {
                lines.iter().for_each(|line| println!("{}", line.text()));
                results.measured.push((row, lines));
            }
            Err(error) => {
                println!("  cannot be measured: {error:#}");
                results.failed.push(row.name);
            }
        }
        println!("  ({:.0} s)", begun.elapsed().as_secs_f64());
    }
    results
}

/// The text of bench/RESULTS.md.
fn results_text(machine: &str, results: &Results) -> String {
    let all = results.measured.iter().flat_map(|(_, lines)| lines);
    let (count, met) = (
        all.clone().count(),
        all.clone().filter(|line| line.is_met).count(),
    );
    let mut text = format!(
        "# Results\n\nWritten by `make bench`; README.md says how to read it. {met} of {count} \
         lines reach what they must.\n\n{machine}\n{}",
        line::table(all)
    );
    if !results.failed.is_empty() {
        text += &format!(
            "\nCould not be measured in this run: {}.\n",
            results.failed.join(", ")
        );
    }
    text += "\n## How each was measured\n";
    for (row, lines) in &results.measured {
        text += &format!("\n### {}\n\n", row.name);
        for line in lines {
            text += &format!("* {}\n", line.work);
        }
        text += &format!("\n{}\n", wrapped(row.how));
    }
    text
}

/// Wraps a paragraph at 120 columns, the limit of scripts/check-form.
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
