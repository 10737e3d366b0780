//! A case: what is done on both kernels.

use std::time::{Duration, Instant};

use ratchet_model::device::Step;

use crate::compare::Pair;

/// How long a case that failed is shrunk.
const SHRINK: Duration = Duration::from_secs(60);

/// What is done in one go.
#[derive(Debug, Clone)]
pub enum Batch {
    /// A device that is not Ratchet's comes into a sandbox, or into the node's namespace.
    Stranger(Option<usize>, String),
    /// Steps are executed.
    Steps(Vec<Step>),
}

/// Runs a case.
///
/// # Errors
/// The first difference between the two kernels.
pub fn run(batches: &[Batch]) -> Result<(), String> {
    let mut pair = Pair::new();
    let mut batches = batches.iter().enumerate();
    batches.try_for_each(|(number, batch)| {
        pair.execute(batch)
            .map_err(|difference| format!("batch {number}: {difference}"))
    })
}

/// Leaves out what the difference does not need.
pub fn shrink(mut batches: Vec<Batch>) -> Vec<Batch> {
    let deadline = Instant::now() + SHRINK;
    let fails = |batches: &[Batch]| Instant::now() < deadline && run(batches).is_err();
    for number in (0..batches.len()).rev() {
        let mut less = batches.clone();
        less.remove(number);
        if fails(&less) {
            batches = less;
        }
    }
    for number in 0..batches.len() {
        let Batch::Steps(steps) = &batches[number] else {
            continue;
        };
        for step in (0..steps.len()).rev() {
            let mut less = batches.clone();
            if let Batch::Steps(steps) = &mut less[number] {
                steps.remove(step);
            }
            if fails(&less) {
                batches = less;
            }
        }
    }
    batches
}
