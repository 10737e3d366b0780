//! The CNI protocol, for a plugin that is a main plugin, a wrapper around embedded plugins and a
//! chained plugin.
//!
//! [`run`] is the outside of such a plugin: it checks the environment and the network config, calls
//! one method of a [`Plugin`], and prints exactly one JSON document. [`Embedded`] is the inside of
//! a wrapper: it runs other plugins as a runtime would. The data are [`Config`], [`CniResult`] and
//! [`Error`].
//!
//! JSON from others is read as leniently as Go's `encoding/json` reads it, because all other CNI
//! programs do so. What we write is strict.
//!
//! This crate may not know links, pods, agents or anything else of the plugin that uses it. It is
//! synchronous.

mod address;
mod args;
mod config;
mod convert;
mod delegate;
mod dispatch;
mod embedded;
mod environment;
mod error;
mod exec;
mod invocation;
mod json;
mod names;
mod netns;
mod pipes;
mod rendered;
mod result;
mod result_json;
mod splice;
#[cfg(test)]
mod testing;
mod version;

pub use address::Cidr;
pub use args::CniArgs;
pub use config::{Attachment, Config};
pub use delegate::{Added, Caller};
pub use dispatch::{Output, Plugin, Request, run};
pub use embedded::{Embedded, EmbeddedPlugin, Outer};
pub use environment::Environment;
pub use error::{Error, code};
pub use exec::{Executor, Finished, find_in_path};
pub use invocation::Invocation;
pub use json::Object;
pub use names::{
    MAX_INTERFACE_NAME, validate_container_id, validate_interface_name, validate_network_name,
    validate_plugin_type,
};
pub use netns::is_own_netns;
pub use rendered::{Rendered, RenderedPlugin};
pub use result::{CniResult, Dns, Extra, Interface, IpConfig, Route};
pub use splice::set_members;
pub use version::{Verb, Version};
