//! README.md and docs/protocol.md say what the table of settings says.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{fs, path::Path};

use ratchet_protocol::{
    DefaultValue, LocalSettings, PLUGIN_ONLY, Setting, Settings, TablePart, all_settings, setting,
};

/// The text between `<!-- settings -->` and `<!-- /settings -->` in a document of this repository.
fn region(document: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(root.join(document)).unwrap();
    let (_, rest) = text.split_once("<!-- settings -->").unwrap();
    let (region, _) = rest.split_once("<!-- /settings -->").unwrap();
    region.trim().to_owned()
}

fn row(setting: &Setting) -> String {
    let default = match setting.default {
        DefaultValue::None => "–".to_owned(),
        DefaultValue::Value(value) => format!("`{value}`"),
        DefaultValue::Described(words) => words.to_owned(),
    };
    let meaning = setting.summary();
    format!("| `{}` | {meaning} | {default} |\n", setting.key)
}

/// The table of README.md, and the text below it.
fn table() -> String {
    let rows: String = all_settings().map(row).collect();
    let plugins_last = PLUGIN_ONLY.last().unwrap().key;
    let example = setting("parent_interface").unwrap();
    let option = example.option.unwrap();
    format!(
        "| key | meaning | default |\n|---|---|---|\n{rows}\n\
         The keys up to `{plugins_last}` are for the plugin only. The others are also options of \
         `ratchet agent` and\nenvironment variables: `{}` is `--{}` and `{}`.\n{}",
        example.key,
        option.flag,
        option.variable,
        irregular_variables(),
    )
}

/// Variables that are not named after their keys.
fn irregular_variables() -> String {
    let options = Settings::TABLE.iter().chain(LocalSettings::TABLE);
    let sentences = options.filter_map(|setting| {
        let variable = setting.option?.variable;
        let is_regular = variable == format!("RATCHET_{}", setting.key.to_uppercase());
        (!is_regular).then(|| format!("The variable of `{}` is `{variable}`.", setting.key))
    });
    sentences.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_readme_has_the_table_of_settings() {
    let table = table();
    assert!(
        region("README.md") == table,
        "put this between <!-- settings --> and <!-- /settings --> in README.md:\n\n{table}\n"
    );
}

#[test]
fn the_protocols_document_lists_the_shared_settings() {
    let keys: Vec<_> = Settings::TABLE
        .iter()
        .map(|setting| format!("`{}`", setting.key))
        .collect();
    let listed = region("docs/protocol.md");
    let listed: Vec<_> = listed.split(',').map(str::trim).collect();
    assert_eq!(
        listed,
        keys,
        "put this between <!-- settings --> and <!-- /settings --> in docs/protocol.md: {}",
        keys.join(", ")
    );
}
