use serde_json::json;

use super::*;

const BUDGET: Budget = Budget {
    bytes: 1000,
    values: 100,
};

fn read(text: &str) -> Result<Value, String> {
    match list(text, BUDGET, |_, value| Ok::<_, ()>(value)) {
        Ok(values) => Ok(values.into()),
        Err(ReadError::Text(reason)) => Err(reason.to_string()),
        Err(ReadError::Element(())) => unreachable!(),
    }
}

#[test]
fn scalars_are_those_of_yaml_1_2() {
    assert_eq!(
        read("[on, yes, n, 0_1, 1_0, 010, 1:30, 02:00:00:00:00:01, ::/0, 'fd00::1', ~, '~']"),
        Ok(json!([
            "on",
            "yes",
            "n",
            "0_1",
            "1_0",
            "010",
            "1:30",
            "02:00:00:00:00:01",
            "::/0",
            "fd00::1",
            null,
            "~"
        ]))
    );
    assert_eq!(
        read("[true, False, 10, -1, 0x1f, 0o17, 1.5, \"1\", \"\\u0041\"]"),
        Ok(json!([true, false, 10, -1, 31, 15, 1.5, "1", "A"]))
    );
}

#[test]
fn the_last_of_two_equal_keys_counts_and_no_key_merges() {
    assert_eq!(read("[{a: 1, a: 2}]"), Ok(json!([{"a": 2}])));
    assert_eq!(
        read(r#"[{"a":1,"b":{"a":1},"a":3}]"#),
        Ok(json!([{"a": 3, "b": {"a": 1}}]))
    );
    assert_eq!(read("[{<<: {a: 1}}]"), Ok(json!([{"<<": {"a": 1}}])));
}

#[test]
fn an_empty_document_is_an_empty_list() {
    for text in ["", " \n", "# nothing", "---\n", "~", "null", "[]"] {
        assert_eq!(read(text), Ok(json!([])), "{text:?}");
    }
    let comments = format!("{}- a\n{}- b\n", "# c\n".repeat(50), "# c\n".repeat(50));
    assert_eq!(read(&comments), Ok(json!(["a", "b"])));
}

#[test]
fn each_limit_is_named_with_what_to_do() {
    let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let (deep, deeper) = (nested(9), nested(490));
    let long = format!("[{}]", "x".repeat(999));
    let many = format!("[{}]", "1,".repeat(100));
    for (text, expected) in [
        (
            deep.as_str(),
            "is nested deeper than 8 levels (line 1, column 9): write a list with one flat entry a \
             link",
        ),
        (&deeper, "is nested deeper than 8 levels"),
        (
            &long,
            "has 1001 bytes, the limit is 1000: declare fewer links on this pod",
        ),
        (
            &many,
            "has more than 100 values (line 1, column 200): declare fewer links on this pod",
        ),
        (
            "- &a x\n- b\n",
            "has an anchor or alias of YAML (line 1, column 6), the limit is 0: write each value \
             out",
        ),
        (
            "[*a]",
            "is neither YAML nor JSON: alias references unknown anchor",
        ),
        (
            "- a\n---\n- b\n",
            "has a second YAML document (line 2, column 1), the limit is 1: write one list",
        ),
        (
            "{a: 1}",
            "is not a list: expected a list with one entry a link, such as [{interface: eth1, \
             peer: r2/eth1}]",
        ),
        (
            "text",
            "is not a list: expected a list with one entry a link",
        ),
        ("[", "is neither YAML nor JSON: "),
    ] {
        let error = read(text).unwrap_err();
        assert!(
            error.starts_with(expected),
            "{error}\n  expected: {expected}"
        );
    }
    assert!(read(&nested(8)).is_ok());
    assert!(read(&format!("[{}]", "1,".repeat(99))).is_ok());
}

#[test]
fn the_first_element_that_is_refused_ends_the_work() {
    let mut seen = 0;
    let result = list("[1, 2, 3, 4]", BUDGET, |index, _| {
        seen += 1;
        if index == 1 { Err("two") } else { Ok(()) }
    });
    assert!(matches!(result, Err(ReadError::Element("two"))));
    assert_eq!(seen, 2);
}
