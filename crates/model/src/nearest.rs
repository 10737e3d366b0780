//! "Did you mean": the known word nearest to one that is not known.

/// The longest word that is compared, in bytes. All that is known is shorter.
const LONGEST: usize = 128;

/// The word of `known` nearest to `word`, for error messages; `None` when nothing is alike.
///
/// Jaro-Winkler similarity of at least 0.7, which finds dropped and swapped letters but does not
/// offer an unrelated key.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > LONGEST {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(score, _)| *score >= 0.7)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_slip_and_offers_nothing_unrelated() {
        let known = ["local_ip", "local_ifname", "pair_ip"];
        assert_eq!(nearest("local_ifnam", known), Some("local_ifname"));
        assert_eq!(nearest("pairip", known), Some("pair_ip"));
        assert_eq!(nearest("zzz", known), None);
    }
}
