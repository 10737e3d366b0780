//! Splits a file into documents, and a List into its items.

use serde::Deserialize;
use serde_yaml_ng::Value;

use super::{
    field::{Field, ManifestError, Origin},
    is_object_name,
};

/// One object of a file.
#[derive(Debug)]
pub(super) struct Document {
    pub origin: Origin,
    pub kind: String,
    value: Value,
}

impl Document {
    pub fn root(&self) -> Field<'_> {
        Field::root(&self.origin, &self.value)
    }

    /// `metadata.name`, checked.
    pub fn name(&self) -> Result<String, ManifestError> {
        let name = self.root().text_at(&["metadata", "name"])?;
        self.object_name("metadata.name", name)
    }

    /// `metadata.namespace`, checked, `default` when it is absent.
    pub fn namespace(&self) -> Result<String, ManifestError> {
        let namespace = self.root().text_at(&["metadata", "namespace"])?;
        self.object_name(
            "metadata.namespace",
            Some(namespace.unwrap_or_else(|| "default".into())),
        )
    }

    /// Checks `apiVersion`.
    pub fn check_version(&self, expected: &str) -> Result<(), ManifestError> {
        let found = self.root().text_at(&["apiVersion"])?.unwrap_or_default();
        if found == expected {
            return Ok(());
        }
        let problem = format!("expected {expected}, found \"{found}\"");
        Err(self.origin.error(
            "apiVersion",
            problem,
            format!("write apiVersion: {expected}"),
        ))
    }

    fn object_name(&self, field: &str, name: Option<String>) -> Result<String, ManifestError> {
        match name {
            Some(name) if is_object_name(&name) => Ok(name),
            name => Err(self.origin.error(
                field,
                format!("expected a name, found \"{}\"", name.unwrap_or_default()),
                "use lower case letters, digits, '-' and '.', with a letter or digit at both ends",
            )),
        }
    }
}

/// The objects of a file in order, without empty documents.
pub(super) fn split(file: &str, text: &str) -> Result<Vec<Document>, ManifestError> {
    let mut documents = Vec::new();
    for (index, value) in values(file, text)?.into_iter().enumerate() {
        expand(
            file,
            &format!("document {}", index + 1),
            value,
            &mut documents,
        )?;
    }
    Ok(documents)
}

/// Adds an object, or the items of a List. `position` says where it is in the file, for errors.
fn expand(
    file: &str,
    position: &str,
    value: Value,
    documents: &mut Vec<Document>,
) -> Result<(), ManifestError> {
    let mut origin = Origin {
        file: file.to_owned(),
        document: position.to_owned(),
    };
    let kind = Field::root(&origin, &value).required_text(
        "kind",
        "write each document as an object with apiVersion, kind and metadata",
    )?;
    if kind == "List" {
        let items = Field::root(&origin, &value).list("items")?;
        for (index, item) in items.iter().enumerate() {
            expand(
                file,
                &format!("{position}, item {}", index + 1),
                item.value().clone(),
                documents,
            )?;
        }
        return Ok(());
    }
    let name = Field::root(&origin, &value)
        .text_at(&["metadata", "name"])
        .ok()
        .flatten()
        .unwrap_or_default();
    origin.document = format!("{position} ({kind}/{name})");
    documents.push(Document {
        origin,
        kind,
        value,
    });
    Ok(())
}

fn values(file: &str, text: &str) -> Result<Vec<Value>, ManifestError> {
    // JSON is nearly a subset of YAML, but YAML forbids tabs and several objects in a row. So try
    // the JSON parser first.
    if text.trim_start().starts_with('{') {
        let objects: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text)
            .into_iter()
            .collect();
        if let Ok(objects) = objects {
            return Ok(objects);
        }
    }
    let mut values = Vec::new();
    for (index, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let parsed =
            Value::deserialize(document).and_then(|mut value| value.apply_merge().map(|()| value));
        match parsed {
            Ok(Value::Null) => {}
            Ok(value) => values.push(value),
            Err(error) => {
                let document = format!("document {}", index + 1);
                let origin = Origin {
                    file: file.to_owned(),
                    document,
                };
                return Err(origin.error(
                    "syntax",
                    error.to_string(),
                    "correct the YAML or JSON there",
                ));
            }
        }
    }
    Ok(values)
}
