//! Results as the generator of the golden files writes them, for the tests that read these files.

/// The body as an answer of this version, made exactly as the generator makes it.
pub fn answer(body: &str, from: &str) -> String {
    if from.is_empty() || body == "null" {
        return body.to_owned();
    }
    let rest = &body[1..];
    let comma = if rest == "}" { "" } else { "," };
    format!(r#"{{"cniVersion":"{from}"{comma}{rest}"#)
}
