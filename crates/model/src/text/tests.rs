use super::*;

#[test]
fn four_are_named_and_the_others_counted() {
    let few = |count: usize| {
        few((1..=count)
            .map(|n| n.to_string())
            .collect::<Vec<_>>()
            .into_iter())
    };
    assert_eq!(few(0), [""; 0]);
    assert_eq!(few(4), ["1", "2", "3", "4"]);
    assert_eq!(few(6), ["1", "2", "3", "4", "2 others"]);
}

#[test]
fn a_short_text_stays() {
    assert_eq!(bounded("four", 4), "four");
    assert_eq!(bounded("été", 5), "été");
    assert_eq!(bounded("", 0), "");
}

#[test]
fn a_long_one_keeps_its_start_and_its_end() {
    for (filling, most) in [("x", 40), ("é", 40), ("é", 41), ("𝄞", 43)] {
        let text = format!("pod a/b: {}: write less", filling.repeat(100_000));
        let short = bounded(text, most);
        assert!((most - 6..=most).contains(&short.len()), "{short}");
        assert!(
            short.starts_with("pod a/b: ") && short.contains(" … "),
            "{short}"
        );
        assert!(short.ends_with(": write less"), "{short}");
    }
    assert_eq!(bounded("abcdefgh", 7), "a … h");
    assert_eq!(bounded("abcdef", 2), " … ");
}
