//! The image that `scripts/image` makes: one file, and the same bytes every time.
#![allow(clippy::unwrap_used, clippy::too_many_lines, missing_docs)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use sha2::{Digest, Sha256};

const NAME: &str = "ratchet.dev/ratchet:0.1.0";

fn image(archive: &Path, binaries: &[String]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/image");
    let mut command = Command::new(script);
    command
        .arg(archive)
        .arg(NAME)
        .args(binaries)
        .output()
        .unwrap()
}

/// Unpacks an archive into a new directory.
fn unpack(archive: &Path, into: PathBuf) -> PathBuf {
    std::fs::create_dir(&into).unwrap();
    let mut tar = Command::new("tar");
    let status = tar.arg("-xf").arg(archive).arg("-C").arg(&into).status();
    assert!(status.unwrap().success());
    into
}

fn read(layout: &Path, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap();
    let hex = digest.strip_prefix("sha256:").unwrap();
    let blob = std::fs::read(layout.join("blobs/sha256").join(hex)).unwrap();
    let actual: String = Sha256::digest(&blob)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(actual, hex);
    assert_eq!(descriptor["size"], blob.len());
    blob
}

fn json(layout: &Path, descriptor: &Value) -> Value {
    serde_json::from_slice(&read(layout, descriptor)).unwrap()
}

#[test]
fn an_image_has_the_program_of_each_architecture_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    // Enough of an ELF file: the number of the machine is at 18.
    let mut binaries = BTreeMap::new();
    for (architecture, machine) in [("amd64", 62), ("arm64", 183)] {
        let mut program = b"\x7fELF".to_vec();
        program.resize(64, 0);
        program[18] = machine;
        std::fs::write(dir.path().join(architecture), &program).unwrap();
        binaries.insert(architecture, program);
    }
    let argument = |(architecture, file): (&str, &str)| {
        format!("{architecture}={}", dir.path().join(file).display())
    };
    let both = [("amd64", "amd64"), ("arm64", "arm64")].map(argument);
    let archives = ["one.tar", "two.tar"].map(|name| dir.path().join(name));
    for archive in &archives {
        let output = image(archive, &both);
        assert!(output.status.success(), "{output:?}");
    }
    let [one, two] = archives
        .each_ref()
        .map(|archive| std::fs::read(archive).unwrap());
    assert!(one == two, "two images of the same programs differ");

    let layout = unpack(&archives[0], dir.path().join("layout"));
    let top: Value =
        serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(
        top["manifests"][0]["annotations"]["io.containerd.image.name"],
        NAME
    );
    let index = json(&layout, &top["manifests"][0]);
    for manifest in index["manifests"].as_array().unwrap() {
        let architecture = manifest["platform"]["architecture"]
            .as_str()
            .unwrap()
            .to_owned();
        let manifest = json(&layout, manifest);
        let config = json(&layout, &manifest["config"]);
        assert_eq!(config["architecture"], *architecture);
        assert_eq!(config["config"]["Entrypoint"][0], "/ratchet");
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
        let layer = dir.path().join(format!("{architecture}.layer"));
        std::fs::write(&layer, read(&layout, &manifest["layers"][0])).unwrap();
        let root = unpack(&layer, dir.path().join(format!("{architecture}.root")));
        let names: Vec<_> = std::fs::read_dir(&root)
            .unwrap()
            .map(|f| f.unwrap().file_name())
            .collect();
        assert_eq!(names, ["ratchet"]);
        let program = std::fs::read(root.join("ratchet")).unwrap();
        assert_eq!(Some(program), binaries.remove(architecture.as_str()));
    }
    assert!(binaries.is_empty());

    let wrong = image(&archives[0], &[argument(("arm64", "amd64"))]);
    let error = String::from_utf8_lossy(&wrong.stderr);
    assert!(error.contains("is not a program for arm64"), "{error}");
}
