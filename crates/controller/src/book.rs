//! The book of VNIs: which link has which, over all blocks.
//!
//! An entry is written before the Link that has its VNI, and the API accepts a block only if nobody
//! else has written it meanwhile (its resourceVersion). So two controllers that both believe they
//! lead cannot give one VNI to two links.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use ratchet_api::{Accepted, VNI_BLOCK_SIZE, VNIBlock, VNIBlockSpec, VNIEntry};
use ratchet_model::{Vni, VniRange};

use crate::snapshot::{Key, Snapshot};

/// A VNI that was freed is not given again for so long. A controller that has written an entry
/// writes its Link well within this time, or never.
const COOLDOWN: SignedDuration = SignedDuration::from_mins(5);

/// The same, if nodes have not said that they are clean.
const LONG_COOLDOWN: SignedDuration = SignedDuration::from_hours(1);

/// The most former nodes of an entry: what the schema allows.
const FORMER: usize = 16;

/// The book, with the changes that are to be written.
pub(crate) struct Book {
    now: Timestamp,
    range: VniRange,
    blocks: BTreeMap<u32, Block>,
    /// The VNIs that Links have, or are to get.
    by_link: HashMap<String, Vni>,
    /// What can be given, the best first. Found when it is first asked for.
    free: Option<VecDeque<Vni>>,
}

#[derive(Default)]
struct Block {
    object: Option<Arc<VNIBlock>>,
    entries: BTreeMap<u16, VNIEntry>,
    is_changed: bool,
}

impl Book {
    /// The book as the snapshot has it.
    pub fn of(snapshot: &Snapshot, range: VniRange, now: Timestamp) -> Self {
        let blocks: BTreeMap<u32, Block> = snapshot
            .blocks
            .iter()
            .map(|(number, object)| {
                let block = Block {
                    entries: object.spec.entries.clone(),
                    object: Some(object.clone()),
                    is_changed: false,
                };
                (*number, block)
            })
            .collect();
        let mut book = Self {
            now,
            range,
            blocks,
            by_link: HashMap::new(),
            free: None,
        };
        let uids: HashMap<String, Option<&str>> = snapshot
            .links
            .iter()
            .map(|(key, link)| (key.to_string(), link.metadata.uid.as_deref()))
            .collect();
        let mut by_link = HashMap::new();
        for (vni, entry) in book.entries().filter(|(_, entry)| entry.freed.is_none()) {
            // An entry of an earlier Link of that name is none of this one.
            let uid = uids.get(&entry.link).copied().flatten();
            if entry.uid.is_none() || entry.uid.as_deref() == uid {
                by_link.entry(entry.link.clone()).or_insert(vni);
            }
        }
        book.by_link = by_link;
        book
    }

    fn entries(&self) -> impl Iterator<Item = (Vni, &VNIEntry)> {
        self.blocks.iter().flat_map(|(number, block)| {
            let entries = block.entries.iter();
            entries.filter_map(|(offset, entry)| Some((VNIBlock::vni_at(*number, *offset)?, entry)))
        })
    }

    fn entry(&self, vni: Vni) -> Option<&VNIEntry> {
        let (number, offset) = VNIBlock::place_of(vni);
        self.blocks.get(&number)?.entries.get(&offset)
    }

    /// The entries that are in use: VNI and Link.
    pub fn in_use(&self) -> impl Iterator<Item = (Vni, &str)> {
        let in_use = self.entries().filter(|(_, entry)| entry.freed.is_none());
        in_use.map(|(vni, entry)| (vni, &*entry.link))
    }

    /// The VNI that a Link has in the book, whether or not its spec has it.
    pub fn of_link(&self, link: &Key) -> Option<Vni> {
        self.by_link.get(&link.to_string()).copied()
    }

    /// Gives a link a VNI: the one that it has in the book, the declared one, or a free one.
    pub fn give(
        &mut self,
        link: &Key,
        uid: Option<&str>,
        declared: Option<Vni>,
    ) -> Result<Vni, Accepted> {
        let present = self.of_link(link);
        if let Some(vni) = present.filter(|vni| declared.is_none_or(|declared| declared == *vni)) {
            return Ok(vni);
        }
        let vni = match declared {
            Some(vni) if self.is_free(vni) || self.was_of(vni, link) => vni,
            Some(_) => return Err(Accepted::VNITaken),
            None => self.next().ok_or(Accepted::VNIExhausted)?,
        };
        self.by_link.insert(link.to_string(), vni);
        self.put(vni, entry(link, uid));
        Ok(vni)
    }

    /// The owner of a VNI, if that is another Link, for a message.
    pub fn owner(&self, vni: Vni) -> Option<&str> {
        self.entry(vni).map(|entry| &*entry.link)
    }

    /// Enters a VNI that a Link has. Returns false if the VNI is another link's.
    pub fn adopt(&mut self, link: &Key, uid: Option<&str>, vni: Vni) -> bool {
        let is_its = |entry: &VNIEntry| {
            let is_same = entry.uid.is_none() || entry.uid.as_deref() == uid;
            entry.link == link.to_string() && is_same
        };
        match self.entry(vni) {
            Some(entry) if is_its(entry) && entry.freed.is_none() => return true,
            Some(entry) if !is_its(entry) && entry.freed.is_none() => return false,
            _ => {}
        }
        self.take_over(link, uid, vni);
        true
    }

