//! The image that `scripts/image` makes: one file, and the same bytes every time. With it comes the
//! bill of materials that `scripts/sbom` makes.
#![allow(clippy::unwrap_used, clippy::too_many_lines, missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use sha2::{Digest, Sha256};

const BILL: &str = "application/vnd.cyclonedx+json";
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

/// The bill of materials that refers to a manifest.
fn bill_of_manifest(layout: &Path, referrers: &[Value], digest: &Value) -> Vec<u8> {
    let mut of_it = referrers.iter().filter_map(|descriptor| {
        assert_eq!(descriptor["artifactType"], BILL);
        let referrer = json(layout, descriptor);
        assert_eq!(referrer["artifactType"], BILL);
        assert_eq!(read(layout, &referrer["config"]), b"{}");
        (referrer["subject"]["digest"] == *digest).then_some(referrer)
    });
    let referrer = of_it.next().unwrap();
    assert!(of_it.next().is_none());
    assert_eq!(referrer["layers"][0]["mediaType"], BILL);
    read(layout, &referrer["layers"][0])
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
    let bill_of = |architecture: &str| format!("{{\"of\": \"{architecture}\"}}");
    let with_bill = |architecture: &'static str| {
        let file = dir.path().join(format!("{architecture}.cdx.json"));
        std::fs::write(&file, bill_of(architecture)).unwrap();
        format!(
            "{},{}",
            argument((architecture, architecture)),
            file.display()
        )
    };
    let both = ["amd64", "arm64"].map(with_bill);
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
    let referrers = &top["manifests"].as_array().unwrap()[1..];
    assert_eq!(referrers.len(), 2);
    for manifest in index["manifests"].as_array().unwrap() {
        let architecture = manifest["platform"]["architecture"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(manifest["platform"]["os"], "linux");
        let bill = bill_of_manifest(&layout, referrers, &manifest["digest"]);
        assert_eq!(bill, bill_of(&architecture).into_bytes());
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

/// The bill of materials has the crates of the program at the versions of Cargo.lock, each needed
/// by another, with license and checksum; and SQLite.
#[test]
fn the_bill_of_materials_is_that_of_cargo_lock() {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let make = |name: &str, target: &str| {
        let file = dir.path().join(name);
        let mut command = Command::new(root.join("scripts/sbom"));
        let output = command.arg(&file).arg(target).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        std::fs::read(file).unwrap()
    };
    let first = make("first", "x86_64-unknown-linux-gnu");
    assert!(first == make("second", "x86_64-unknown-linux-gnu"));
    let bill: Value = serde_json::from_slice(&first).unwrap();
    let arm64: Value = serde_json::from_slice(&make("arm64", "aarch64-unknown-linux-gnu")).unwrap();
    assert_eq!(bill["bomFormat"], "CycloneDX");
    assert_ne!(bill["serialNumber"], arm64["serialNumber"]);

    let lock = std::fs::read_to_string(root.join("Cargo.lock")).unwrap();
    let needed: BTreeSet<&str> = bill["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|crate_| crate_["dependsOn"].as_array().unwrap())
        .map(|reference| reference.as_str().unwrap())
        .collect();
    let components = bill["components"].as_array().unwrap();
    assert_eq!(needed.len(), components.len());
    for component in components {
        assert!(
            needed.contains(component["bom-ref"].as_str().unwrap()),
            "{component}"
        );
        assert!(
            component["licenses"][0]["expression"].is_string(),
            "{component}"
        );
        let [name, version] = ["name", "version"].map(|key| component[key].as_str().unwrap());
        if name == "sqlite" {
            continue;
        }
        let locked = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        assert!(lock.contains(&locked), "{component}");
        let checksum = component["hashes"][0]["content"].as_str();
        let ours = name.starts_with("ratchet-");
        assert!(ours || lock.contains(&format!("checksum = \"{}\"", checksum.unwrap())));
    }
    let has = |name: &str| components.iter().any(|c| c["name"] == name);
    for name in ["sqlite", "tokio", "kube-client", "ratchet-plugin"] {
        assert!(has(name), "{name}");
    }
    // They are only used by tests, or only run during the build.
    for name in ["proptest", "ratchet-api-server", "cc", "syn"] {
        assert!(!has(name), "{name}");
    }
}
