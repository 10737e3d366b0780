//! A cluster in simulation: the engines of several nodes over a simulated kernel and a store in
//! memory. It needs no root and does not wait, and the same seed gives the same history.
//!
//! * [`generate::history`] makes a random history from a seed; [`history::History::run`] runs it;
//!   [`campaign::Campaign`] runs many on all cores, and shrinks the first that fails.
//! * In every fourth history there are [`hostile`] authors in a second namespace. In every third
//!   one a pod's root is a [`forger`].
//! * [`cluster::Cluster`] has what is true: which sandboxes there are and what their pods declare.
//!   It plays the container runtime and the Kubernetes API, and applies the events and the faults.
//! * [`network::Network`] has the namespaces and devices of all nodes and can say who receives a
//!   frame. [`network::SimulatedKernel`] is one node's view of it.
//! * [`store::Shared`] is the store. It passes the contract's tests (`tests/contract.rs`).
//! * [`agent::Agent`] is the only place that knows the engine's interface.
//! * The [`oracle`] may not ask the engine, the planner or the model which links must be up.
//!
//! After every kernel step of every agent a frame is sent from each end; it may arrive at the other
//! end of its link only. Everything else is checked when the cluster has settled: faults are over,
//! and no agent has anything to do.
//!
//! # What the oracle lets pass
//!
//! A store that has lost everything knows nothing of the tunnels that exist, and may give a VNI to
//! another link before the nodes that have it have claimed it again. Frames that go astray by such
//! a tunnel are counted ([`oracle::frames`]).

pub mod agent;
pub mod campaign;
pub mod clock;
pub mod cluster;
pub mod declaration;
pub mod disk;
pub mod event;
pub mod forger;
pub mod generate;
pub mod history;
pub mod hostile;
pub mod network;
pub mod oracle;
pub mod points;
pub mod random;
pub mod store;
