//! Makes an image without a registry: a docker archive with busybox.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::support::sh;

/// The image's name. containerd would pull `:latest`.
pub const IMAGE: &str = "ratchet.test/busybox:1";

/// Debian's busybox-static.
const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 5] = ["sh", "sleep", "ping", "ip", "cat"];

/// Makes the archive in a directory.
pub fn archive(dir: &Path) -> PathBuf {
    assert!(
        Path::new(BUSYBOX).exists(),
        "{BUSYBOX} is missing: run `make setup-test` (package busybox-static)"
    );
    let root = dir.join("root");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    let shown = dir.display();
    sh(&format!("tar -C {shown}/root -cf {shown}/layer.tar bin"));
    let digest = sh(&format!("sha256sum {shown}/layer.tar"));
    let digest = digest.split_whitespace().next().unwrap();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Cmd": ["/bin/sleep", "100000"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    std::fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
    sh(&format!(
        "tar -C {shown} -cf {shown}/image.tar manifest.json config.json layer.tar"
    ));
    dir.join("image.tar")
}
