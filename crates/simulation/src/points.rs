//! The points at which an agent can crash: before and after every kernel step, disk operation and
//! store call.
//!
//! A crash unwinds the agent's stack. From then on nothing that this incarnation of the agent tries
//! has any effect: every point that it passes unwinds again.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook},
    sync::{
        Arc, Once,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs something and returns the message of its panic, without printing that.
///
/// # Errors
/// The message.
pub fn without_panic<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_QUIET.get() {
                before(panic);
            }
        }));
    });
    let was_quiet = IS_QUIET.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    IS_QUIET.set(was_quiet);
    result.map_err(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        text.or_else(|| {
            payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
        })
        .unwrap_or_else(|| "a panic without a message".to_owned())
    })
}

/// What the stack of a crashed agent is unwound with.
struct Crash;

/// A number of points that is never reached.
const NEVER: u32 = u32::MAX;

/// The points of one incarnation of an agent.
#[derive(Debug, Clone)]
pub struct Points {
    /// How many points it still passes.
    left: Arc<AtomicU32>,
    passed: Arc<AtomicU64>,
}

impl Default for Points {
    fn default() -> Self {
        Self {
            left: Arc::new(AtomicU32::new(NEVER)),
            passed: Arc::default(),
        }
    }
}

impl Points {
    /// Has the agent crash after this many points.
    pub fn crash_after(&self, points: u32) {
        self.left.store(points, Ordering::Relaxed);
    }

    /// Has it not crash after all. One that has crashed stays so.
    pub fn disarm(&self) {
        if !self.has_crashed() {
            self.left.store(NEVER, Ordering::Relaxed);
        }
    }

    /// Whether it has crashed.
    pub fn has_crashed(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// How many points it has passed.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Passes a point. Does not return when the agent crashes here. No lock may be held.
    pub fn pass(&self) {
        match self.left.load(Ordering::Relaxed) {
            NEVER => {}
            0 => resume_unwind(Box::new(Crash)),
            left => {
                self.left.store(left - 1, Ordering::Relaxed);
                if left == 1 {
                    resume_unwind(Box::new(Crash));
                }
            }
        }
        self.passed.fetch_add(1, Ordering::Relaxed);
    }

    /// Runs a part of the agent; `None` when it crashed. Another panic goes on, unless the engine
    /// heard of a crash in a task.
    pub fn catch<T>(&self, part: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(part)) {
            Ok(result) => (!self.has_crashed()).then_some(result),
            Err(payload) if payload.is::<Crash>() || self.has_crashed() => None,
            Err(payload) => resume_unwind(payload),
        }
    }
}
