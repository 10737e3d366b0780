//! The rows of the table.

mod calls;
mod frames;
mod growth;
mod many;
mod scale;
mod store;

use anyhow::Result;

use crate::{Bench, line::Line};

/// A row: one or more lines that are measured together.
pub struct Row {
    /// What `ROW=` calls it.
    pub name: &'static str,
    /// What it measures, and how.
    pub how: &'static str,
    /// Measures.
    pub run: fn(&Bench) -> Result<Vec<Line>>,
}

/// All rows, in the order of the table.
pub const ROWS: &[Row] = &[
    Row {
        name: "local",
        how: "Two pods of one node, many links; the first pod is there. Ours: start of the second \
        pod's ADD until every \
              interface is up with its address (the agent's state and store written, aliases set). \
              Theirs: `ip -batch`, \
              born in place, up, one address an end. Then DEL of both pods at once, as when a \
              topology goes, against \
              `ip link del group` of the same devices.",
        run: many::local,
    },
    Row {
        name: "remote",
        how: "The same over two nodes with VXLAN and etcd: until both ends of every link are up \
        with their addresses. \
              Theirs: `ip -batch` on both nodes at once.",
        run: many::remote,
    },
    Row {
        name: "calls",
        how: "Processes from start to exit, the agent running. ADD and DEL of a pod with one link \
        whose peer is there, with \
              a delegate that does nothing; the median of that delegate alone is subtracted. \
              Theirs: Debian's `ptp` with \
              `host-local`.",
        run: calls::calls,
    },
    Row {
        name: "pass-through",
        how: "A pod that is not Ratchet's, ADD and DEL with Debian's `ptp` as the delegate, \
              against `ptp` alone.",
        run: calls::pass_through,
    },
    Row {
        name: "start",
        how: "CNI_COMMAND=VERSION, process start to exit, against Debian's `loopback`.",
        run: calls::start,
    },
    Row {
        name: "frames",
        how: "iperf3 (TCP) and ping between two pods over our veth and our VXLAN, against links of \
        the same kind and MTU \
              made by hand between two other namespaces of the same nodes: four set-ups with four \
              pairs of measurements each, \
              ours and theirs in turns, a second each (iperf3: behind another one that is not \
              counted); \
              the median of the ratios.",
        run: frames::frames,
    },
    Row {
        name: "links",
        how: "ADD of a pod with 10 links whose peer is there, while ever more links are on the \
        node; a link's part of it. In turns with the \
              same on a second node that stays small. Then \
              the agent's memory (PSS) and CPU time at rest, over more than one of its periods.",
        run: scale::links,
    },
    Row {
        name: "pods",
        how: "ADD of a pod with 10 links whose peer is there, while ever more pods with one link \
              each are on the node.",
        run: scale::pods,
    },
    Row {
        name: "event",
        how: "A pod waits for its peer. The peer's record is written to etcd, as its node's agent \
        does; from the answer to that \
              write until the waiting pod's interface is up with its address. The agent claims the \
              link's VNI in between, \
              a second write to etcd.",
        run: store::event,
    },
    Row {
        name: "cluster",
        how: "Nodes without kernel work, by ratchet_store against a real etcd (without fsync, \
        since only traffic is counted): each has \
              10 pods and 100 links to the next node. One node is watched through a counting proxy \
              while it reads and then while \
              a fixed number of its neighbours' pods and one pod of every other node come anew.",
        run: growth::cluster,
    },
];
