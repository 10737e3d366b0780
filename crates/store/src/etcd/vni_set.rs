//! The VNIs that are in use, as ranges: short to read and write, even if there are many.

use std::{collections::BTreeMap, fmt, str::FromStr};

use ratchet_model::Vni;

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

    pub(super) fn contains(&self, vni: Vni) -> bool {
        self.around(vni.number()).is_some()
    }

    /// The lowest from [`Vni::FIRST`] up that is not in it.
    pub(super) fn lowest_free(&self) -> Option<Vni> {
        Vni::try_from(
            self.around(Vni::FIRST)
                .map_or(Vni::FIRST, |(_, last)| last + 1),
        )
        .ok()
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
        assert_eq!(taken.lowest_free(), Some(vni(500)));
        assert_eq!(VniSet::default().lowest_free(), Some(vni(11)));
        let full: VniSet = format!("1-{}", Vni::MAX).parse().unwrap();
        assert_eq!(full.lowest_free(), None);
        for bad in ["x", "0", "11-", "12-11", "11,11", "11-12,13", "16777216"] {
            assert!(bad.parse::<VniSet>().is_err(), "{bad}");
        }
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
                prop_assert_eq!(taken.lowest_free(), Vni::lowest_free(model.iter().copied()));
                prop_assert_eq!(taken.is_empty(), model.is_empty());
                prop_assert_eq!(&taken.to_string().parse::<VniSet>().unwrap(), &taken);
            }
        }
    }
}
