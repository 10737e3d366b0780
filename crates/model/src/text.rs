//! Bounds for the texts that people read. What they quote comes from users and has any length.

/// The text, with its middle left out if it has more than `most` characters. The start says what a
/// message is about and the end what to do, so both stay.
pub fn bounded(text: impl Into<String>, most: usize) -> String {
    const GAP: &str = " … ";
    let text = text.into();
    // Bytes are at least as many as characters.
    if text.len() <= most || text.chars().count() <= most {
        return text;
    }
    let kept = most.saturating_sub(GAP.chars().count());
    let (head, tail) = (kept / 2, kept - kept / 2);
    let end = |(at, _)| at;
    let head = text.char_indices().nth(head).map_or(text.len(), end);
    let tail = text
        .char_indices()
        .rev()
        .take(tail)
        .last()
        .map_or(text.len(), end);
    format!("{}{GAP}{}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests;
