//! Reads a list in YAML, or in JSON, which is nearly a subset of it, within a budget: what users
//! wrote may be anything, and costs no more memory and time than the budget allows.
//!
//! Elements are handed over one after another, so the first one that is wrong ends the work. This
//! module does not know what an element means.

use std::fmt;

use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, Error, MergeKeyPolicy, Options, budget::BudgetBreach};

use crate::reason::Reason;

/// How deep lists and objects may be nested. A route of a link is at 4.
const DEPTH: usize = 8;

/// How large a text may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// In bytes.
    pub bytes: usize,
    /// In values: lists, objects, keys and scalars.
    pub values: usize,
}

/// Why a list was not read.
#[derive(Debug)]
pub(super) enum ReadError<E> {
    /// The text is no list, or not within the budget: what is wrong and what to do.
    Text(Reason),
    /// An element was refused.
    Element(E),
}

/// Reads a list and gives each element with its index to `read`. An empty document is an empty
/// list.
pub(super) fn list<T, E>(
    text: &str,
    budget: Budget,
    read: impl FnMut(usize, Value) -> Result<T, E>,
) -> Result<Vec<T>, ReadError<E>> {
    if text.len() > budget.bytes {
        let (bytes, limit) = (text.len(), budget.bytes);
        return Err(ReadError::Text(Reason::LinksTooLarge {
            size: format!("{bytes} bytes, the limit is {limit}"),
        }));
    }
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut refused = None;
    let visitor = Elements {
        read,
        refused: &mut refused,
    };
    let list =
        serde_saphyr::with_deserializer_from_str_with_options(text, options(budget), |document| {
            document.deserialize_any(visitor)
        });
    match (list, refused) {
        (_, Some(error)) => Err(ReadError::Element(error)),
        (Ok(list), None) => Ok(list),
        (Err(error), None) => Err(ReadError::Text(explain(&error, budget))),
    }
}

/// Scalars as in the core schema of YAML 1.2: `on` and `0_1` are texts.
fn options(budget: Budget) -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH,
            // More than the 1,024 characters that the scanner looks ahead of the events that are
            // counted, so that too deep a text ends in one kind of error.
            flow_nesting_limit: 2048,
            max_nodes: budget.values,
            // A value has one event, or two: a start and an end.
            max_events: budget.values.saturating_mul(2).saturating_add(16),
            max_total_scalar_bytes: budget.bytes,
            max_documents: 1,
            max_anchors: 0,
            max_aliases: 0,
            max_recorded_anchor_events: 0,
            max_recorded_anchor_bytes: 0,
        },
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        emit_comments: false,
        with_snippet: false,
    }
}

/// What is wrong with the text and what to do about it.
fn explain(error: &Error, budget: Budget) -> Reason {
    let line = match error.location() {
        Some(location) => format!(" (line {}, column {})", location.line(), location.column()),
        None => String::new(),
    };
    let Error::Budget { breach, .. } = error else {
        return match error {
            Error::SerdeInvalidType { .. } => Reason::LinksNoList {},
            error => Reason::LinksUnreadable {
                error: error.to_string(),
            },
        };
    };
    match breach {
        BudgetBreach::Depth { .. } => Reason::LinksNested { depth: DEPTH, line },
        BudgetBreach::Aliases { .. }
        | BudgetBreach::Anchors { .. }
        | BudgetBreach::AliasAnchorRatio { .. }
        | BudgetBreach::RecordedAnchorEvents { .. }
        | BudgetBreach::RecordedAnchorBytes { .. } => Reason::LinksWithAnchor { line },
        BudgetBreach::Documents { .. } => Reason::LinksTwice { line },
        BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } => Reason::LinksTooLarge {
            size: format!("more than {} values{line}", budget.values),
        },
        other => Reason::LinksTooLarge {
            size: format!("more than allowed{line}, {other:?}"),
        },
    }
}

/// Takes a list apart.
struct Elements<'a, F, E> {
    read: F,
    refused: &'a mut Option<E>,
}

impl<'de, T, E, F: FnMut(usize, Value) -> Result<T, E>> Visitor<'de> for Elements<'_, F, E> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<A>(self) -> Result<Vec<T>, A> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut elements = Vec::new();
        while let Some(value) = list.next_element()? {
            match (self.read)(elements.len(), value) {
                Ok(element) => elements.push(element),
                Err(error) => {
                    *self.refused = Some(error);
                    return Err(A::Error::custom("an element is refused"));
                }
            }
        }
        Ok(elements)
    }
}

#[cfg(test)]
mod tests;
