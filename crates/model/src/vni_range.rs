//! Ranges of VNIs.

use std::{fmt, str::FromStr};

use crate::link::{RangeError, Vni};

/// A range of VNIs, written like `11-999999`. Calico's VNI, 4096, is in none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VniRange {
    first: u32,
    last: u32,
}

impl VniRange {
    /// The VNI of Calico's device (`VXLANVNI` in its `FelixConfiguration`), which may use the same
    /// port.
    pub const CALICO: u32 = 4096;
    /// From these the store gives VNIs to links that declare none, by default.
    pub const AUTOMATIC: Self = Self {
        first: Vni::FIRST,
        last: 999_999,
    };
    /// These can be declared, by default.
    pub const DECLARABLE: Self = Self {
        first: 1_000_000,
        last: Vni::MAX,
    };

    /// Whether a VNI is one of these.
    pub fn contains(self, vni: Vni) -> bool {
        let number = vni.number();
        (self.first..=self.last).contains(&number) && number != Self::CALICO
    }

    /// The lowest number.
    pub fn first(self) -> u32 {
        self.first
    }

    /// The highest number.
    pub fn last(self) -> u32 {
        self.last
    }

    /// All of these, upwards.
    pub fn vnis(self) -> impl Iterator<Item = Vni> {
        self.starting_at(self.first)
    }

    /// Those of these that are not below a number, upwards.
    pub fn starting_at(self, number: u32) -> impl Iterator<Item = Vni> {
        (number.max(self.first)..=self.last)
            .filter(|number| *number != Self::CALICO)
            .filter_map(|number| Vni::try_from(number).ok())
    }
}

impl Default for VniRange {
    fn default() -> Self {
        Self::AUTOMATIC
    }
}

impl fmt::Display for VniRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for VniRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let wrong = || {
            RangeError(format!(
                "{text:?}: expected a range of VNIs from 1 to {}, such as {}",
                Vni::MAX,
                Self::AUTOMATIC
            ))
        };
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let number = |text: &str| {
            let number = text.trim().parse::<u32>().ok()?;
            Vni::try_from(number).ok().map(Vni::number)
        };
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(wrong()),
        }
    }
}

impl serde::Serialize for VniRange {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for VniRange {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_text_and_leaves_calicos_vni_out() {
        let range: VniRange = "4095-4097".parse().unwrap();
        let numbers: Vec<u32> = range.vnis().map(Vni::number).collect();
        assert_eq!(numbers, [4095, 4097]);
        let contains = |number: u32| range.contains(number.try_into().unwrap());
        assert_eq!(
            [4094, 4095, 4096, 4097, 4098].map(contains),
            [false, true, false, true, false]
        );
        assert_eq!(range.starting_at(4096).count(), 1);
        assert_eq!(VniRange::AUTOMATIC.to_string(), "11-999999");
        assert_eq!(VniRange::DECLARABLE.to_string(), "1000000-16777215");
        for bad in ["", "11", "0-5", "12-11", "11-16777216", "a-b", "1-2-3"] {
            assert!(bad.parse::<VniRange>().is_err(), "{bad}");
        }
    }
}
