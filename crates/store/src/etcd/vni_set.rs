//! The VNIs that are in use, as ranges: short to read and write, even if there are many.

use std::{cmp::Reverse, collections::BTreeMap, fmt, str::FromStr};

use ratchet_model::{Vni, VniRange};

/// The most ranges that are written: 16 KB, at 8 digits a number.
const MOST: usize = 900;

/// A set of VNIs. Written like `11-18,20`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct VniSet {
    /// The last number of each range by its first. Ranges do not overlap or touch.
    ranges: BTreeMap<u32, u32>,
}

impl VniSet {
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// All of them, upwards.
    pub(super) fn vnis(&self) -> impl Iterator<Item = Vni> {
        let ranges = self.ranges.iter();
        ranges.flat_map(|(first, last)| (*first..=*last).filter_map(|n| Vni::try_from(n).ok()))
    }

    pub(super) fn contains(&self, vni: Vni) -> bool {
        self.around(vni.number()).is_some()
    }

    /// The lowest of a range, from a number up, that is not in it.
    pub(super) fn lowest_free(&self, range: VniRange, mut from: u32) -> Option<Vni> {
        loop {
            let vni = range.starting_at(from).next()?;
            match self.around(vni.number()) {
                Some((_, last)) => from = last + 1,
                None => return Some(vni),
            }
        }
    }

    /// The same, short enough to be written: if it has many gaps, the small ones are closed, those
    /// outside of `range` first. Numbers in closed gaps are found again when all others of the
    /// range are taken.
    #[must_use]
    pub(super) fn shortened(&self, range: VniRange) -> Self {
        if self.ranges.len() <= MOST {
            return self.clone();
        }
        let following = self.ranges.iter().zip(self.ranges.keys().skip(1));
        let mut gaps: Vec<(u32, u32)> = following
            .map(|((_, last), next)| (last + 1, next - 1))
            .collect();
        let of_use = |(first, last): &(u32, u32)| {
            let (first, last) = (*first.max(&range.first()), *last.min(&range.last()));
            (last + 1).saturating_sub(first)
        };
        gaps.sort_by_key(|gap| (Reverse(of_use(gap)), gap.0));
        let mut short = Self::default();
        let ends = self
            .ranges
            .first_key_value()
            .zip(self.ranges.last_key_value());
        if let Some(((first, _), (_, last))) = ends {
            short.ranges.insert(*first, *last);
        }
        for (first, last) in gaps.into_iter().take(MOST - 1) {
            short.cut(first, last);
        }
        short
    }

    /// Takes out numbers, all of which are in one range and not at its ends.
    fn cut(&mut self, first: u32, last: u32) {
        if let Some((begin, end)) = self.around(first) {
            self.ranges.insert(begin, first - 1);
            self.ranges.insert(last + 1, end);
        }
    }

    pub(super) fn insert(&mut self, vni: Vni) {
        let number = vni.number();
        if self.around(number).is_some() {
            return;
        }
        let first = self.around(number - 1).map_or(number, |(first, _)| first);
        let last = self.ranges.remove(&(number + 1)).unwrap_or(number);
        self.ranges.insert(first, last);
    }

    pub(super) fn remove(&mut self, vni: Vni) {
        let number = vni.number();
        let Some((first, last)) = self.around(number) else {
            return;
        };
        self.ranges.remove(&first);
        if first < number {
            self.ranges.insert(first, number - 1);
        }
        if number < last {
            self.ranges.insert(number + 1, last);
        }
    }

    /// The range that contains a number.
    fn around(&self, number: u32) -> Option<(u32, u32)> {
        let (first, last) = self.ranges.range(..=number).next_back()?;
        (*last >= number).then_some((*first, *last))
    }
}

impl fmt::Display for VniSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for VniSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let number: u32 = text
                .parse()
                .map_err(|_| format!("{text:?} is not a number"))?;
            Vni::try_from(number)
                .map(Vni::number)
                .map_err(|error| error.to_string())
        };
        let mut ranges = BTreeMap::new();
        let mut free = 0;
        for range in text.split(',').filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (number(first)?, number(last)?);
            if first < free || last < first {
                return Err(format!("{range:?} is out of order"));
            }
            ranges.insert(first, last);
            free = last + 2;
        }
        Ok(Self { ranges })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn vni(number: u32) -> Vni {
        Vni::try_from(number).unwrap()
    }

    #[test]
    fn it_is_short_to_write() {
        let mut taken = VniSet::default();
        (11..=10_000).for_each(|number| taken.insert(vni(number)));
        taken.remove(vni(500));
        taken.insert(vni(7));
        assert_eq!(taken.to_string(), "7,11-499,501-10000");
        let range = VniRange::AUTOMATIC;
        assert_eq!(taken.lowest_free(range, 0), Some(vni(500)));
        assert_eq!(taken.lowest_free(range, 501), Some(vni(10_001)));
        assert_eq!(VniSet::default().lowest_free(range, 0), Some(vni(11)));
        let full: VniSet = "1-1000000".parse().unwrap();
        assert_eq!(full.lowest_free(range, 0), None);
        for bad in ["x", "0", "11-", "12-11", "11,11", "11-12,13", "16777216"] {
            assert!(bad.parse::<VniSet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_hundred_thousand_sparse_ones_are_short_and_none_is_lost() {
        let (mut taken, range) = (VniSet::default(), VniRange::AUTOMATIC);
        let numbers = (0..100_000).map(|n| 11 + 2 * n);
        numbers.clone().for_each(|number| taken.insert(vni(number)));
        taken.remove(vni(50_011));
        (0..10_000).for_each(|n| taken.insert(vni(2_000_000 + 3 * n)));
        let short = taken.shortened(range);
        let text = short.to_string();
        assert!(text.len() < 16_000, "{}", text.len());
        assert!(
            numbers
                .filter(|n| *n != 50_011)
                .all(|n| short.contains(vni(n)))
        );
        assert_eq!(
            short.lowest_free(range, 0),
            Some(vni(12)),
            "the lowest of equal gaps"
        );
        assert!(!short.contains(vni(50_011)), "a larger one stays");
        assert_eq!(short.shortened(range), short);
        assert_eq!(text.parse(), Ok(short));
    }

    proptest! {
        #[test]
        fn it_is_a_set(changes in prop::collection::vec((any::<bool>(), 1..40_u32), 0..200)) {
            let (mut taken, mut model) = (VniSet::default(), BTreeSet::new());
            for (insert, number) in changes {
                if insert {
                    taken.insert(vni(number));
                    model.insert(vni(number));
                } else {
                    taken.remove(vni(number));
                    model.remove(&vni(number));
                }
                prop_assert_eq!((1..41).filter(|n| taken.contains(vni(*n))).count(), model.len());
                let free = VniRange::AUTOMATIC.vnis().find(|vni| !model.contains(vni));
                prop_assert_eq!(taken.lowest_free(VniRange::AUTOMATIC, 0), free);
                prop_assert_eq!(taken.is_empty(), model.is_empty());
                prop_assert_eq!(&taken.to_string().parse::<VniSet>().unwrap(), &taken);
            }
        }
    }
}
