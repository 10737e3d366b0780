//! The schemas of fields: types, limits, and rules with a message for people.
//!
//! Only what generates the CustomResourceDefinitions calls these functions, so the linker leaves
//! them out of the binary. Limits that the model has come from there. Kubernetes wants a greatest
//! length of every text, list and map: from these it computes what a rule may cost.

mod rules;
mod text;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use ratchet_model::{Mtu, Quotas, Vni};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

pub(crate) use rules::{
    END_RULES, LINK_RULES, ROUTE_RULES, SLOT_RULES, TOPOLOGY_RULES, vni_block_rules,
};
pub(crate) use text::*;

use crate::{Link, LinkGrant, NodeUnderlay, Topology, VNIBlock, VNIEntry};

/// The most characters of a message in a status. A sender shortens longer ones.
pub const MESSAGE: usize = 1024;

/// The most characters of a reason in a status.
pub const REASON: usize = 64;

/// The most conditions of an object. There are two types of them.
const CONDITIONS: usize = 8;

/// The most entries of a list in a [`LinkGrant`]: as many as a ReferenceGrant has.
pub(crate) const GRANTS: usize = 16;

/// The most addresses, and the most routes, that one end has in a [`Topology`]. A Link allows what
/// annotations do ([`Quotas`]); 2,048 links with as many would exceed what rules may cost.
const OF_A_TOPOLOGYS_END: usize = 16;

/// A rule in the Common Expression Language, and what is wrong when it is false.
pub(crate) type Rule = (&'static str, &'static str);

/// The most links of one Topology, and the most slots: as many as a pod can declare by default.
pub fn max_links() -> usize {
    Quotas::default().links
}

/// The CustomResourceDefinitions of all kinds.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        Link::crd(),
        LinkGrant::crd(),
        NodeUnderlay::crd(),
        Topology::crd(),
        VNIBlock::crd(),
    ]
}

/// Rules, in the form that a schema has.
pub(crate) fn rules<R: AsRef<str>>(rules: &[(R, &str)]) -> Value {
    let one = |(rule, message): &(R, &str)| json!({"rule": rule.as_ref(), "message": message});
    rules.iter().map(one).collect()
}

/// One rule that says the same as several, of which each may rely on those before it. The message
/// is that of the first one that is false, after what a server does not show: the value.
///
/// A rule takes the server about 20 µs for each value, long or short. With one for a text, not
/// four, it checks the greatest Topology in half the time, and it does so also for its status.
pub(crate) fn in_turn(value: &str, rules: &[Rule]) -> Value {
    let all: Vec<String> = rules.iter().map(|(rule, _)| format!("({rule})")).collect();
    let mut message = String::new();
    for (rule, of_rule) in rules.iter().rev() {
        // The language has the quotes and escapes of JSON.
        let of_rule = json!(of_rule);
        message = match message.is_empty() {
            true => of_rule.to_string(),
            false => format!("!({rule}) ? {of_rule} : ({message})"),
        };
    }
    json!([{
        "rule": all.join(" && "),
        "message": rules.first().map(|(_, message)| message),
        "messageExpression": format!("'\"' + {value} + '\": ' + ({message})"),
    }])
}

fn integer(minimum: u32, maximum: u32) -> Schema {
    let format = match maximum <= i32::MAX as u32 {
        true => "int32",
        false => "int64",
    };
    json_schema!({"type": "integer", "format": format, "minimum": minimum, "maximum": maximum})
}

fn list(items: Schema, least: usize, most: usize) -> Schema {
    let mut schema = json_schema!({"type": "array", "items": items, "maxItems": most});
    if least > 0 {
        schema.insert("minItems".to_owned(), least.into());
    }
    schema
}

/// A list whose entries have a key of their own.
fn keyed(mut list: Schema, key: &str) -> Schema {
    list.insert("x-kubernetes-list-type".to_owned(), "map".into());
    list.insert("x-kubernetes-list-map-keys".to_owned(), json!([key]));
    list
}

/// A list that is replaced as a whole.
fn atomic(mut list: Schema) -> Schema {
    list.insert("x-kubernetes-list-type".to_owned(), "atomic".into());
    list
}

pub(crate) fn mtu(_: &mut SchemaGenerator) -> Schema {
    integer(Mtu::MIN, Mtu::MAX)
}

pub(crate) fn vni(_: &mut SchemaGenerator) -> Schema {
    integer(1, Vni::MAX)
}

pub(crate) fn wiring(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["direct", "stitched"]})
}

pub(crate) fn port(_: &mut SchemaGenerator) -> Schema {
    integer(1, u16::MAX.into())
}

pub(crate) fn metric(_: &mut SchemaGenerator) -> Schema {
    integer(0, u32::MAX)
}

pub(crate) fn ordinal(_: &mut SchemaGenerator) -> Schema {
    integer(0, i32::MAX as u32)
}

pub(crate) fn count(_: &mut SchemaGenerator) -> Schema {
    integer(0, i32::MAX as u32)
}

pub(crate) fn generation(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int64", "minimum": 0})
}

pub(crate) fn addresses(generator: &mut SchemaGenerator) -> Schema {
    atomic(list(address(generator), 0, Quotas::default().addresses))
}

pub(crate) fn routes(generator: &mut SchemaGenerator) -> Schema {
    let route = generator.subschema_for::<crate::Route>();
    atomic(list(route, 0, Quotas::default().routes))
}

/// Two entries, one for each endpoint.
fn pair(entry: Schema) -> Schema {
    atomic(list(entry, 2, 2))
}

pub(crate) fn endpoints(generator: &mut SchemaGenerator) -> Schema {
    pair(endpoint(generator))
}

pub(crate) fn pair_of_addresses(generator: &mut SchemaGenerator) -> Schema {
    pair(atomic(list(address(generator), 0, OF_A_TOPOLOGYS_END)))
}

pub(crate) fn pair_of_routes(generator: &mut SchemaGenerator) -> Schema {
    let route = generator.subschema_for::<crate::Route>();
    pair(atomic(list(route, 0, OF_A_TOPOLOGYS_END)))
}

pub(crate) fn pair_of_macs(generator: &mut SchemaGenerator) -> Schema {
    pair(mac_or_none(generator))
}

pub(crate) fn slots(generator: &mut SchemaGenerator) -> Schema {
    let slot = generator.subschema_for::<crate::Slot>();
    keyed(list(slot, 0, max_links()), "name")
}

pub(crate) fn links(generator: &mut SchemaGenerator) -> Schema {
    let link = generator.subschema_for::<crate::TopologyLink>();
    atomic(list(link, 0, max_links()))
}

pub(crate) fn grants<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    atomic(list(generator.subschema_for::<T>(), 1, GRANTS))
}

/// The schema of Kubernetes' own type, with limits.
pub(crate) fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let condition = json_schema!({
        "type": "object",
        "required": ["type", "status", "lastTransitionTime", "reason", "message"],
        "properties": {
            "type": condition_type(generator),
            "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "reason": reason(generator),
            "message": message(generator),
            "observedGeneration": generation(generator),
        },
    });
    keyed(list(condition, 0, CONDITIONS), "type")
}

pub(crate) fn match_labels(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": GRANTS,
        "additionalProperties": label_value(generator),
    })
}

pub(crate) fn entries(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": crate::VNI_BLOCK_SIZE,
        "additionalProperties": generator.subschema_for::<VNIEntry>(),
    })
}

pub(crate) fn former_nodes(generator: &mut SchemaGenerator) -> Schema {
    atomic(list(node(generator), 0, GRANTS))
}
