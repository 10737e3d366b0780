//! `deploy/base/crds.yaml` is what the types generate. To write it again:
//!
//!     WRITE=1 cargo test -p ratchet-api --test crds
#![allow(clippy::unwrap_used)]

use std::fmt::Write;

use serde_json::{Value, json};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/base/crds.yaml");
const AGAIN: &str = "WRITE=1 cargo test -p ratchet-api --test crds";

fn generated() -> String {
    let mut text = format!("# Made from the types in crates/api. To write it again: {AGAIN}\n");
    for crd in ratchet_api::crds() {
        let mut crd = serde_json::to_value(&crd).unwrap();
        whole_numbers(&mut crd);
        let yaml = serde_yaml_ng::to_string(&crd).unwrap();
        writeln!(text, "---\n{}", yaml.trim_end()).unwrap();
    }
    text
}

/// The type has floating-point numbers for limits. The file has them as people write them.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|_| number.is_f64()) {
                assert_eq!(float.fract(), 0.0);
                *value = json!(float as i64);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(whole_numbers),
        Value::Object(values) => values.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

#[test]
fn the_file_of_crds_is_what_the_types_generate() {
    let generated = generated();
    if std::env::var_os("WRITE").is_some() {
        std::fs::write(PATH, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(PATH).unwrap_or_default();
    assert!(
        committed == generated,
        "deploy/base/crds.yaml is not up to date: {AGAIN}"
    );
}
