//! The rate of writes.

use std::time::{Duration, Instant};

/// As many seconds' writes may come at once: a large lab must not wait. What protects the API
/// server then is the number of requests that wait for an answer at a time.
const BURST: u32 = 60;

/// So many writes a second, and so many at once.
pub(super) struct Tokens {
    rate: f64,
    most: f64,
    left: f64,
    at: Instant,
}

impl Tokens {
    /// With so many a second.
    pub fn new(rate: u32) -> Self {
        let most = f64::from(rate.saturating_mul(BURST));
        Self {
            rate: rate.into(),
            most,
            left: most,
            at: Instant::now(),
        }
    }

    /// Takes as many as there are, `wanted` at most.
    pub fn take(&mut self, wanted: usize) -> usize {
        let passed = self.at.elapsed().as_secs_f64();
        self.at = Instant::now();
        self.left = (self.left + passed * self.rate).min(self.most);
        let mut taken = 0;
        while taken < wanted && self.left >= 1.0 {
            self.left -= 1.0;
            taken += 1;
        }
        taken
    }

    /// Gives back what was not used.
    pub fn give_back(&mut self, unused: usize) {
        for _ in 0..unused {
            self.left += 1.0;
        }
    }

    /// How long until there are some again.
    pub fn wait(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.rate).max(Duration::from_millis(100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_limited() {
        let mut tokens = Tokens::new(100);
        assert_eq!(tokens.take(5600), 5600);
        let rest = tokens.take(600);
        assert!((400..450).contains(&rest), "{rest}");
        assert!(tokens.take(100) < 50);
        tokens.give_back(70);
        assert!(tokens.take(100) >= 70);
    }
}
