//! Random steps: most of them about devices that there are, some about others.

use ipnet::IpNet;
use ratchet_model::{
    End, LinkId, Mac,
    device::{Alias, At, Netns, NewDevice, Observed, Operation, Part, Step, Tunnel, VXLAN_PORT},
    link::Route,
};
use ratchet_simulation::random::Random;

use crate::{
    case::Batch,
    compare::{Pair, SANDBOXES, VTEP, sandbox},
};

const NAMES: [&str; 3] = ["e0", "e1", "e2"];
const MTUS: [u32; 5] = [1280, 1400, 1450, 1500, 9000];
const REMOTES: [&str; 2] = ["10.0.0.2", "10.0.0.3"];
const ADDRESSES: [&str; 4] = [
    "172.16.0.1/24",
    "172.16.0.2/24",
    "172.16.1.1/24",
    "fd00::1/64",
];
const ROUTES: [(&str, Option<&str>); 3] = [
    ("192.168.0.0/24", None),
    ("192.168.1.0/24", Some("172.16.0.9")),
    ("192.168.2.0/24", Some("172.16.9.9")),
];

/// The index of the parent interface.
const PARENT_INDEX: u32 = 2;

/// The next batch.
pub fn next(random: &mut Random, pair: &Pair) -> Batch {
    if random.percent(8) {
        let at = random.percent(75).then(|| random.below(SANDBOXES));
        return Batch::Stranger(at, (*random.pick(&NAMES)).to_owned());
    }
    let observed = pair.observe();
    let mut generator = Generator { random, observed };
    let count = 1 + generator.random.below(6);
    Batch::Steps((0..count).map(|_| generator.step()).collect())
}

struct Generator<'r> {
    random: &'r mut Random,
    observed: Vec<Observed>,
}

impl Generator<'_> {
    fn step(&mut self) -> Step {
        Step {
            link: self.link(),
            operation: self.operation(),
        }
    }

    fn link(&mut self) -> LinkId {
        format!("{:016x}", 1 + self.random.below(4))
            .parse()
            .unwrap()
    }

    fn operation(&mut self) -> Operation {
        match self.random.below(100) {
            0..16 => {
                let (a, z) = (self.new_device(), self.new_device());
                Operation::CreateVeth { a, z }
            }
            16..28 => Operation::CreateVxlan {
                device: self.new_device(),
                tunnel: self.tunnel(),
                source: None,
            },
            28..34 => Operation::Retarget {
                at: self.there(),
                tunnel: self.tunnel(),
            },
            34..42 => Operation::Delete(self.there()),
            42..54 => Operation::Move {
                from: self.there(),
                to: self.anywhere(),
                alias: self.alias(),
            },
            _ => self.configuration(),
        }
    }

    fn configuration(&mut self) -> Operation {
        let at = self.there();
        match self.random.below(14) {
            0 => Operation::Begin(at, self.alias()),
            1 | 2 => Operation::Commit(at, self.alias()),
            3 => Operation::SetMac(at, self.mac()),
            4 | 5 => Operation::SetMtu(at, self.random.pick(&MTUS).to_owned().try_into().unwrap()),
            6 => Operation::SetUp(at, false),
            7 | 8 => Operation::SetUp(at, true),
            9 => Operation::AddAddress(at, self.address()),
            10 => Operation::RestoreAddress(at, self.address()),
            11 => Operation::RemoveAddress(at, self.address()),
            12 => Operation::AddRoute(at, self.route()),
            _ => Operation::RemoveRoute(at, self.route()),
        }
    }

    /// The location of a device, mostly.
    fn there(&mut self) -> At {
        if self.observed.is_empty() || self.random.percent(15) {
            return self.anywhere();
        }
        // Not the parent: what becomes of tunnels without it is not simulated.
        let device = self.random.pick(&self.observed);
        if device.index == PARENT_INDEX && device.netns == Netns::Node {
            return self.anywhere();
        }
        device.at()
    }

    fn anywhere(&mut self) -> At {
        let netns = match self.random.below(20) {
            0 => Netns::Sandbox(sandbox(SANDBOXES)),
            1..5 => Netns::Node,
            _ => Netns::Sandbox(sandbox(self.random.below(SANDBOXES))),
        };
        let name = (*self.random.pick(&NAMES)).to_owned();
        At { netns, name }
    }

    fn new_device(&mut self) -> NewDevice {
        NewDevice {
            at: self.anywhere(),
            mac: self.mac(),
            mtu: self.random.pick(&MTUS).to_owned().try_into().unwrap(),
            index: self
                .random
                .percent(40)
                .then(|| 2 + self.random.below(12) as u32),
        }
    }

    fn tunnel(&mut self) -> Tunnel {
        let parent = match self.random.below(10) {
            0 => 77,
            1 => 0,
            _ => PARENT_INDEX,
        };
        Tunnel {
            vni: (11 + self.random.below(4) as u32).try_into().unwrap(),
            remote: self.random.pick(&REMOTES).parse().unwrap(),
            local: VTEP.parse().unwrap(),
            parent,
            port: VXLAN_PORT,
        }
    }

    fn alias(&mut self) -> Alias {
        Alias {
            link: self.link(),
            end: if self.random.percent(50) {
                End::A
            } else {
                End::Z
            },
            part: Part::Pod,
            sandbox: self
                .random
                .percent(70)
                .then(|| sandbox(self.random.below(SANDBOXES))),
            config: self.random.below(3) as u32,
        }
    }

    fn mac(&mut self) -> Mac {
        let last = self.random.below(256);
        format!("02:00:00:00:00:{last:02x}").parse().unwrap()
    }

    fn address(&mut self) -> IpNet {
        self.random.pick(&ADDRESSES).parse().unwrap()
    }

    fn route(&mut self) -> Route {
        let (dst, via) = *self.random.pick(&ROUTES);
        Route {
            dst: dst.parse().unwrap(),
            via: via.map(|via| via.parse().unwrap()),
            metric: None,
        }
    }
}
