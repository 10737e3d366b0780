//! Compares the conversion of results with what Go's own CNI library makes of them; see
//! golden/generator/README.md.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of a test: a panic is the report"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use ratchet_cni::{CniResult, Version};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

mod answer;
use answer::answer;

#[derive(Deserialize)]
struct File {
    bodies: BTreeMap<String, Box<RawValue>>,
    outputs: Vec<Value>,
    table: BTreeMap<String, BTreeMap<String, [i64; 7]>>,
}

fn convert(text: &str, to: Version) -> Result<Value, ratchet_cni::Error> {
    let converted = CniResult::parse(text, to)?.convert(to)?;
    let mut value: Value = serde_json::from_slice(&converted.to_json()).unwrap();
    let version = value.as_object_mut().unwrap().remove("cniVersion");
    assert_eq!(version.unwrap(), to.as_str());
    Ok(value)
}

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let paths = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect()
}

#[test]
fn conversions_equal_those_of_go() {
    let mut rows = 0;
    let mut wrong = Vec::new();
    for path in files() {
        let file: File = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        for (body, answers) in &file.table {
            for (from, outputs) in answers {
                for (to, index) in Version::ALL.into_iter().zip(outputs) {
                    rows += 1;
                    let ours = convert(&answer(file.bodies[body].get(), from), to)
                        .map_err(|error| error.to_string());
                    let theirs = usize::try_from(*index)
                        .ok()
                        .map(|index| &file.outputs[index]);
                    if ours.as_ref().ok() != theirs {
                        wrong.push(format!(
                            "{name}: {body} {from:?} -> {to}\n  Go:   {theirs:?}\n  ours: {ours:?}"
                        ));
                    }
                }
            }
        }
    }
    assert!(rows > 1500, "only {rows} rows");
    assert!(
        wrong.is_empty(),
        "{} of {rows} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
