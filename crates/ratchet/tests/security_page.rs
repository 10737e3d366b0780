//! Each "cannot" of docs/security.md is shown by a test that exists.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The Rust files of the workspace, each with its path below `crates`.
fn sources(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path.to_string_lossy().into_owned(), text));
        }
    }
}

/// What the last cells of the page's tables have in code style.
fn named() -> Vec<String> {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| row.trim_end_matches(['|', ' ']).rsplit('|').next());
    cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_test_that_the_page_names_exists() {
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files);
    let cluster = fs::read_to_string(root().join("tests/kubernetes/run")).unwrap();
    let (mut functions, mut paths) = (0, 0);
    for name in named() {
        let is_function = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if let Some(file) = name.strip_suffix(".rs") {
            paths += 1;
            let there = |(path, _): &(String, String)| path.ends_with(&format!("{file}.rs"));
            assert!(files.iter().any(there), "there is no file {name}");
            continue;
        }
        let (start, end) = name
            .strip_suffix('…')
            .map_or((&*name, "("), |start| (start, ""));
        if start.contains('_') && start.chars().all(is_function) {
            functions += 1;
            let (function, test) = (format!("fn {start}{end}"), format!("test_{start}{end}"));
            let is_here = files.iter().any(|(_, text)| text.contains(&function));
            assert!(
                is_here || cluster.contains(&test),
                "there is no test {name}"
            );
        }
    }
    assert!(
        functions > 30 && paths > 10,
        "{functions} tests, {paths} files"
    );
}