    /// Enters a VNI that a Link has, in place of any other.
    pub fn take_over(&mut self, link: &Key, uid: Option<&str>, vni: Vni) {
        self.by_link.insert(link.to_string(), vni);
        self.put(vni, entry(link, uid));
    }

    /// Notes that an end of a link was on a node.
    pub fn note_former(&mut self, vni: Vni, node: &str) {
        let Some(entry) = self.entry(vni) else {
            return;
        };
        if entry.former.iter().any(|former| former == node) {
            return;
        }
        let mut entry = entry.clone();
        entry.former.push(node.to_owned());
        let most = entry.former.len().saturating_sub(FORMER);
        entry.former.drain(..most);
        self.put(vni, entry);
    }

    /// Frees a VNI, if a Link has it. It can be given to another link some time later.
    pub fn free(&mut self, link: &str, vni: Vni) {
        let entry = self.entry(vni);
        let Some(entry) = entry.filter(|entry| entry.link == link && entry.freed.is_none()) else {
            return;
        };
        let freed = VNIEntry {
            freed: Some(Time(self.now)),
            ..entry.clone()
        };
        self.put(vni, freed);
    }

    /// Whether a VNI's block has changes that are to be written.
    pub fn is_changed(&self, vni: Vni) -> bool {
        let block = self.blocks.get(&VNIBlock::place_of(vni).0);
        block.is_some_and(|block| block.is_changed)
    }

    /// The blocks that are to be written.
    pub fn changes(self) -> Vec<VNIBlock> {
        let changed = self
            .blocks
            .into_iter()
            .filter(|(_, block)| block.is_changed);
        let written = changed.map(|(number, block)| {
            let spec = VNIBlockSpec {
                entries: block.entries,
            };
            let mut written = VNIBlock::new(&number.to_string(), spec);
            if let Some(object) = block.object {
                written.metadata = object.metadata.clone();
            }
            written
        });
        written.collect()
    }

    fn put(&mut self, vni: Vni, entry: VNIEntry) {
        let (number, offset) = VNIBlock::place_of(vni);
        let block = self.blocks.entry(number).or_default();
        block.entries.insert(offset, entry);
        block.is_changed = true;
    }

    fn is_free(&self, vni: Vni) -> bool {
        match self.entry(vni) {
            None => true,
            Some(entry) => self.is_cool(entry),
        }
    }

    /// Whether a VNI is free again, and was that Link's before.
    fn was_of(&self, vni: Vni, link: &Key) -> bool {
        let entry = self.entry(vni);
        entry.is_some_and(|entry| entry.freed.is_some() && entry.link == link.to_string())
    }

    fn is_cool(&self, entry: &VNIEntry) -> bool {
        let time = match entry.former.is_empty() {
            true => COOLDOWN,
            false => LONG_COOLDOWN,
        };
        let freed = entry.freed.as_ref();
        freed.is_some_and(|freed| self.now.duration_since(freed.0) >= time)
    }

    /// The next VNI to give.
    fn next(&mut self) -> Option<Vni> {
        if self.free.is_none() {
            self.free = Some(self.all_free());
        }
        loop {
            let next = self.free.as_mut()?.pop_front();
            match next {
                Some(vni) if self.is_free(vni) => return Some(vni),
                Some(_) => {}
                None => {
                    let block = self.next_block()?;
                    self.free.as_mut()?.extend(block);
                }
            }
        }
    }

    /// Those of the blocks that there are: those that were never given, then the longest freed.
    fn all_free(&self) -> VecDeque<Vni> {
        let numbers: BTreeSet<u32> = self.blocks.keys().copied().collect();
        let of_block = |number| {
            self.in_block(number)
                .filter(|vni| self.entry(*vni).is_none())
        };
        let never = numbers.into_iter().flat_map(of_block);
        let freed = self
            .entries()
            .filter(|(vni, entry)| self.range.contains(*vni) && self.is_cool(entry));
        let mut freed: Vec<(Option<Timestamp>, Vni)> = freed
            .map(|(vni, entry)| (entry.freed.as_ref().map(|time| time.0), vni))
            .collect();
        freed.sort_unstable();
        never.chain(freed.into_iter().map(|(_, vni)| vni)).collect()
    }

    fn in_block(&self, number: u32) -> impl Iterator<Item = Vni> + use<> {
        let range = self.range;
        let offsets = 0..u16::try_from(VNI_BLOCK_SIZE).unwrap_or(0);
        let vnis = offsets.filter_map(move |offset| VNIBlock::vni_at(number, offset));
        vnis.filter(move |vni| range.contains(*vni))
    }

    /// The VNIs of the first block that there is not.
    fn next_block(&self) -> Option<impl Iterator<Item = Vni> + use<>> {
        let mut numbers = self.range.first() / VNI_BLOCK_SIZE..=self.range.last() / VNI_BLOCK_SIZE;
        let is_new = |number: &u32| {
            !self.blocks.contains_key(number) && self.in_block(*number).next().is_some()
        };
        numbers.find(is_new).map(|number| self.in_block(number))
    }
}

fn entry(link: &Key, uid: Option<&str>) -> VNIEntry {
    VNIEntry {
        link: link.to_string(),
        uid: uid.map(ToOwned::to_owned),
        freed: None,
        former: Vec::new(),
    }
}
