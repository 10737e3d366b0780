//! What the commands of a lab print.

use std::{io::Write, time::Instant};

/// Prints one line per step, with the time since the start.
#[derive(Debug)]
pub(crate) struct Progress(Instant);

impl Progress {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Prints that a step is done.
    pub fn done(&self, what: &str) {
        say(&format!("{:>7} ms  {what}", self.0.elapsed().as_millis()));
    }
}

/// Writes a line to standard output. `println!` would panic when the reader has gone (`| head`),
/// in the middle of work that has to be finished or undone.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The same to standard error.
pub(crate) fn warn(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Columns as wide as their widest cell; the first row is the heading.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).filter_map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_do_not_trail() {
        let rows = [
            vec!["NODE".into(), "ADDRESS".into()],
            vec!["n".into(), "1".into()],
        ];
        assert_eq!(table(&rows), "NODE  ADDRESS\nn     1");
    }
}
