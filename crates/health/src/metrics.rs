//! Metrics as text, in Prometheus' format (version 0.0.4).

use std::fmt::{Display, Write as _};

/// Our own version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a metric's value does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the process starts again.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// Metrics. Names and labels are known when Ratchet is built, so there can only be a few.
#[derive(Debug, Clone)]
pub struct Metrics(String);

impl Default for Metrics {
    /// With what is running.
    fn default() -> Self {
        let mut metrics = Self(String::new());
        let about = "What is running; always 1";
        let versions = ("version", [(VERSION, 1)]);
        metrics.each(Kind::Gauge, "ratchet_build_info", about, versions);
        metrics
    }
}

impl Metrics {
    /// Adds a metric with one value.
    pub fn one(
        &mut self,
        kind: Kind,
        name: &'static str,
        about: &'static str,
        value: impl Display,
    ) {
        self.head(kind, name, about);
        self.line(format_args!("{name} {value}"));
    }

    /// Adds a metric with a value for each of a label's values.
    pub fn each<V: Display>(
        &mut self,
        kind: Kind,
        name: &'static str,
        about: &'static str,
        (label, values): (&'static str, impl IntoIterator<Item = (&'static str, V)>),
    ) {
        self.head(kind, name, about);
        for (of, value) in values {
            self.line(format_args!("{name}{{{label}=\"{of}\"}} {value}"));
        }
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }

    fn head(&mut self, kind: Kind, name: &str, about: &str) {
        self.line(format_args!("# HELP {name} {about}"));
        self.line(format_args!("# TYPE {name} {}", kind.word()));
    }

    fn line(&mut self, line: impl Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_lines_with_a_head() {
        let mut metrics = Metrics::default();
        metrics.one(Kind::Counter, "ratchet_writes_total", "Writes", 7);
        let states = ("state", [("up", 2), ("error", 0)]);
        metrics.each(Kind::Gauge, "ratchet_links", "Links", states);
        let text = metrics.into_text();
        let build = format!("ratchet_build_info{{version=\"{VERSION}\"}} 1\n");
        assert!(text.contains(&build), "{text}");
        let rest = "# HELP ratchet_writes_total Writes\n# TYPE ratchet_writes_total counter\n\
                    ratchet_writes_total 7\n# HELP ratchet_links Links\n# TYPE ratchet_links \
                    gauge\nratchet_links{state=\"up\"} 2\nratchet_links{state=\"error\"} 0\n";
        assert!(text.ends_with(rest), "{text}");
    }
}
