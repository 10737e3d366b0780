//! One look of an installer, as a program of its own, for tests that have to kill it: install
//! BIN_DIR CNI_DIR [follow]
#![allow(clippy::unwrap_used)]

use ratchet_install::{Directories, installer};
use ratchet_protocol::{LocalSettings, Settings};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let directories = Directories {
        cni_bin_dir: arguments[0].clone().into(),
        cni_dir: arguments[1].clone().into(),
    };
    let settings = Settings {
        store: Some("kubernetes".to_owned()),
        ..Settings::default()
    };
    let mut installer = installer(&directories, &settings, &LocalSettings::default());
    if arguments.len() > 2 {
        installer.start().unwrap();
        loop {
            std::thread::park();
        }
    }
    println!("{:?}", installer.look().unwrap());
}
