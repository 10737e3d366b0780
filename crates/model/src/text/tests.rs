use super::*;

#[test]
fn a_short_text_stays() {
    assert_eq!(bounded("four", 4), "four");
    assert_eq!(bounded("étés", 4), "étés");
    assert_eq!(bounded("", 0), "");
}

#[test]
fn a_long_one_keeps_its_start_and_its_end() {
    let text = format!("pod a/b: {}: write less", "é".repeat(100_000));
    let short = bounded(text, 40);
    assert_eq!(short.chars().count(), 40);
    assert!(short.starts_with("pod a/b: é"), "{short}");
    assert!(
        short.contains("é … é") && short.ends_with("é: write less"),
        "{short}"
    );
    assert_eq!(bounded("abcdef", 2), " … ");
}
