//! Which device is the other end of a veth: the kernel says its index, and a number that its
//! namespace has in that of the device (IFLA_LINK, IFLA_LINK_NETNSID). Here the number is taken
//! back to a namespace that is known.
//!
//! Each namespace numbers others by itself. The node's own numbers are common ground: one request
//! to the node's socket shows all numbers of another namespace beside those of the node
//! (NETNSA_TARGET_NSID, NETNSA_CURRENT_NSID; Linux 5.0). So the cost grows with the namespaces, and
//! not with their pairs.

use std::collections::HashMap;

use nix::errno::Errno;
use ratchet_model::device::{Kind, Netns, Peer};

use crate::{
    error::KernelError,
    kernel::Kernel,
    observe::{Seen, refused},
    reply, request,
    socket::Failure,
};

/// Namespaces by their numbers in one.
type Numbers = HashMap<i32, Netns>;

impl Kernel {
    /// Finds the namespaces of the peers of veths. The peer of one that may be ours and is in a
    /// namespace that is not registered is not known.
    pub(crate) fn find_peers(&self, seen: &mut [Seen]) -> Result<(), KernelError> {
        let mut tables: HashMap<Netns, Numbers> = HashMap::new();
        for seen in seen.iter().filter(|seen| seen.is_marked()) {
            let netns = &seen.device.netns;
            if is_veth(seen) && seen.home.is_some() && !tables.contains_key(netns) {
                tables.insert(netns.clone(), Numbers::new());
            }
        }
        if tables.is_empty() {
            // Nothing of ours has a peer elsewhere; what others have is nobody's business.
            return Ok(());
        }
        let of_node = self.numbers_of_node()?;
        for (netns, numbers) in &mut tables {
            *numbers = self.numbers_in(netns, &of_node)?;
        }
        for seen in seen.iter_mut().filter(|seen| is_veth(seen)) {
            let Some(number) = seen.home else {
                continue;
            };
            let numbers = tables.get(&seen.device.netns);
            let found = numbers.and_then(|numbers| numbers.get(&number)).cloned();
            if let Kind::Veth { peer } = &mut seen.device.kind {
                let index = peer.take().map(|peer| peer.index);
                *peer = found.zip(index).map(|(netns, index)| Peer { netns, index });
            }
        }
        Ok(())
    }

    /// All registered namespaces by their numbers in the node's. One that has none gets one.
    fn numbers_of_node(&self) -> Result<Numbers, KernelError> {
        let spaces: Vec<_> = self.spaces().collect();
        let (mut numbers, mut missing) = (Numbers::new(), Vec::new());
        for (id, space) in &spaces {
            match space.number() {
                Some(number) => drop(numbers.insert(number, Netns::Sandbox((*id).clone()))),
                None => missing.push((*id, *space)),
            }
        }
        // The second time all have one.
        for _ in 0..2 {
            let asked = missing
                .iter()
                .map(|(_, space)| request::get_namespace_number(space.handle.raw_fd()));
            let answers = self.talk(&Netns::Node, |channel| channel.fetch(asked.collect()))?;
            let mut without = Vec::new();
            for ((id, space), answer) in missing.into_iter().zip(answers) {
                match reply::namespace_number(&answer.map_err(unreadable)?) {
                    Some(number) => {
                        space.set_number(number);
                        numbers.insert(number, Netns::Sandbox(id.clone()));
                    }
                    None => without.push((id, space)),
                }
            }
            missing = without;
            if missing.is_empty() {
                break;
            }
            let numbered = missing
                .iter()
                .map(|(_, space)| request::number_namespace(space.handle.raw_fd()));
            self.talk(&Netns::Node, |channel| channel.batch(numbered.collect()))?
                .into_iter()
                // It got one meanwhile.
                .filter(|answer| !matches!(answer, Err(failure) if failure.errno == Errno::EEXIST))
                .collect::<Result<(), Failure>>()
                .map_err(unreadable)?;
        }
        Ok(numbers)
    }

    /// Namespaces by their numbers in this one.
    fn numbers_in(&self, netns: &Netns, of_node: &Numbers) -> Result<Numbers, KernelError> {
        let Netns::Sandbox(_) = netns else {
            return Ok(of_node.clone());
        };
        let Some(target) = self.space(netns)?.number() else {
            return Ok(Numbers::new());
        };
        let pairs = self
            .talk(&Netns::Node, |channel| {
                let dump = request::dump_namespace_numbers(target);
                channel.dump(dump, reply::namespace_numbers)
            })?
            .map_err(unreadable)?;
        let mut numbers: Numbers = pairs
            .into_iter()
            .filter_map(|(here, on_node)| Some((here, of_node.get(&on_node)?.clone())))
            .collect();
        let node = self
            .talk(netns, |channel| channel.number_of_node(self.node()))?
            .map_err(unreadable)?;
        numbers.extend(node.map(|number| (number, Netns::Node)));
        Ok(numbers)
    }
}

fn is_veth(seen: &Seen) -> bool {
    matches!(seen.device.kind, Kind::Veth { .. })
}

fn unreadable(failure: Failure) -> KernelError {
    refused("read the numbers of network namespaces".to_owned(), failure)
}
