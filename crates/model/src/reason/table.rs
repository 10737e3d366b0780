//! The table of reasons. To add one, add a row; a test shows the line that docs/reasons.md then
//! needs, and the list of codes in this module's tests gets the new code.
//!
//! A row is: code, variant and its data, what it means, the message, the hint. `said`: texts for
//! people end with the hint. `apart`: the message says enough by itself, and the hint is only in
//! JSON and in the documentation.

use std::net::IpAddr;

use super::{Entry, Group};
use crate::{
    WiringKind,
    link::{Mtu, Vni},
    names::{InterfaceName, LinkId, NodeName, PodKey, SandboxId},
    text::bounded,
    vni_range::VniRange,
};

/// The most bytes of a message: what users wrote may be long.
const MESSAGE: usize = 1000;

reasons! {
    Waiting {
        "peer_unknown" PeerUnknown { pod: PodKey }
            means "The store has no record of the pod at the other end."
            message "pod {pod} is not known yet"
            said "it must be started with ratchet: \"true\" or the annotation ratchet.dev/links";
        "peer_unknown_on_host" PeerUnknownOnHost { pod: PodKey }
            means "The same, with a store that is a file: only pods of this host can be seen."
            message "pod {pod} is not known yet"
            said "it must be started with ratchet: \"true\" or the annotation ratchet.dev/links; \
                  the store is a file of this host, so pods on other machines cannot be seen";
        "peer_gone" PeerGone { pod: PodKey }
            means "The pod at the other end has ended. This end's interface stays as it is."
            message "pod {pod} has gone; waiting for it to come back"
            apart "start the pod again, or remove the link from the declaration";
        "peer_lost" PeerLost { pod: PodKey, sandbox: SandboxId }
            means "The pod at the other end is said to be on this node, where its sandbox is not \
                   known."
            message "pod {pod} was on this node in sandbox {sandbox}, which this agent does not \
                     know; waiting for the pod to be started again"
            apart "start the pod again";
        "name_held" NameHeld { pod: PodKey, owner: String, node: NodeName }
            means "Another pod lives that has the name which this pod says (`ratchet.pod_name`). \
                   This pod's links are made when that pod has gone."
            message "the name {pod} belongs to pod {owner} on node {node}"
            said "end that pod, or give this one a ratchet.pod_name of its own";
        "slot_held" SlotHeld { slot: String, topology: String, owner: String }
            means "A Topology's selector fits this pod and another one, which has the links. This \
                   pod takes them over when the other one is being deleted, or does not run."
            message "pod {owner} is {slot} of Topology {topology}, and this pod's links wait"
            said "end that pod, or give this one other labels";
        "no_consent" NoConsent { pod: PodKey, declarer: PodKey }
            means "The pod at the other end has not consented to the link. Nothing is made of it, \
                   and the other pod notices nothing."
            message "pod {pod} has not consented to this link of pod {declarer}"
            said "declare the link on {pod} too, or let its annotation ratchet.dev/accept name \
                  {declarer} or the namespace";
        "namespace_isolated" NamespaceIsolated { pod: PodKey }
            means "The setting `cross_namespace` of a pod's node is `deny`, and the link leaves \
                   the pod's namespace. Nothing is made of it."
            message "pod {pod} is on a node whose setting cross_namespace denies links between \
                     namespaces"
            apart "ask who runs the node";
        "interface_taken" InterfaceTaken { pod: PodKey, interface: InterfaceName, link: String }
            means "The link claims an interface of the other pod that is another link's. Nothing \
                   is made of it, and the other link stays."
            message "interface {interface} of pod {pod} is that of {link}"
            said "give the link another one";
        "too_many_foreign_links" TooManyForeignLinks { pod: PodKey, limit: usize }
            means "Pods of other namespaces have as many links with the pod as they may. Nothing \
                   is made of this one."
            message "pods of other namespaces have the {limit} links with pod {pod} that they may \
                     have (max_foreign_links)"
            said "declare the link on {pod} too";
        "too_many_devices" TooManyDevices { node: NodeName, limit: usize }
            means "The node has as many devices of links as it may have. What the link has stays; \
                   new devices are made when others have gone."
            message "node {node} has the {limit} devices of links that it may have (max_devices)"
            apart "end other links of the node's pods, or ask who runs the node";
        "underlay_missing" UnderlayMissing { node: NodeName }
            means "The link needs a tunnel, and this node's underlay is not known."
            message "waiting for this node's underlay, on which the tunnel to node {node} starts"
            apart "bring up the parent interface with its address; `ratchet links` says in its \
                   last line what is wrong with the underlay";
        "vni_missing" VniMissing { node: NodeName }
            means "The link needs a tunnel, and the store has not given it a VNI yet."
            message "waiting for a VNI for the tunnel to node {node}"
            apart "wait; if it lasts, `ratchet links` says in its last line whether the store is \
                   offline, and the agent's log whether all VNIs are taken";
    }
    Conflict {
        "interface_reserved" InterfaceReserved { pod: PodKey, interface: InterfaceName }
            means "The link claims the interface of a pod's own network (CNI_IFNAME). Nothing is \
                   made of it."
            message "interface {interface} of pod {pod} is that of the pod's own network"
            said "give the link another one";
        "declarations_contradict" DeclarationsContradict {
            first: PodKey, second: PodKey, what: Box<str>, one: Box<str>, other: Box<str>
        }
            means "Both pods of the link declare it, and differ in a value."
            message "pods {first} and {second} both declare this link and contradict each other: \
                     {what} is {one} on {first} and {other} on {second}"
            said "make them agree or declare it on one pod only";
        "interface_exists" InterfaceExists { interface: String, netns: String }
            means "The pod has an interface of this name that Ratchet did not make."
            message "interface {interface} exists in {netns} and was not made by Ratchet; it \
                     stays untouched"
            said "remove or rename it, or give the link another interface";
        "vni_of_another_link" VniOfAnotherLink { vni: Vni, owner: LinkId }
            means "The link declares a VNI that another link has."
            message "VNI {vni} is asked for, but it is that of link {owner}"
            said "ask for another one or for none";
        "vni_of_another_device" VniOfAnotherDevice { vni: Vni, node: NodeName }
            means "The link declares a VNI that a VXLAN device of one of its nodes has, which is \
                   not Ratchet's."
            message "VNI {vni} is asked for, but another VXLAN device of node {node} has it"
            said "ask for another one or for none";
        "mtu_too_large" MtuTooLarge { mtu: Mtu, node: NodeName, other: NodeName, limit: Mtu }
            means "The link declares an MTU that does not fit into a tunnel between the two nodes."
            message "MTU {mtu} is asked for, but the underlay between nodes {node} and {other} \
                     has room for {limit} in a tunnel"
            said "ask for less or raise the underlay's MTU";
        "parent_address_shared" ParentAddressShared {
            node: NodeName, other: NodeName, address: IpAddr
        }
            means "The two nodes of the link have the same parent address."
            message "nodes {node} and {other} have the same parent address {address}"
            said "give each its own parent_address";
        "parent_address_family" ParentAddressFamily {
            node: NodeName, own: IpAddr, other: NodeName, address: IpAddr
        }
            means "One node has an IPv4 parent address and the other one an IPv6 parent address."
            message "node {node} has the parent address {own} and node {other} has {address}"
            said "both must be IPv4 or both IPv6";
    }
    Declaration {
        "key_misspelled" KeyMisspelled { what: &'static str, nearest: &'static str }
            means "A label, an annotation or a field has a name that is nearly one of Ratchet's."
            message "there is no such {what}"
            said "did you mean {nearest}?";
        "key_unknown" KeyUnknown { what: &'static str, known: String }
            means "A label, an annotation or a field has a name that Ratchet does not know."
            message "there is no such {what}"
            said "the known ones are {known}";
        "key_missing" KeyMissing { given: String }
            means "The pod declares a link with labels, and one of the labels is missing."
            message "is missing"
            said "ratchet.primary is \"true\", so ratchet.local_ifname, ratchet.pair_name and \
                  ratchet.pair_ifname are needed (given: {given})";
        "label_and_annotation_differ" LabelAndAnnotationDiffer {
            value: String, first_key: String, first_value: String
        }
            means "The same key is a label and an annotation, with different values."
            message "is {value:?}, but the {first_key} is {first_value:?}"
            said "make them agree or leave one out";
        "primary_missing" PrimaryMissing {}
            means "The labels name the other end of a link and not which pod declares it."
            message "is given without ratchet.primary"
            said "set ratchet.primary to \"true\" if this pod declares the link, else to \"false\"";
        "primary_invalid" PrimaryInvalid { value: String }
            means "`ratchet.primary` is neither \"true\" nor \"false\"."
            message "is {value:?}"
            said "expected \"true\" on the pod that declares the link, \"false\" on its pair";
        "name_invalid" NameInvalid { error: String }
            means "A pod or an interface has a name that cannot be one."
            message "{error}"
            apart "correct the name";
        "address_invalid" AddressInvalid { text: String }
            means "A label's value is not an address."
            message "{text:?} is not an address"
            said "expected an IPv4 or IPv6 address, with or without a prefix length, such as \
                  192.168.2.100 or 192.168.2.100/24";
        "address_with_prefix_invalid" AddressWithPrefixInvalid { text: String }
            means "A text in `ratchet.dev/links` is not an address, or lacks its prefix length."
            message "{text:?} is not an address"
            said "expected an IPv4 or IPv6 address with its prefix length, such as 10.0.0.1/30 or \
                  fd00::1/64";
        "address_unusable" AddressUnusable { text: String }
            means "An address is unspecified, multicast or loopback."
            message "{text:?} cannot be an interface's address: it is unspecified, multicast or \
                     loopback"
            apart "use another address";
        "route_invalid" RouteInvalid {}
            means "A route's destination is IPv4 and its gateway IPv6, or the reverse."
            message "dst and via must both be IPv4 or both IPv6"
            apart "correct dst or via";
        "links_unreadable" LinksUnreadable { error: String }
            means "The annotation `ratchet.dev/links` is neither YAML nor JSON."
            message "is neither YAML nor JSON: {error}"
            apart "correct the annotation's text";
        "links_no_list" LinksNoList {}
            means "The annotation `ratchet.dev/links` is not a list."
            message "is not a list"
            said "expected a list with one entry a link, such as [{{interface: eth1, peer: \
                  r2/eth1}}]";
        "entry_no_fields" EntryNoFields {}
            means "An entry of `ratchet.dev/links` has no fields."
            message "has no fields"
            said "expected fields such as interface: eth1, peer: r2/eth1";
        "entry_invalid" EntryInvalid { error: String }
            means "An entry of `ratchet.dev/links` lacks a field, or a field's value is wrong."
            message "{error}"
            apart "correct the entry";
        "peer_invalid" PeerInvalid { text: String }
            means "`peer` has more parts than namespace, pod and interface."
            message "{text:?}"
            said "expected pod, pod/interface or namespace/pod/interface";
        "peer_is_itself" PeerIsItself { text: String }
            means "Both ends of a link are the same interface."
            message "{text:?} is this very interface"
            said "a link needs two ends (a link within one pod: name another interface)";
        "pair_is_itself" PairIsItself { text: String }
            means "The labels name the pod itself as the other end."
            message "{text:?} is this pod itself"
            said "name the pod at the other end (for a link between two interfaces of one pod use \
                  the annotation ratchet.dev/links)";
        "interface_claimed_twice" InterfaceClaimedTwice {
            one: String, first: String, second: String
        }
            means "Two links that one pod declares have the same interface."
            message "is claimed by two links, the one between {one} and {first} and the one to \
                     {second}"
            said "give each link an interface of its own";
        "interface_of_network" InterfaceOfNetwork {}
            means "A link claims the interface of the pod's own network (CNI_IFNAME)."
            message "a link claims it, and it is that of the pod's own network (CNI_IFNAME)"
            said "give the link another one";
        "links_too_large" LinksTooLarge { size: String }
            means "The annotation `ratchet.dev/links` is larger than what Ratchet reads."
            message "has {size}"
            said "declare fewer links on this pod";
        "links_nested" LinksNested { depth: usize, line: String }
            means "Lists and objects in `ratchet.dev/links` are nested too deep."
            message "is nested deeper than {depth} levels{line}"
            said "write a list with one flat entry a link";
        "links_with_anchor" LinksWithAnchor { line: String }
            means "The annotation `ratchet.dev/links` has an anchor or alias of YAML."
            message "has an anchor or alias of YAML{line}, the limit is 0"
            said "write each value out";
        "links_twice" LinksTwice { line: String }
            means "The annotation `ratchet.dev/links` has several YAML documents."
            message "has a second YAML document{line}, the limit is 1"
            said "write one list";
        "labels_too_large" LabelsTooLarge { bytes: usize, limit: usize }
            means "The pod's labels and annotations `ratchet.*` are longer than what Ratchet reads."
            message "makes {bytes} bytes of labels and annotations ratchet.*, the limit is {limit}"
            said "write shorter values";
        "too_many_links" TooManyLinks { limit: usize }
            means "The pod declares more links than `max_links` allows."
            message "is one link more than the {limit} that a pod may declare (max_links)"
            said "declare links on their other ends, or raise max_links in the settings";
        "too_many_of_an_end" TooManyOfAnEnd { count: usize, what: &'static str, most: usize }
            means "An end has more addresses or routes than `max_addresses` or `max_routes` allows."
            message "has {count} {what}, the limit for an end is {most} (max_{what})"
            said "write fewer, or raise max_{what} in the settings";
        "vni_not_declarable" VniNotDeclarable { vni: Vni, range: VniRange }
            means "A link declares a VNI outside of `declared_vni_range`."
            message "VNI {vni} cannot be declared, expected one of {range}"
            said "declare another one or none, or set declared_vni_range";
        "accept_invalid" AcceptInvalid { error: String }
            means "The annotation `ratchet.dev/accept` is no list of pods and namespaces."
            message "{error}"
            said "expected none, or a list of own-namespace, *, namespaces and pods \
                  (namespace/pod), such as own-namespace,lab-2,tenant/router";
        "pod_renamed" PodRenamed { from: PodKey, to: PodKey }
            means "`ratchet.pod_name` was changed on a running pod. Its links stay."
            message "a running pod cannot change its name from {from} to {to}"
            apart "change the label back, or start the pod again";
    }
    Kernel {
        "netns_unknown" NetnsUnknown { error: String }
            means "The network namespace of a sandbox is gone, or the agent was not told of it."
            message "{error}"
            apart "start the pod again, if it runs";
        "netns_gone" NetnsGone { error: String }
            means "There is nothing at the path of a sandbox's network namespace."
            message "{error}"
            apart "start the pod again, if it runs";
        "netns_invalid" NetnsInvalid { error: String }
            means "The file at the path of a sandbox's network namespace is something else."
            message "{error}"
            apart "make the mounts of /run/netns reach the agent (HostToContainer propagation)";
        "device_missing" DeviceMissing { error: String }
            means "A device went while the agent worked on it."
            message "{error}"
            apart "wait for the next attempt; find out what deletes Ratchet's interfaces if it \
                   comes again";
        "device_name_taken" DeviceNameTaken { error: String }
            means "Another device has the name that a link's device needs."
            message "{error}"
            apart "rename or remove the other device, or give the link another interface";
        "device_foreign" DeviceForeign { error: String }
            means "A device that is to go is not the one that Ratchet made for the link. It stays."
            message "{error}"
            apart "rename or remove the device, or give the link another interface";
        "vni_in_use" VniInUse { error: String }
            means "A VXLAN device that is not of this link has the link's VNI and UDP port."
            message "{error}"
            apart "remove the other VXLAN device, or move it to another UDP port";
        "kernel_unsupported" KernelUnsupported { error: String }
            means "The kernel lacks a feature."
            message "{error}"
            apart "load the kernel module that the message names; `ratchet doctor` checks the \
                   kernel";
        "kernel_refused" KernelRefused { error: String }
            means "The kernel did not do what it was asked, for the reason in the message."
            message "{error}"
            apart "correct what the message names; the agent tries again by itself";
        "step_skipped" StepSkipped { error: String }
            means "An earlier step for the same link failed."
            message "{error}"
            apart "look for the link's first failure in the agent's log";
    }
    Node {
        "agent_starting" AgentStarting {}
            means "The agent has not looked at the node yet."
            message "the agent is starting"
            apart "wait";
        "node_name_invalid" NodeNameInvalid { error: String }
            means "The host's name cannot be a node's name."
            message "{error}"
            apart "set `node`";
        "underlay_unknown" UnderlayUnknown { error: String }
            means "The parent interface or the parent address was not found. Tunnels that exist \
                   stay, and links within the node go on."
            message "{error}"
            apart "bring up the interface with its address, or correct `parent_interface` and \
                   `parent_address`";
        "store_offline" StoreOffline { error: String }
            means "The store does not answer. Links stay, DELs work, and ADDs fail until it is \
                   back."
            message "store: {error}"
            apart "bring the store back; the agent finds out within 2 s";
        "store_failed" StoreFailed { error: String }
            means "The store refused the last call, or the watch on it broke."
            message "store: {error}"
            apart "correct what the message names: the store, or the settings that lead to it";
        "store_too_large" StoreTooLarge { error: String }
            means "What one pod declares is too large for the store. Other pods go on."
            message "store: {error}"
            apart "declare fewer links on one pod, or raise the limit that the message names";
        "api_offline" ApiOffline { error: String }
            means "The Kubernetes API does not answer or refuses. Pods that are known go on."
            message "{error}"
            apart "bring the API server back, or correct `kubeconfig` and the account's rights";
        "filter_missing" FilterMissing { error: String }
            means "The source filter could not be read or written. Links work, and what is sent to \
                   their tunnels is accepted from any address."
            message "{error}"
            apart "load nf_tables, or use a firewall that accepts tunnels from other nodes only";
    }
    Warning {
        "address_shared" AddressShared { address: IpAddr, ends: String }
            means "Ends of links that meet in a pod have the same address."
            message "address {address} is given to {ends}"
            apart "give each end its own address, unless this is what you want";
        "node_network_owned" NodeNetworkOwned { container: String }
            means "A container of the pod has NET_ADMIN, and the pod has no user namespace of its \
                   own. Such a pod owns the network of its node, with any CNI plugin: it can make \
                   devices there, and so reach links of other pods."
            message "container {container} has NET_ADMIN and the pod has no user namespace of its \
                     own, so it can change the network of the whole node"
            said "set `hostUsers: false` on the pod, or take NET_ADMIN (or `privileged`) from it";
        "foreign_claim_ignored" ForeignClaimIgnored { declarer: PodKey, end: String, what: String }
            means "A pod declares addresses, MAC or routes of an end of another namespace. They \
                   come from that namespace only."
            message "what pod {declarer} declares of the other end, {end}, is ignored: {what}"
            apart "declare it on that pod";
        "wide_claim_ignored" WideClaimIgnored { declarer: PodKey, end: String, what: String }
            means "A pod declares a route or an address of the other end that could take the place \
                   of that pod's own default route."
            message "what pod {declarer} declares of the other end, {end}, is ignored: {what}"
            apart "declare it on that pod; only its own declaration can have routes and prefixes \
                   wider than /8 (IPv4) and /16 (IPv6)";
        "wiring_stays" WiringStays { is: WiringKind, asked: WiringKind }
            means "The link is wired in another way than its declaration or the setting `wiring` \
                   says. A live link stays as it is: the change is made when one of its pods \
                   starts again."
            message "the link stays {is}: it becomes {asked} when one of its pods starts again"
            apart "start a pod of the link again if the change is to be made now";
    }
}
