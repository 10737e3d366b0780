//! Sets members of a JSON object and leaves every byte of the others alone.
//!
//! Decoding and encoding would lose big numbers, duplicate keys and the order of keys. Each of
//! these has broken plugins.

use serde_json::value::RawValue;

use crate::{error::Error, json::Object};

/// The object's text with these members set to these raw values.
///
/// If none of them is there yet, they are appended, and all else stays byte for byte, white space
/// included. If one is there, in upper or lower case, it is replaced. Then white space between
/// members is lost, and every other value stays as it is.
pub fn set_members(text: &str, members: &[(&str, &RawValue)]) -> Result<String, Error> {
    let object = Object::parse(text)
        .map_err(|error| Error::decode("not a JSON object").with_details(error.to_string()))?;
    if members.is_empty() {
        return Ok(text.to_owned());
    }
    let is_set = |key: &str| {
        members
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(key))
    };
    let replaced = object.iter().any(|(key, _)| is_set(key));
    let mut out = match text.trim_end().strip_suffix('}') {
        Some(open) if !replaced => open.trim_end().to_owned(),
        _ => {
            let mut out = String::from("{");
            for (key, value) in object.iter().filter(|(key, _)| !is_set(key)) {
                push_member(&mut out, key, value);
            }
            out
        }
    };
    for (key, value) in members {
        push_member(&mut out, key, value);
    }
    out.push('}');
    Ok(out)
}

fn push_member(out: &mut String, key: &str, value: &RawValue) {
    if !out.ends_with('{') {
        out.push(',');
    }
    out.push_str(&serde_json::Value::from(key).to_string());
    out.push(':');
    out.push_str(value.get());
}

/// A raw value of any text, for values that this crate makes.
pub(crate) fn raw_string(text: &str) -> Box<RawValue> {
    raw(&serde_json::Value::from(text).to_string())
}

/// A raw value of text that is known to be JSON. `null` if it is not.
pub(crate) fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(text: &str, members: &[(&str, &str)]) -> String {
        let raws: Vec<_> = members
            .iter()
            .map(|(key, value)| (*key, raw(value)))
            .collect();
        let members: Vec<_> = raws.iter().map(|(key, value)| (*key, &**value)).collect();
        set_members(text, &members).unwrap()
    }

    #[test]
    fn appended_members_leave_every_byte_in_place() {
        let text = "{ \"b\" : 1.50,\n\t\"a\": [ 9007199254740993 ], \"b\":2 }";
        assert_eq!(
            set(text, &[("name", "\"n\"")]),
            format!("{},\"name\":\"n\"}}", text.trim_end_matches(" }"))
        );
        assert_eq!(set("{}", &[("a", "1"), ("b", "2")]), r#"{"a":1,"b":2}"#);
        assert_eq!(set(" { } ", &[("a", "1")]), r#" {"a":1}"#);
        assert_eq!(set("null", &[("a", "1")]), r#"{"a":1}"#);
        assert_eq!(set("{\"a\" :1}", &[]), "{\"a\" :1}");
    }

    #[test]
    fn present_members_are_replaced_in_any_case() {
        let text = r#"{"Name":"x", "k\n":{"z": 1.0}, "name":"y"}"#;
        assert_eq!(
            set(text, &[("name", "\"n\"")]),
            r#"{"k\n":{"z": 1.0},"name":"n"}"#
        );
    }

    #[test]
    fn only_objects_have_members() {
        assert_eq!(set_members("[]", &[]).unwrap_err().code, 6);
    }

    proptest! {
        #[test]
        fn the_value_is_there_and_the_rest_is_kept(
            keys in proptest::collection::btree_map("[a-z\"{}, ]{1,4}", 0..1000u32, 0..6),
        ) {
            let text = serde_json::to_string_pretty(&keys).unwrap();
            let out = set(&text, &[("NAME", "7")]);
            let object = Object::parse(&out).unwrap();
            prop_assert_eq!(object.get("name").unwrap().get(), "7");
            for (key, value) in keys.iter().filter(|(key, _)| *key != "name") {
                prop_assert_eq!(object.decode::<u32>(key).unwrap(), Some(*value));
            }
        }
    }
}
