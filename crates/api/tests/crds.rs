//! `deploy/crds.yaml` is what the types generate. To write it again:
//!
//!     WRITE=1 cargo test -p ratchet-api --test crds

use std::fmt::Write;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/crds.yaml");
const AGAIN: &str = "WRITE=1 cargo test -p ratchet-api --test crds";

fn generated() -> String {
    let mut text = format!("# Made from the types in crates/api. To write it again: {AGAIN}\n");
    for crd in ratchet_api::crds() {
        let yaml = serde_yaml_ng::to_string(&crd).unwrap();
        writeln!(text, "---\n{}", yaml.trim_end()).unwrap();
    }
    text
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
        "deploy/crds.yaml is not up to date: {AGAIN}"
    );
}
