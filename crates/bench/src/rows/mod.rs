//! The rows of the table.

mod calls;
mod filter;
mod frames;
mod growth;
mod many;
mod scale;
mod store;

use anyhow::Result;

use crate::{Bench, line::Line};

/// A row: one or more lines that are measured together.
pub struct Row {
    /// Its name for `--row`.
    pub name: &'static str,
    /// What it measures, and how.
    pub how: &'static str,
    /// The function that measures it.
    pub run: fn(&Bench) -> Result<Vec<Line>>,
}

/// All rows, in the order of the table.
pub const ROWS: &[Row] = &[
    Row {
        name: "local",
        how: "Two pods of one node with many links; the first pod exists. Ours: from the start of \
              the second pod's ADD until every interface is up with its address (the agent's state \
              and the store are written, aliases are set). Theirs: `ip -batch`; the interfaces are \
              created in the pods' namespaces, up, with one address per end. Then DEL of both pods \
              at once, as when a topology is deleted, against `ip link del group` of the same \
              devices.",
        run: many::local,
    },
    Row {
        name: "remote",
        how: "The same on two nodes with VXLAN and etcd: until both ends of every link are up with \
              their addresses. Theirs: `ip -batch` on both nodes at once.",
        run: many::remote,
    },
    Row {
        name: "calls",
        how: "Plugin processes from start to exit, while the agent runs. ADD and DEL of a pod with \
              one link whose peer exists, with a delegate that does nothing; the median of that \
              delegate alone is subtracted. Theirs: Debian's `ptp` with `host-local`.",
        run: calls::calls,
    },
    Row {
        name: "pass-through",
        how: "ADD and DEL of a pod that is not Ratchet's, with Debian's `ptp` as the delegate, \
              against `ptp` alone.",
        run: calls::pass_through,
    },
    Row {
        name: "start",
        how: "CNI_COMMAND=VERSION, the process from start to exit, against Debian's `loopback`.",
        run: calls::start,
    },
    Row {
        name: "frames",
        how: "iperf3 (TCP) and ping between two pods over our veth and our VXLAN, against links of \
              the same kind and MTU, made by hand between two other namespaces of the same nodes. \
              There are four set-ups with four pairs of measurements each, ours and theirs in \
              turns. A measurement takes one second (iperf3: after a first one that is not \
              counted). The result is the median of the ratios.",
        run: frames::frames,
    },
    Row {
        name: "filter",
        how: "UDP packets of 18 bytes between two pods over VXLAN, sent as fast as one thread can \
              and counted where they arrive, with the source filter on both nodes against the \
              same without, in turns. A measurement takes half a second. The result is the median \
              of the ratios.",
        run: filter::filter,
    },
    Row {
        name: "links",
        how: "ADD of a pod with 10 links whose peer exists, divided by 10, while the number of \
              links on the node grows. In turns with the same on a second node that stays small. \
              Then the agent's memory (PSS) and its CPU time at rest, for longer than one of its \
              periods.",
        run: scale::links,
    },
    Row {
        name: "pods",
        how: "ADD of a pod with 10 links whose peer exists, divided by 10, while the number of \
              pods with one link each on the node grows.",
        run: scale::pods,
    },
    Row {
        name: "event",
        how: "A pod waits for its peer. The peer's record is written to etcd, as its node's agent \
              does it. Measured is the time from the answer to that write until the waiting pod's \
              interface is up with its address. In between, the agent claims the link's VNI, a \
              second write to etcd.",
        run: store::event,
    },
    Row {
        name: "cluster",
        how: "Nodes without kernel work: only ratchet_store with a real etcd (without fsync, since \
              only traffic is counted). Each node has 10 pods and 100 links to its neighbours. One \
              node is connected through a counting proxy. It reads what it needs; then a fixed \
              number of its neighbours' pods and one pod of every other node are published again.",
        run: growth::cluster,
    },
];
