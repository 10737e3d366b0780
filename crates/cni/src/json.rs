//! JSON objects as leniently as Go's `encoding/json` reads them, and without losing a byte of any
//! value.
//!
//! serde's derive refuses duplicate keys, needs the exact case and loses big numbers; Go does not.
//! This module only reads objects and does not interpret values.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// A JSON object: its members in order, duplicates included. Each value is its original text.
#[derive(Debug, Clone, Default)]
pub struct Object {
    members: Vec<(String, Box<RawValue>)>,
}

impl Object {
    /// Reads one object, with nothing but white space around it. `null` gives the empty object, as
    /// in Go.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// As [`Object::parse`]; bytes that are not UTF-8 become U+FFFD, as in Go.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        Self::parse(&text_of(bytes))
    }

    /// The raw text of a member's value. The last one wins, and case does not matter.
    pub fn get(&self, key: &str) -> Option<&RawValue> {
        self.members
            .iter()
            .rev()
            .find(|(name, _)| name.eq_ignore_ascii_case(key))
            .map(|(_, value)| &**value)
    }

    /// As [`Object::get`], through nested objects. `None` also if a value on the way is not an
    /// object.
    pub fn get_nested(&self, path: &[&str]) -> Option<Box<RawValue>> {
        let (first, rest) = path.split_first()?;
        let value = self.get(first)?;
        if rest.is_empty() {
            Some(value.to_owned())
        } else {
            Self::parse(value.get()).ok()?.get_nested(rest)
        }
    }

    /// A member decoded into a type of the caller; `None` if it is absent or `null`.
    pub fn decode<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, serde_json::Error> {
        match self.get(key) {
            None => Ok(None),
            Some(value) if is_null(value) => Ok(None),
            Some(value) => serde_json::from_str(value.get()).map(Some),
        }
    }

    /// All members in order, duplicates included.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &RawValue)> {
        self.members
            .iter()
            .map(|(name, value)| (name.as_str(), &**value))
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

/// Whether a value is `null`.
pub(crate) fn is_null(value: &RawValue) -> bool {
    value.get().trim() == "null"
}

/// The bytes as text. As in Go, bytes that are not UTF-8 are replaced and not refused.
pub(crate) fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_unit<E>(self) -> Result<Object, E> {
                Ok(Object::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object { members })
            }
        }

        deserializer.deserialize_any(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_duplicate_wins_and_case_does_not_matter() {
        let object = Object::parse(r#"{"name":"a","NAME":"b","Name":"c","other":1}"#).unwrap();
        assert_eq!(
            object.decode::<String>("name").unwrap().as_deref(),
            Some("c")
        );
        assert_eq!(object.iter().count(), 4);
    }

    #[test]
    fn values_keep_their_text() {
        let text = r#"{"big":123456789012345678901234567890.10,"o":{"z":1 , "a":[ ]}}"#;
        let object = Object::parse(text).unwrap();
        assert_eq!(
            object.get("big").unwrap().get(),
            "123456789012345678901234567890.10"
        );
        assert_eq!(object.get("o").unwrap().get(), r#"{"z":1 , "a":[ ]}"#);
        assert_eq!(object.get_nested(&["O", "a"]).unwrap().get(), "[ ]");
        assert!(object.get_nested(&["big", "a"]).is_none());
        assert!(object.get_nested(&[]).is_none());
    }

    #[test]
    fn null_is_an_empty_object_and_an_absent_member() {
        assert!(Object::parse(" null ").unwrap().is_empty());
        let object = Object::parse(r#"{"a":null}"#).unwrap();
        assert_eq!(object.decode::<String>("a").unwrap(), None);
        assert!(object.get("a").is_some());
    }

    #[test]
    fn all_else_is_refused() {
        for text in ["", "[]", "1", "\"a\"", "{", "{} {}", "{}x", "\u{feff}{}"] {
            assert!(Object::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bad_utf8_is_replaced_as_in_go() {
        let object = Object::from_slice(b"{\"a\":\"\xff\"}").unwrap();
        assert_eq!(
            object.decode::<String>("a").unwrap().as_deref(),
            Some("\u{fffd}")
        );
    }
}
