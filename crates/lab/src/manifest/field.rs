//! A value of a manifest together with its path, so that every error can name the field.

use std::collections::BTreeMap;

use serde_yaml_ng::Value;

/// A mistake in a manifest: its position, what was expected, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {document}: {field}: {problem}: {help}")]
pub(crate) struct ManifestError {
    /// The file, as the user named it.
    pub file: String,
    /// The document: its number, kind and name.
    pub document: String,
    /// The path of the field, as `kubectl explain` writes it.
    pub field: String,
    /// What was expected and what was found.
    pub problem: String,
    /// What to do about it.
    pub help: String,
}

/// Where a document comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub file: String,
    pub document: String,
}

impl Origin {
    /// An error about the field with this path.
    pub fn error(
        &self,
        field: &str,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) -> ManifestError {
        ManifestError {
            file: self.file.clone(),
            document: self.document.clone(),
            field: field.to_owned(),
            problem: problem.into(),
            help: help.into(),
        }
    }
}

/// One value of a document.
#[derive(Debug, Clone)]
pub(crate) struct Field<'a> {
    pub origin: &'a Origin,
    pub path: String,
    value: &'a Value,
}

impl<'a> Field<'a> {
    /// The document itself.
    pub fn root(origin: &'a Origin, value: &'a Value) -> Self {
        Self {
            origin,
            path: String::new(),
            value,
        }
    }

    /// The member of this name; `None` if it is absent or null, which Kubernetes treats alike.
    pub fn get(&self, key: &str) -> Result<Option<Field<'a>>, ManifestError> {
        match self.value {
            Value::Null => Ok(None),
            Value::Mapping(members) => {
                Ok(members
                    .get(key)
                    .filter(|value| !value.is_null())
                    .map(|value| Field {
                        origin: self.origin,
                        path: join(&self.path, key),
                        value,
                    }))
            }
            _ => Err(self.expected("a mapping of keys to values", "indent its keys below it")),
        }
    }

    /// A string below this one, through mappings that may be absent.
    pub fn text_at(&self, path: &[&str]) -> Result<Option<String>, ManifestError> {
        let mut field = self.clone();
        for key in path {
            match field.get(key)? {
                Some(member) => field = member,
                None => return Ok(None),
            }
        }
        field.text().map(Some)
    }

    /// A string that must be there and not empty.
    pub fn required_text(&self, key: &str, help: &str) -> Result<String, ManifestError> {
        let text = self
            .get(key)?
            .map(|field| field.text())
            .transpose()?
            .unwrap_or_default();
        if text.is_empty() {
            return Err(self.origin.error(
                &join(&self.path, key),
                "expected a string, found nothing",
                help,
            ));
        }
        Ok(text)
    }

    /// This value as a string. As for the API server, numbers and booleans are not strings.
    pub fn text(&self) -> Result<String, ManifestError> {
        match self.value {
            Value::String(text) => Ok(text.clone()),
            Value::Bool(_) | Value::Number(_) => {
                let plain = plain(self.value);
                Err(self.expected("a string", &format!("put it in quotes: \"{plain}\"")))
            }
            _ => Err(self.expected("a string", "write one line of text, if necessary in quotes")),
        }
    }

    /// This value as a boolean.
    pub fn boolean(&self) -> Result<bool, ManifestError> {
        self.value
            .as_bool()
            .ok_or_else(|| self.expected("true or false", "write it without quotes"))
    }

    /// The elements of a list member; empty when it is absent.
    pub fn list(&self, key: &str) -> Result<Vec<Field<'a>>, ManifestError> {
        let Some(field) = self.get(key)? else {
            return Ok(Vec::new());
        };
        let Value::Sequence(items) = field.value else {
            return Err(field.expected("a list", "start each element with \"- \""));
        };
        let element = |(index, value)| Field {
            origin: self.origin,
            path: format!("{}[{index}]", field.path),
            value,
        };
        Ok(items.iter().enumerate().map(element).collect())
    }

    /// A mapping of strings to strings (labels, annotations, data); empty when it is absent.
    pub fn string_map(&self, key: &str) -> Result<BTreeMap<String, String>, ManifestError> {
        let Some(field) = self.get(key)? else {
            return Ok(BTreeMap::new());
        };
        let Value::Mapping(members) = field.value else {
            return Err(field.expected(
                "a mapping of strings to strings",
                "indent its keys below it",
            ));
        };
        let mut map = BTreeMap::new();
        for (key, value) in members {
            let Value::String(key) = key else {
                let problem = format!("expected a string as key, found {}", describe(key));
                return Err(self
                    .origin
                    .error(&field.path, problem, "put the key in quotes"));
            };
            let text = match value {
                // The API server takes an empty value for the empty string.
                Value::Null => String::new(),
                value => Field {
                    origin: self.origin,
                    path: join(&field.path, key),
                    value,
                }
                .text()?,
            };
            map.insert(key.clone(), text);
        }
        Ok(map)
    }

    /// An error about this field.
    pub fn error(&self, problem: impl Into<String>, help: impl Into<String>) -> ManifestError {
        let path = if self.path.is_empty() {
            "the document"
        } else {
            &self.path
        };
        self.origin.error(path, problem, help)
    }

    /// The value itself.
    pub fn value(&self) -> &'a Value {
        self.value
    }

    fn expected(&self, what: &str, help: &str) -> ManifestError {
        self.error(
            format!("expected {what}, found {}", describe(self.value)),
            help,
        )
    }
}

/// `path.key`, or `path["key"]` where the key itself has dots.
pub(crate) fn join(path: &str, key: &str) -> String {
    if key.contains(['.', '/']) {
        format!("{path}[\"{key}\"]")
    } else if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        _ => String::new(),
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(_) => format!("the boolean {}", plain(value)),
        Value::Number(_) => format!("the number {}", plain(value)),
        Value::String(text) => format!("the string \"{text}\""),
        Value::Sequence(_) => "a list".into(),
        Value::Mapping(_) => "a mapping".into(),
        Value::Tagged(tagged) => format!("a value tagged {}", tagged.tag),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin {
            file: "f.yaml".into(),
            document: "document 1 (Pod/a)".into(),
        }
    }

    #[test]
    fn an_unquoted_boolean_is_an_error_that_says_how_to_quote_it() {
        let (origin, value) = (
            origin(),
            serde_yaml_ng::from_str("labels: {ratchet.primary: true}").unwrap(),
        );
        let error = Field::root(&origin, &value)
            .string_map("labels")
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "f.yaml: document 1 (Pod/a): labels[\"ratchet.primary\"]: \
             expected a string, found the boolean true: put it in quotes: \"true\""
        );
    }

    #[test]
    fn absent_and_null_are_the_same() {
        let (origin, value) = (
            origin(),
            serde_yaml_ng::from_str("{a: null, b: {c: x}}").unwrap(),
        );
        let root = Field::root(&origin, &value);
        assert!(root.get("a").unwrap().is_none());
        assert!(root.list("a").unwrap().is_empty());
        assert_eq!(root.text_at(&["b", "c"]).unwrap().as_deref(), Some("x"));
        assert_eq!(root.text_at(&["a", "c"]).unwrap(), None);
    }

    #[test]
    fn a_list_element_is_named_by_its_index() {
        let (origin, value) = (
            origin(),
            serde_yaml_ng::from_str("spec: {volumes: [{name: 5}]}").unwrap(),
        );
        let spec = Field::root(&origin, &value).get("spec").unwrap().unwrap();
        let error = spec.list("volumes").unwrap()[0]
            .required_text("name", "")
            .unwrap_err();
        assert_eq!(error.field, "spec.volumes[0].name");
    }
}
