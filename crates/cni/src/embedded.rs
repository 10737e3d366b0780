//! Plugins embedded in a config: one plugin object, or a list with `plugins`. Reads them and makes
//! the stdin of each.
//!
//! Runs nothing; see `delegate`.

use serde_json::value::RawValue;

use crate::{
    config::{Attachment, Config},
    error::Error,
    json::Object,
    names::{validate_network_name, validate_plugin_type},
    rendered::RenderedPlugin,
    result::CniResult,
    splice::{raw, raw_string, set_members},
    version::Version,
};

/// What an embedded plugin inherits from the config it is embedded in.
#[derive(Debug, Clone)]
pub struct Outer {
    /// The network's name, for an embedded config without one.
    pub name: String,
    /// The version, for an embedded config without one.
    pub version: Version,
    /// What the runtime passed for capabilities. Each embedded plugin gets those it declares.
    pub runtime_config: Object,
}

impl Outer {
    /// What embedded plugins inherit from this config.
    pub fn of(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            name: config.name().into(),
            version: config.version(),
            runtime_config: config.runtime_config()?,
        })
    }
}

/// One plugin, or a list of them, that another plugin's config contains.
#[derive(Debug, Clone)]
pub struct Embedded {
    pub(crate) plugins: Vec<EmbeddedPlugin>,
    pub(crate) version: Version,
    pub(crate) disable_check: bool,
    pub(crate) disable_gc: bool,
}

/// One plugin with its effective name, version and capabilities.
#[derive(Debug, Clone)]
pub struct EmbeddedPlugin {
    pub(crate) kind: String,
    pub(crate) version: Version,
    /// The stdin without the parts that depend on the call.
    pub(crate) base: String,
}

impl Embedded {
    /// Reads an embedded config: the raw text of the key that holds it, see [`Config::raw_key`].
    ///
    /// Nothing is run or looked up. A bad type is refused here (7), before anything has happened.
    pub fn parse(embedded: &RawValue, outer: &Outer) -> Result<Self, Error> {
        let object = object(embedded)?;
        // A plugin may have a key `plugins` of its own, but a list has no type.
        if object.get("plugins").is_none() || object.get("type").is_some() {
            let plugin = EmbeddedPlugin::parse(embedded, &object, outer, None)?;
            let version = plugin.version;
            return Ok(Self {
                plugins: vec![plugin],
                version,
                disable_check: false,
                disable_gc: false,
            });
        }
        let list = (name(&object, outer)?, version(&object, outer)?);
        let members: Vec<Box<RawValue>> = field(&object, "plugins")?.unwrap_or_default();
        if members.is_empty() {
            return Err(Error::invalid_config("the embedded list has no plugins"));
        }
        let plugins = members
            .iter()
            .map(|member| EmbeddedPlugin::parse(member, &self::object(member)?, outer, Some(&list)))
            .collect::<Result<_, _>>()?;
        let flag =
            |key| Ok::<_, Error>(field::<Flag>(&object, key)?.is_some_and(|flag| flag.is_set()));
        Ok(Self {
            plugins,
            version: list.1,
            disable_check: flag("disableCheck")?,
            disable_gc: flag("disableGC")?,
        })
    }

    /// The plugins in order.
    pub fn plugins(&self) -> &[EmbeddedPlugin] {
        &self.plugins
    }

    /// The effective version of the plugin or the list.
    pub fn version(&self) -> Version {
        self.version
    }
}

impl EmbeddedPlugin {
    fn parse(
        text: &RawValue,
        object: &Object,
        outer: &Outer,
        list: Option<&(String, Version)>,
    ) -> Result<Self, Error> {
        let kind: String = field(object, "type")?.unwrap_or_default();
        validate_plugin_type(&kind)?;
        // As in a runtime's list, all plugins get the list's name and version.
        let (name, version) = match list {
            Some(list) => list.clone(),
            None => (name(object, outer)?, version(object, outer)?),
        };
        let runtime_config = filtered_runtime_config(object, &outer.runtime_config)?;
        let (name, version_text) = (raw_string(&name), raw_string(version.as_str()));
        let mut members: Vec<(&str, &RawValue)> = Vec::new();
        for (key, value) in [("name", &name), ("cniVersion", &version_text)] {
            // Values that are there and effective stay byte for byte.
            if object
                .get(key)
                .is_none_or(|present| present.get() != value.get())
            {
                members.push((key, value));
            }
        }
        if let Some(runtime_config) = &runtime_config {
            members.push(("runtimeConfig", runtime_config));
        }
        Ok(Self {
            base: set_members(text.get(), &members)?,
            kind,
            version,
        })
    }

