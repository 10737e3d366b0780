//! A device's alias (IFLA_IFALIAS).

use std::{fmt, str::FromStr};

use crate::{
    link::End,
    names::{LinkId, SandboxId},
};

/// What a device is to the end of a link. An end that is wired directly has one device only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The interface in the pod, or what waits in the node's namespace to become it.
    Pod,
    /// The other end of the pod's veth, in the node's namespace, where it is joined to the rest of
    /// the link (stitched wiring).
    Node,
    /// The VXLAN device in the node's namespace (stitched wiring).
    Tunnel,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 3] = [Part::Pod, Part::Node, Part::Tunnel];

    /// Its word in an alias. The pod's interface has none: its alias is as it was before there were
    /// others.
    fn word(self) -> &'static str {
        match self {
            Part::Pod => "",
            Part::Node => "part=node ",
            Part::Tunnel => "part=tunnel ",
        }
    }
}

/// Which end of which link a device is, and how it was configured. It is written as the **last**
/// step of a device's set-up: a device whose alias equals the wanted one is complete.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Alias {
    /// The link.
    pub link: LinkId,
    /// The end of it that this device belongs to.
    pub end: End,
    /// Which of that end's devices it is.
    pub part: Part,
    /// The sandbox that the device is for; none while it is parked.
    pub sandbox: Option<SandboxId>,
    /// Digest of the device's configuration ([`config_digest`](super::config_digest)).
    pub config: u32,
}

impl Alias {
    /// The digest of a device that is not complete yet, and of a parked one.
    pub const UNFINISHED: u32 = 0;

    /// Whose device it is, in any sandbox.
    pub fn end_id(&self) -> (LinkId, End, Part) {
        (self.link, self.end, self.part)
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ratchet link={} end={} config={:08x} {}",
            self.link,
            self.end,
            self.config,
            self.part.word()
        )?;
        match &self.sandbox {
            Some(id) => write!(f, "sandbox={id}"),
            None => f.write_str("parked"),
        }
    }
}

/// The text is not an alias of Ratchet's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an alias of Ratchet's")]
pub struct NotOurs;

impl FromStr for Alias {
    type Err = NotOurs;
    fn from_str(text: &str) -> Result<Self, NotOurs> {
        let mut words = text.split(' ');
        let mut value = |prefix: &str| {
            words
                .next()
                .and_then(|w| w.strip_prefix(prefix))
                .ok_or(NotOurs)
        };
        value("ratchet")?;
        let link = value("link=")?.parse().map_err(|_| NotOurs)?;
        let end = match value("end=")? {
            "a" => End::A,
            "z" => End::Z,
            _ => return Err(NotOurs),
        };
        let config = u32::from_str_radix(value("config=")?, 16).map_err(|_| NotOurs)?;
        let (part, word) = match value("")? {
            "part=node" => (Part::Node, value("")?),
            "part=tunnel" => (Part::Tunnel, value("")?),
            word => (Part::Pod, word),
        };
        let sandbox = match word {
            "parked" => None,
            word => Some(
                word.strip_prefix("sandbox=")
                    .ok_or(NotOurs)?
                    .parse()
                    .map_err(|_| NotOurs)?,
            ),
        };
        Ok(Self {
            link,
            end,
            part,
            sandbox,
            config,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_read_back_as_they_were_written() {
        for part in Part::ALL {
            for sandbox in [None, Some("ab.c-d_1".parse().unwrap())] {
                let alias = Alias {
                    link: "00000000000000ff".parse().unwrap(),
                    end: End::Z,
                    part,
                    sandbox,
                    config: 7,
                };
                assert_eq!(alias.to_string().parse::<Alias>().unwrap(), alias);
            }
        }
        for foreign in [
            "",
            "ratchet",
            "uplink to r2",
            "ratchet link=zz end=a config=0 parked",
            "ratchet link=00000000000000ff end=q config=0 parked",
            "ratchet link=00000000000000ff end=a config=0 part=pod parked",
            "ratchet link=00000000000000ff end=a config=0 part=node",
        ] {
            assert!(foreign.parse::<Alias>().is_err(), "{foreign}");
        }
    }

    #[test]
    fn the_longest_alias_fits_the_kernel() {
        let sandbox = "x".repeat(SandboxId::MAX).parse().unwrap();
        let alias = Alias {
            link: "00000000000000ff".parse().unwrap(),
            end: End::A,
            part: Part::Tunnel,
            sandbox: Some(sandbox),
            config: u32::MAX,
        };
        assert!(alias.to_string().len() < 256);
    }
}
