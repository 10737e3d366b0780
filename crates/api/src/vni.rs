//! Blocks of VNIs: which link has which.

use std::collections::BTreeMap;

use kube::CustomResource;
use ratchet_model::Vni;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Time,
    schema::{self, rules, vni_block_rules},
};

/// How many VNIs a block has.
pub const VNI_BLOCK_SIZE: u32 = 512;

/// Which links have the VNIs of a block. The controller writes it.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ratchet.dev",
    version = "v1alpha1",
    kind = "VNIBlock",
    plural = "vniblocks",
    derive = "PartialEq",
    doc = "Which links have the VNIs of a block. Its name is the number of the block. Ratchet's \
           controller writes it; do not.",
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[schemars(extend("x-kubernetes-validations" = rules(&vni_block_rules())))]
pub struct VNIBlockSpec {
    /// The VNIs that are not free, by their offset in the block.
    #[serde(default, with = "offsets")]
    #[schemars(schema_with = "schema::entries")]
    pub entries: BTreeMap<u16, VNIEntry>,
}

/// A VNI that is not free.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VNIEntry {
    /// The Link that has it: `namespace/name`.
    #[schemars(schema_with = "schema::link_key")]
    pub link: String,
    /// The Link's uid. Missing until the Link is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::uid")]
    pub uid: Option<String>,
    /// When the link ended. The VNI is free for other links some time after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::timestamp")]
    pub freed: Option<Time>,
    /// Nodes on which an end of the link was before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::former_nodes")]
    pub former: Vec<String>,
}

impl VNIBlock {
    /// The number of a VNI's block, and the VNI's offset in it. The block's name is its number.
    pub fn place_of(vni: Vni) -> (u32, u16) {
        let number = vni.number();
        let offset = u16::try_from(number % VNI_BLOCK_SIZE).expect("a block has 512 VNIs");
        (number / VNI_BLOCK_SIZE, offset)
    }

    /// The VNI at an offset in a block, if there is one.
    pub fn vni_at(block: u32, offset: u16) -> Option<Vni> {
        let first = block.checked_mul(VNI_BLOCK_SIZE)?;
        let is_in_block = u32::from(offset) < VNI_BLOCK_SIZE;
        let number = is_in_block.then(|| first.checked_add(offset.into()))??;
        Vni::try_from(number).ok()
    }
}

/// Offsets are numbers, and the keys of objects in JSON are texts.
mod offsets {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::VNIEntry;

    pub(super) fn serialize<S: Serializer>(
        entries: &BTreeMap<u16, VNIEntry>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_map(
            entries
                .iter()
                .map(|(offset, entry)| (offset.to_string(), entry)),
        )
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<u16, VNIEntry>, D::Error> {
        let entries = BTreeMap::<String, VNIEntry>::deserialize(from)?;
        let read = |(offset, entry): (String, VNIEntry)| Ok((offset.parse()?, entry));
        let read: Result<_, std::num::ParseIntError> = entries.into_iter().map(read).collect();
        read.map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vni_has_one_place() {
        for number in [1, 11, 511, 512, 4096, Vni::MAX] {
            let vni = Vni::try_from(number).unwrap();
            let (block, offset) = VNIBlock::place_of(vni);
            assert_eq!(VNIBlock::vni_at(block, offset), Some(vni), "{number}");
        }
        assert_eq!(VNIBlock::vni_at(0, 0), None);
        assert_eq!(VNIBlock::vni_at(0, 512), None);
        assert_eq!(VNIBlock::vni_at(32_768, 0), None);
        assert_eq!(VNIBlock::vni_at(u32::MAX, 0), None);
    }

    #[test]
    fn offsets_are_texts_in_json() {
        let entry = VNIEntry {
            link: "default/lab".to_owned(),
            uid: None,
            freed: None,
            former: Vec::new(),
        };
        let spec = VNIBlockSpec {
            entries: [(7, entry)].into(),
        };
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(json, r#"{"entries":{"7":{"link":"default/lab"}}}"#);
        assert_eq!(serde_json::from_str::<VNIBlockSpec>(&json).unwrap(), spec);
        let bad = json.replace("\"7\"", "\"x\"");
        assert!(serde_json::from_str::<VNIBlockSpec>(&bad).is_err());
    }
}