    /// The name of its program.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The version of its config.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The plugin's stdin for ADD, and for the DEL that undoes it: the embedded object with the
    /// inherited keys and the `prevResult`.
    pub(crate) fn render(
        &self,
        prev: Option<&CniResult>,
        ifname: &str,
    ) -> Result<RenderedPlugin, Error> {
        let stdin = match prev {
            None => self.base.clone(),
            Some(prev) => with_prev_result(&self.base, prev, self.version)?,
        };
        Ok(RenderedPlugin {
            kind: self.kind.clone(),
            version: self.version,
            ifname: ifname.to_owned(),
            stdin,
        })
    }

    /// The plugin's stdin for GC.
    pub(crate) fn render_gc(&self, valid: &[Attachment]) -> Result<String, Error> {
        let list: Vec<_> = valid
            .iter()
            .map(|attachment| {
                serde_json::json!({
                    "containerID": attachment.container_id, "ifname": attachment.ifname,
                })
            })
            .collect();
        let list = raw(&serde_json::Value::from(list).to_string());
        // Both spellings, as in libcni: plugins built on the first release of 1.1.0 read the older
        // one.
        set_members(
            &self.base,
            &[
                ("cni.dev/valid-attachments", &list),
                ("cni.dev/attachments", &list),
            ],
        )
    }
}

/// A config's text with this `prevResult`, in the version of the config.
pub(crate) fn with_prev_result(
    text: &str,
    prev: &CniResult,
    version: Version,
) -> Result<String, Error> {
    let prev = prev.clone().convert(version)?.to_json();
    set_members(
        text,
        &[("prevResult", &raw(&String::from_utf8_lossy(&prev)))],
    )
}

/// A boolean, or a string that libcni reads as one.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Flag {
    Bool(bool),
    Text(String),
}

impl Flag {
    fn is_set(&self) -> bool {
        match self {
            Self::Bool(flag) => *flag,
            Self::Text(text) => ["1", "t", "true"]
                .iter()
                .any(|yes| yes.eq_ignore_ascii_case(text)),
        }
    }
}

fn object(text: &RawValue) -> Result<Object, Error> {
    Object::parse(text.get()).map_err(|error| {
        Error::invalid_config("the embedded config is not a JSON object")
            .with_details(error.to_string())
    })
}

fn field<T: serde::de::DeserializeOwned>(object: &Object, key: &str) -> Result<Option<T>, Error> {
    object.decode(key).map_err(|error| {
        Error::invalid_config(format!(
            "invalid value of the embedded config's key {key:?}"
        ))
        .with_details(error.to_string())
    })
}

fn name(object: &Object, outer: &Outer) -> Result<String, Error> {
    let name = field(object, "name")?
        .filter(|name: &String| !name.is_empty())
        .unwrap_or_else(|| outer.name.clone());
    validate_network_name(&name).map_err(|error| error.context("embedded config"))?;
    Ok(name)
}

fn version(object: &Object, outer: &Outer) -> Result<Version, Error> {
    let Some(text) = field(object, "cniVersion")?.filter(|text: &String| !text.is_empty()) else {
        return Ok(outer.version);
    };
    Version::parse(&text).ok_or_else(|| {
        Error::incompatible_version("unsupported cniVersion of the embedded config")
            .with_details(format!("cniVersion is {text:?}"))
    })
}

/// The runtime's values for the capabilities that the plugin declares; `None` if there are none.
fn filtered_runtime_config(
    object: &Object,
    runtime_config: &Object,
) -> Result<Option<Box<RawValue>>, Error> {
    let capabilities: Object = field(object, "capabilities")?.unwrap_or_default();
    let mut members: Vec<(&str, &RawValue)> = Vec::new();
    for (key, value) in runtime_config.iter() {
        // Each key once, with its last value.
        members.retain(|(known, _)| *known != key);
        // Exact case: these are keys of maps in Go, not fields.
        let declared = capabilities.iter().rfind(|(name, _)| *name == key);
        if declared.is_some_and(|(_, declared)| declared.get() == "true") {
            members.push((key, value));
        }
    }
    if members.is_empty() {
        Ok(None)
    } else {
        set_members("{}", &members).map(|json| Some(raw(&json)))
    }
}

#[cfg(test)]
mod tests;
