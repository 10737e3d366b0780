//! Whose declarations of links with it a pod accepts: the annotation `ratchet.dev/accept`, and what
//! the setting `cross_namespace` of the pod's node leaves of it.
//!
//! What follows from it for links is decided in [`crate::resolve`].

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{DeclarationError, Reader, Texts};
use crate::{
    names::{NameError, PodKey},
    reason::Reason,
};

/// The annotation that says whose declarations a pod accepts.
pub const ACCEPT: &str = "ratchet.dev/accept";

/// So many names the annotation may have: it is part of the pod's record, which other nodes read.
const MOST: usize = 64;

const OWN_NAMESPACE: &str = "own-namespace";
const NONE: &str = "none";
const ANYONE: &str = "*";

/// Whose declarations of links with it a pod accepts. Links that it declares itself need none of
/// this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// Empty: no pod's.
    from: BTreeSet<Declarers>,
    /// No link leaves the pod's namespace, even if the pod declares it itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    isolated: bool,
}

/// Some pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
enum Declarers {
    /// All there are.
    Anyone,
    /// Those of the accepting pod's namespace.
    OwnNamespace,
    /// Those of a namespace.
    Namespace(String),
    /// One.
    Pod(PodKey),
}

impl Default for Accept {
    fn default() -> Self {
        Self::of([Declarers::OwnNamespace])
    }
}

impl Accept {
    fn of(from: impl IntoIterator<Item = Declarers>) -> Self {
        Self {
            from: from.into_iter().collect(),
            isolated: false,
        }
    }

    /// What all pods declare.
    pub fn anyone() -> Self {
        Self::of([Declarers::Anyone])
    }

    /// Whether it is what a pod without annotation has: declarations of its own namespace.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether no link leaves the pod's namespace, even if the pod declares it itself.
    pub fn is_isolated(&self) -> bool {
        self.isolated
    }

    /// Whether `pod`, whose this is, accepts what `declarer` declares.
    pub fn includes(&self, pod: &PodKey, declarer: &PodKey) -> bool {
        let is_same = pod.namespace() == declarer.namespace();
        (is_same || !self.isolated)
            && self.from.iter().any(|from| match from {
                Declarers::Anyone => true,
                Declarers::OwnNamespace => is_same,
                Declarers::Namespace(namespace) => namespace == declarer.namespace(),
                Declarers::Pod(pod) => pod == declarer,
            })
    }

    /// What counts of a pod's annotation (`None`: it has none) on a node with this setting.
    pub fn effective(annotated: Option<&Self>, setting: CrossNamespace) -> Self {
        let annotated = annotated.cloned();
        match setting {
            CrossNamespace::Deny => Self {
                isolated: true,
                ..annotated.unwrap_or_default()
            },
            CrossNamespace::Consent => annotated.unwrap_or_default(),
            CrossNamespace::Allow => annotated.unwrap_or_else(Self::anyone),
        }
    }

    /// The same, and what pods of these namespaces declare.
    ///
    /// # Errors
    /// When a name cannot be a namespace's.
    pub fn and_namespaces<'a>(
        mut self,
        namespaces: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, NameError> {
        for namespace in namespaces {
            // Any name will do for the pod: the namespace's is checked.
            PodKey::new(namespace, "p")?;
            self.from.insert(Declarers::Namespace(namespace.to_owned()));
        }
        Ok(self)
    }

    /// The annotation that has this effect, as far as that can be told.
    pub fn annotation(&self) -> Option<Self> {
        let annotated = Self {
            isolated: false,
            ..self.clone()
        };
        (!annotated.is_default()).then_some(annotated)
    }
}

impl fmt::Display for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from.is_empty() {
            return f.write_str(NONE);
        }
        let names: Vec<String> = self.from.iter().map(ToString::to_string).collect();
        f.write_str(&names.join(","))
    }
}

impl FromStr for Accept {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names: Vec<&str> = text.split(',').map(str::trim).collect();
        if names.len() > MOST {
            return Err(format!("has {} names, and may have {MOST}", names.len()));
        }
        match names[..] {
            [NONE] => return Ok(Self::of([])),
            _ if names.contains(&NONE) => {
                return Err(format!("{text:?} has none besides other names"));
            }
            _ => {}
        }
        let read = |name: &&str| name.parse();
        let from: Result<BTreeSet<Declarers>, String> = names.iter().map(read).collect();
        Ok(Self::of(from?))
    }
}

impl FromStr for Declarers {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "" => Err("a name is missing".to_owned()),
            ANYONE => Ok(Self::Anyone),
            OWN_NAMESPACE => Ok(Self::OwnNamespace),
            _ if name.contains('/') => name.parse().map(Self::Pod).map_err(|e| e.to_string()),
            // Any name will do for the pod: the namespace's is checked.
            _ => PodKey::new(name, "p")
                .map(|_| Self::Namespace(name.to_owned()))
                .map_err(|e| e.to_string()),
        }
    }
}

impl TryFrom<String> for Declarers {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<Declarers> for String {
    fn from(declarers: Declarers) -> String {
        declarers.to_string()
    }
}

impl fmt::Display for Declarers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str(ANYONE),
            Self::OwnNamespace => f.write_str(OWN_NAMESPACE),
            Self::Namespace(namespace) => f.write_str(namespace),
            Self::Pod(pod) => pod.fmt(f),
        }
    }
}

/// The setting `cross_namespace`: which links between pods of two namespaces a node allows to its
/// pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CrossNamespace {
    /// None.
    Deny,
    /// Those that both pods want: each declares the link, or accepts the declarer.
    #[default]
    Consent,
    /// Those, and all with pods that do not say whose declarations they accept.
    Allow,
}

impl CrossNamespace {
    /// All values, as they are written.
    pub const VALUES: [&str; 3] = ["deny", "consent", "allow"];
}

impl fmt::Display for CrossNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::VALUES[*self as usize])
    }
}

impl FromStr for CrossNamespace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "deny" => Ok(Self::Deny),
            "consent" => Ok(Self::Consent),
            "allow" => Ok(Self::Allow),
            _ => Err(format!(
                "{text:?}: expected one of {}",
                Self::VALUES.join(", ")
            )),
        }
    }
}

/// What the annotation says; `None` without it.
pub(super) fn accept(
    reader: Reader<'_>,
    annotations: &Texts,
) -> Result<Option<Accept>, DeclarationError> {
    let read = |text: &String| {
        let wrong = |error| {
            reader.error(
                format!("annotation {ACCEPT}"),
                Reason::AcceptInvalid { error },
            )
        };
        text.parse().map_err(wrong)
    };
    annotations.get(ACCEPT).map(read).transpose()
}

#[cfg(test)]
mod tests;
