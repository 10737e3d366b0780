//! Bounds for the texts that people read. What they quote comes from users and has any length.

/// The text, with its middle left out if it has more than `most` bytes. The start says what a
/// message is about and the end what to do, so both stay.
pub fn bounded(text: impl Into<String>, most: usize) -> String {
    const GAP: &str = " … ";
    let text = text.into();
    if text.len() <= most {
        return text;
    }
    let kept = most.saturating_sub(GAP.len());
    let head = text.floor_char_boundary(kept / 2);
    let tail = text.ceil_char_boundary(text.len() - (kept - kept / 2));
    format!("{}{GAP}{}", &text[..head], &text[tail..])
}

/// The first four of some texts; of the others, how many there are.
pub fn few(texts: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    const SHOWN: usize = 4;
    let others = texts.len().saturating_sub(SHOWN);
    let mut few: Vec<String> = texts.take(SHOWN).collect();
    few.extend((others > 0).then(|| format!("{others} others")));
    few
}

#[cfg(test)]
mod tests;
