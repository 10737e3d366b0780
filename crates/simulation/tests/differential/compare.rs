//! Both kernels side by side.

use std::{collections::BTreeMap, path::PathBuf};

use nix::errno::Errno::EEXIST;
use ratchet_engine::Kernel as _;
use ratchet_kernel::{KernelError, Look, Outcome};
use ratchet_model::{
    SandboxId,
    device::{Kind, Netns, Observed, ObservedAddress, Step},
};
use ratchet_simulation::{
    network::{NetnsId, Network, SimulatedKernel},
    points::Points,
};

use crate::{case::Batch, real::Real};

/// The sandboxes of a node.
pub const SANDBOXES: usize = 3;

/// The address at which the node's tunnels end.
pub const VTEP: &str = "10.0.0.1";

pub fn sandbox(number: usize) -> SandboxId {
    format!("s{number}").parse().unwrap()
}

/// All namespaces.
pub fn places() -> impl Iterator<Item = Netns> {
    let sandboxes = (0..SANDBOXES).map(|number| Netns::Sandbox(sandbox(number)));
    std::iter::once(Netns::Node).chain(sandboxes)
}

/// A node on the real kernel, and the same on the simulated one.
pub struct Pair {
    real: Real,
    network: Network,
    netns: Vec<NetnsId>,
    node: NetnsId,
    simulated: SimulatedKernel,
}

impl Pair {
    pub fn new() -> Self {
        let network = Network::default();
        let number = network.lock().add_node();
        let node = network.lock().namespaces().next().unwrap().0;
        let mut simulated = SimulatedKernel::new(network.clone(), number, Points::default());
        let mut netns = Vec::new();
        for number in 0..SANDBOXES {
            let path = PathBuf::from(format!("/run/netns/{number}"));
            netns.push(network.lock().add_sandbox(0, number, &path));
            simulated.enter(&sandbox(number), &path, None).unwrap();
        }
        Self {
            real: Real::new(),
            network,
            netns,
            node,
            simulated,
        }
    }

    /// What the simulated kernel reports.
    pub fn observe(&self) -> Vec<Observed> {
        let looks: BTreeMap<_, _> = places().map(|netns| (netns, Look::All)).collect();
        self.simulated.observe(&looks, &|_| true).unwrap()
    }

    /// Does a batch on both.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn execute(&mut self, batch: &Batch) -> Result<(), String> {
        match batch {
            Batch::Stranger(at, name) => {
                let netns = at.map_or(self.node, |number| self.netns[number]);
                let made = self.network.lock().add_stranger(netns, name);
                if made.is_some() {
                    self.real.add_stranger(*at, name);
                }
            }
            Batch::Steps(steps) => {
                let real = self.real.kernel.execute(steps);
                let simulated = self.simulated.execute(steps);
                compare_outcomes(steps, &real, &simulated)?;
            }
        }
        compare_devices(self.real.observe(), self.observe())
    }
}

fn compare_outcomes(steps: &[Step], real: &[Outcome], simulated: &[Outcome]) -> Result<(), String> {
    let mut differences = Vec::new();
    for (step, (real, simulated)) in steps.iter().zip(real.iter().zip(simulated)) {
        let [one, other] = [real, simulated].map(outcome);
        if one != other {
            let text = format!("{step:?}\nreal: {one} ({real:?})\nsimulated: {other}");
            differences.push(text);
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(differences.join("\n"))
}

/// What the kernel said, without the words for what was tried.
fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Ok(()) => "done".to_owned(),
        Err(KernelError::NoDevice { at, .. }) => format!("no device {at}"),
        // Which of the two it was, and in whose way, is found out after the whole phase: by then
        // there may be a device that was not there when the kernel said so.
        Err(KernelError::NameTaken { .. } | KernelError::VniTaken { .. }) => EEXIST.to_string(),
        Err(KernelError::Refused { errno, .. }) => format!("{errno}"),
        Err(KernelError::Foreign { at, .. }) => format!("foreign {at}"),
        Err(error) => format!("{error}"),
    }
}

fn compare_devices(real: Vec<Observed>, simulated: Vec<Observed>) -> Result<(), String> {
    let [real, simulated] = [real, simulated].map(|found| {
        let mut found: Vec<Observed> = found.into_iter().map(comparable).collect();
        found.sort_by(|one, other| (&one.netns, one.index).cmp(&(&other.netns, other.index)));
        found
    });
    if real == simulated {
        return Ok(());
    }
    let only = |these: &[Observed], those: &[Observed]| -> Vec<String> {
        let only = these.iter().filter(|device| !those.contains(device));
        only.map(|device| format!("{device:?}")).collect()
    };
    Err(format!(
        "real:\n{}\nsimulated:\n{}",
        only(&real, &simulated).join("\n"),
        only(&simulated, &real).join("\n")
    ))
}

/// A device without what is not compared: what strangers have, and the order of lists.
fn comparable(mut device: Observed) -> Observed {
    if device.kind == Kind::Other {
        (device.mac, device.carrier) = (None, false);
    }
    let order = |address: &ObservedAddress| address.address;
    device.addresses.sort_by_key(order);
    device
        .routes
        .sort_by(|one, other| one.route.cmp(&other.route));
    device
}
