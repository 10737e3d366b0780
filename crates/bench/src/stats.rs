//! Medians and percentiles of what was measured.

use std::time::Duration;

/// Milliseconds, of many rounds.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    values: Vec<f64>,
}

impl Sample {
    /// Adds one.
    pub fn add(&mut self, time: Duration) {
        self.push(time.as_secs_f64() * 1e3);
    }

    /// Adds a number of whatever unit.
    pub fn push(&mut self, value: f64) {
        let at = self.values.partition_point(|known| *known < value);
        self.values.insert(at, value);
    }

    /// The value below which this part of all is.
    pub fn percentile(&self, part: f64) -> f64 {
        let last = self.values.len().saturating_sub(1);
        // A rank of a sample: small and not negative.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let rank = (last as f64 * part).round() as usize;
        self.values.get(rank).copied().unwrap_or(f64::NAN)
    }

    /// The one in the middle.
    pub fn median(&self) -> f64 {
        self.percentile(0.5)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Less something that is in each.
    pub fn less(&self, amount: f64) -> Self {
        Self {
            values: self.values.iter().map(|value| value - amount).collect(),
        }
    }
}

/// A quantity of ours and of the comparison's, measured right after each other, many times.
///
/// What drifts (other guests of the machine, its clock) is in both of a pair, so that pairs tell
/// more than the medians of all.
#[derive(Debug, Clone, Default)]
pub struct Pairs {
    /// Ours.
    pub ours: Sample,
    /// The comparison's.
    pub theirs: Sample,
    /// Ours as a multiple of the comparison's, pair by pair.
    pub ratios: Sample,
}

impl Pairs {
    /// Adds one.
    pub fn push(&mut self, ours: f64, theirs: f64) {
        self.ours.push(ours);
        self.theirs.push(theirs);
        self.ratios.push(ours / theirs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted() {
        let mut sample = Sample::default();
        for value in [5.0, 1.0, 3.0, 2.0, 4.0] {
            sample.push(value);
        }
        assert_eq!(
            (
                sample.median(),
                sample.percentile(0.99),
                sample.percentile(0.0)
            ),
            (3.0, 5.0, 1.0)
        );
        assert_eq!((sample.less(1.0).median(), sample.len()), (2.0, 5));
        assert!(Sample::default().median().is_nan());
    }
}
