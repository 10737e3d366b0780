//! One line of the table: what was measured, against what, and whether it reaches its limit.

use std::fmt::Write as _;

use crate::stats::Pairs;

/// A line of the table.
#[derive(Debug, Clone)]
pub struct Line {
    /// The work that was measured.
    pub work: String,
    /// Ratchet's value, with its unit.
    pub ours: String,
    /// The comparison's value, with its unit.
    pub theirs: String,
    /// The ratio of the two, or their difference.
    pub ratio: String,
    /// The limit.
    pub must: String,
    /// Whether the ratio is within the limit.
    pub is_met: bool,
}

/// Formats a number with about three significant digits.
fn shown(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl Line {
    /// A time (or any quantity of which less is better) that may be at most `limit` times the
    /// comparison's.
    pub fn at_most_times(
        work: impl Into<String>,
        unit: &str,
        ours: f64,
        theirs: f64,
        limit: f64,
    ) -> Self {
        let ratio = ours / theirs;
        Self {
            work: work.into(),
            ours: format!("{} {unit}", shown(ours)),
            theirs: format!("{} {unit}", shown(theirs)),
            ratio: format!("{ratio:.2} ×"),
            must: format!("≤ {limit} ×"),
            is_met: ratio <= limit,
        }
    }

    /// A quantity that must equal the comparison's: the median of the pairs' ratios has to be
    /// within `limits`.
    pub fn within(work: impl Into<String>, unit: &str, pairs: &Pairs, limits: (f64, f64)) -> Self {
        let ratio = pairs.ratios.median();
        Self {
            must: format!("{}–{}", limits.0, limits.1),
            ratio: format!("{ratio:.3}"),
            is_met: (limits.0..=limits.1).contains(&ratio),
            ..Self::at_most_times(
                work,
                unit,
                pairs.ours.median(),
                pairs.theirs.median(),
                limits.1,
            )
        }
    }

    /// A quantity of which more is better: the median of the pairs' ratios has to be at least
    /// `limit`.
    pub fn at_least_part(work: impl Into<String>, unit: &str, pairs: &Pairs, limit: f64) -> Self {
        let ratio = pairs.ratios.median();
        Self {
            must: format!("≥ {limit}"),
            is_met: ratio >= limit,
            ..Self::within(work, unit, pairs, (limit, f64::INFINITY))
        }
    }

    /// A time that may exceed the comparison's by at most `limit`.
    pub fn at_most_more(
        work: impl Into<String>,
        unit: &str,
        ours: f64,
        theirs: f64,
        limit: f64,
    ) -> Self {
        let more = ours - theirs;
        Self {
            ratio: format!(
                "{} {unit}",
                if more < 0.0 {
                    shown(more)
                } else {
                    format!("+{}", shown(more))
                }
            ),
            must: format!("≤ +{limit} {unit}"),
            is_met: more <= limit,
            ..Self::at_most_times(work, unit, ours, theirs, limit)
        }
    }

    /// A quantity with an absolute limit and no comparison.
    pub fn at_most(work: impl Into<String>, unit: &str, ours: f64, limit: f64) -> Self {
        Self {
            work: work.into(),
            ours: format!("{} {unit}", shown(ours)),
            theirs: "–".into(),
            ratio: "–".into(),
            must: format!("≤ {limit} {unit}"),
            is_met: ours <= limit,
        }
    }

    /// The verdict: `met` or `MISSED`.
    pub fn verdict(&self) -> &'static str {
        if self.is_met { "met" } else { "MISSED" }
    }

    /// The line for the terminal.
    pub fn text(&self) -> String {
        let Self {
            work,
            ours,
            theirs,
            ratio,
            must,
            ..
        } = self;
        format!(
            "  {work}: {ours} against {theirs}: {ratio}, must be {must}: {}",
            self.verdict()
        )
    }
}

/// The lines as a Markdown table.
pub fn table<'a>(lines: impl Iterator<Item = &'a Line>) -> String {
    let mut text =
        "| work | ours | theirs | ratio | must reach | verdict |\n|---|---:|---:|---:|---:|---|\n"
            .to_owned();
    for line in lines {
        let Line {
            work,
            ours,
            theirs,
            ratio,
            must,
            ..
        } = line;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {work} | {ours} | {theirs} | {ratio} | {must} | {} |",
            line.verdict()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_by_the_limits() {
        assert!(Line::at_most_times("x", "ms", 3.0, 2.0, 1.5).is_met);
        assert!(!Line::at_most_times("x", "ms", 3.1, 2.0, 1.5).is_met);
        let mut pairs = Pairs::default();
        for (ours, theirs) in [(1.1, 1.0), (2.0, 2.0), (3.3, 3.0)] {
            pairs.push(ours, theirs);
        }
        assert_eq!(
            Line::within("x", "Gbit/s", &pairs, (0.97, 1.03)).ratio,
            "1.100"
        );
        assert!(!Line::within("x", "Gbit/s", &pairs, (0.97, 1.03)).is_met);
        assert!(Line::at_most_more("x", "ms", 5.0, 2.5, 3.0).is_met);
        assert_eq!(
            Line::at_most_more("x", "ms", 5.0, 2.5, 3.0).ratio,
            "+2.50 ms"
        );
        assert!(!Line::at_most("x", "MiB", 65.0, 64.0).is_met);
        assert!(
            table([Line::at_most("x", "MiB", 64.0, 64.0)].iter())
                .ends_with("| x | 64.0 MiB | – | – | ≤ 64 MiB | met |\n")
        );
    }
}
