//! Medians and percentiles of measurements.

use std::time::Duration;

/// The values of many rounds: milliseconds, or a unit that the row knows.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    values: Vec<f64>,
}

impl Sample {
    /// Adds a time, in milliseconds.
    pub fn add(&mut self, time: Duration) {
        self.push(time.as_secs_f64() * 1e3);
    }

    /// Adds a value of any unit.
    pub fn push(&mut self, value: f64) {
        let at = self.values.partition_point(|known| *known < value);
        self.values.insert(at, value);
    }

    /// A percentile; `part` is from 0 to 1. NaN if there are no values.
    pub fn percentile(&self, part: f64) -> f64 {
        let last = self.values.len().saturating_sub(1);
        // The rank is at most the number of values: small and not negative.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let rank = (last as f64 * part).round() as usize;
        self.values.get(rank).copied().unwrap_or(f64::NAN)
    }

    /// The median.
    pub fn median(&self) -> f64 {
        self.percentile(0.5)
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// The sample with `amount` subtracted from each value.
    pub fn less(&self, amount: f64) -> Self {
        Self {
            values: self.values.iter().map(|value| value - amount).collect(),
        }
    }
}

/// A quantity of Ratchet and of the comparison, measured right after each other, many times.
///
/// A drift (other guests of the machine, its clock) affects both values of a pair, so the ratios of
/// the pairs are more accurate than the ratio of the medians.
#[derive(Debug, Clone, Default)]
pub struct Pairs {
    /// Ratchet's values.
    pub ours: Sample,
    /// The comparison's values.
    pub theirs: Sample,
    /// Ours divided by theirs, of each pair.
    pub ratios: Sample,
}

impl Pairs {
    /// Adds a pair.
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
