//! Inputs that are nearly right, for tests that feed a parser: valid ones, changed a few times, as
//! JSON and as text.
//!
//! Shared by the crates' `tests/fuzz.rs`. A change is a value of its own, so that proptest can
//! leave out those that do not matter.
#![allow(dead_code, missing_docs)]

use proptest::{collection::vec, prelude::*, test_runner::Config};
use serde_json::{Value, json};

/// How many inputs a target has where PROPTEST_CASES does not say.
const CASES: u32 = 1000;

/// What the text of every JSON document is salted with.
const JSON_TOKENS: &[&str] = &[
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "\n",
    "\u{0}",
    "\\ud800",
    "\\u0000",
    "1e999",
    "-0",
    "18446744073709551616",
];

/// One change; numbers are taken modulo what there is to choose from.
#[derive(Debug, Clone)]
enum Change {
    /// The n-th value of the document becomes another.
    Replace(u16, u8),
    /// It becomes a copy of another value of the document.
    Copy(u16, u16),
    /// It goes.
    Remove(u16),
    /// The key of the n-th value becomes another.
    Rename(u16, u16),
    /// As text: a token is put in.
    Insert(u16, u8),
    /// Bytes are left out.
    Cut(u16, u8),
    /// Bytes come twice.
    Double(u16, u8),
    /// A byte becomes another.
    Byte(u16, u8),
    /// The rest is missing.
    Truncate(u16),
}

/// For targets: as many cases as asked for, and no files with failures.
pub fn config() -> Config {
    let default = Config {
        failure_persistence: None,
        ..Config::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        default
    } else {
        Config {
            cases: CASES,
            ..default
        }
    }
}

/// Mutations of JSON documents. `words` are what the text is salted with besides [`JSON_TOKENS`].
pub fn json(
    corpus: &'static [&'static str],
    words: &'static [&'static str],
) -> impl Strategy<Value = Vec<u8>> {
    let tokens = [JSON_TOKENS, words].concat();
    let of_json = prop_oneof![
        4 => (any::<u16>(), any::<u8>()).prop_map(|(at, with)| Change::Replace(at, with)),
        2 => (any::<u16>(), any::<u16>()).prop_map(|(at, from)| Change::Copy(at, from)),
        1 => any::<u16>().prop_map(Change::Remove),
        1 => (any::<u16>(), any::<u16>()).prop_map(|(at, with)| Change::Rename(at, with)),
    ];
    (0..corpus.len(), vec(of_json, 0..4), vec(of_text(), 0..3)).prop_map(
        move |(index, of_json, of_text)| {
            let mut document: Value =
                serde_json::from_str(corpus[index]).expect("the corpus is JSON");
            of_json
                .iter()
                .for_each(|change| change_value(&mut document, change, &tokens));
            // Untouched inputs keep their order and their doubled keys.
            let mut bytes = if of_json.is_empty() {
                corpus[index].as_bytes().to_vec()
            } else {
                document.to_string().into_bytes()
            };
            of_text
                .iter()
                .for_each(|change| change_text(&mut bytes, change, &tokens));
            bytes
        },
    )
}

/// Mutations of texts that are not JSON.
pub fn text(
    corpus: &'static [&'static str],
    tokens: &'static [&'static str],
) -> impl Strategy<Value = String> {
    (0..corpus.len(), vec(of_text(), 0..6)).prop_map(move |(index, changes)| {
        let mut bytes = corpus[index].as_bytes().to_vec();
        changes
            .iter()
            .for_each(|change| change_text(&mut bytes, change, tokens));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn of_text() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<u16>(), any::<u8>()).prop_map(|(at, token)| Change::Insert(at, token)),
        2 => (any::<u16>(), 1..20u8).prop_map(|(at, length)| Change::Cut(at, length)),
        1 => (any::<u16>(), 1..20u8).prop_map(|(at, length)| Change::Double(at, length)),
        2 => (any::<u16>(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        1 => any::<u16>().prop_map(Change::Truncate),
    ]
}

fn change_text(bytes: &mut Vec<u8>, change: &Change, tokens: &[&str]) {
    let place = |at: u16| usize::from(at) % (bytes.len() + 1);
    match *change {
        Change::Insert(at, token) => {
            let at = place(at);
            bytes.splice(at..at, tokens[usize::from(token) % tokens.len()].bytes());
        }
        Change::Cut(at, length) => {
            let at = place(at);
            bytes.drain(at..bytes.len().min(at + usize::from(length)));
        }
        Change::Double(at, length) => {
            let at = place(at);
            let piece = bytes[at..bytes.len().min(at + usize::from(length))].to_vec();
            bytes.splice(at..at, piece);
        }
        Change::Byte(at, byte) if !bytes.is_empty() => {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        Change::Truncate(at) => bytes.truncate(place(at)),
        _ => {}
    }
}

fn change_value(document: &mut Value, change: &Change, tokens: &[&str]) {
    let count = count(document);
    let nth = |at: u16| usize::from(at) % count;
    match *change {
        Change::Replace(at, with) => {
            if let Some(value) = find(document, &mut nth(at)) {
                *value = odd_value(usize::from(with), tokens);
            }
        }
        Change::Copy(at, from) => {
            let copy = find(document, &mut nth(from)).cloned();
            if let (Some(value), Some(copy)) = (find(document, &mut nth(at)), copy) {
                *value = copy;
            }
        }
        Change::Remove(at) => match find(document, &mut nth(at)) {
            Some(Value::Array(list)) => drop(list.pop()),
            Some(Value::Object(map)) => {
                let key = map.keys().nth(usize::from(at) % map.len().max(1)).cloned();
                key.map(|key| map.remove(&key));
            }
            Some(value) => *value = Value::Null,
            None => {}
        },
        Change::Rename(at, with) => {
            if let Some(Value::Object(map)) = find(document, &mut nth(at)) {
                let key = map
                    .keys()
                    .nth(usize::from(with) % map.len().max(1))
                    .cloned();
                if let Some((key, value)) = key.and_then(|key| map.remove_entry(&key)) {
                    let token = tokens[usize::from(with) % tokens.len()];
                    map.insert(
                        if with % 2 == 0 {
                            key.to_uppercase()
                        } else {
                            token.to_owned()
                        },
                        value,
                    );
                }
            }
        }
        _ => {}
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

/// The n-th value, counted from the root down.
fn find<'a>(value: &'a mut Value, nth: &mut usize) -> Option<&'a mut Value> {
    if *nth == 0 {
        return Some(value);
    }
    *nth -= 1;
    match value {
        Value::Array(list) => list.iter_mut().find_map(|value| find(value, nth)),
        Value::Object(map) => map.values_mut().find_map(|value| find(value, nth)),
        _ => None,
    }
}

fn odd_value(with: usize, tokens: &[&str]) -> Value {
    let odd = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(65536),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e308),
        json!(0.5),
        json!(""),
        json!("\u{0}"),
        json!("é\u{202e}"),
        json!([]),
        json!({}),
        json!([null]),
        json!([[]]),
        json!([{}]),
        json!({"": null}),
        json!("x".repeat(300)),
        (0..100).fold(json!(1), |inner, _| json!([inner])),
    ];
    match with.checked_sub(odd.len()) {
        None => odd[with].clone(),
        Some(with) => json!(tokens[with % tokens.len()]),
    }
}
