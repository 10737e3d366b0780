//! Requests about joints: a device in the node's namespace passes every frame that it receives on
//! to another one there.
//!
//! A joint is a filter at the ingress of a clsact queueing discipline: a classic BPF program that
//! takes every frame, of any length, and the action mirred that redirects it. Kernels have both as
//! modules since 4.5. `matchall` would say the same in a word, and not every kernel has it.

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage as Rtnl,
    link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute},
    tc::{
        TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption,
        TcActionType, TcAttribute, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcMirror,
        TcMirrorActionType, TcOption,
    },
};

use super::{named, set};
use crate::socket::Request;

/// The filter's number, and its priority among the filters of a device.
const HANDLE: TcHandle = TcHandle { major: 0, minor: 1 };
const PRIORITY: u32 = 1;
/// ETH_P_ALL, include/uapi/linux/if_ether.h.
const ALL_PROTOCOLS: u16 = 3;

/// TCA_BPF_ACT, TCA_BPF_OPS_LEN and TCA_BPF_OPS, include/uapi/linux/pkt_cls.h.
const BPF_ACT: u16 = 1;
const BPF_OPS_LEN: u16 = 4;
const BPF_OPS: u16 = 5;
/// `struct sock_filter` (include/uapi/linux/filter.h): BPF_RET | BPF_K with 0xffffffff, which
/// net/sched/cls_bpf.c takes for a match.
const TAKE_EVERY_FRAME: [u8; 8] = {
    let [a, b] = 6_u16.to_ne_bytes();
    [a, b, 0, 0, 0xff, 0xff, 0xff, 0xff]
};

fn message(index: u32, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = parent;
    message
}

fn filter(index: u32) -> TcMessage {
    let ingress = TcHandle {
        minor: TcHandle::MIN_INGRESS,
        ..TcHandle::CLSACT
    };
    let mut message = message(index, ingress);
    message.header.handle = HANDLE;
    message.header.info = PRIORITY << 16 | u32::from(ALL_PROTOCOLS.to_be());
    message.attributes = vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned())];
    message
}

/// Gives a device the queueing discipline that filters hang on. It is no error if it has one.
pub(crate) fn prepare_joint(index: u32) -> Request {
    let mut message = message(index, TcHandle::CLSACT);
    message.header.handle = TcHandle {
        minor: 0,
        ..TcHandle::CLSACT
    };
    message.attributes = vec![TcAttribute::Kind("clsact".to_owned())];
    Request {
        message: Rtnl::NewQueueDiscipline(message),
        flags: NLM_F_CREATE,
    }
}

/// Has every frame that a device receives leave by another one, in place of what was said before.
pub(crate) fn join(from: u32, to: u32) -> Request {
    let mut message = filter(from);
    let option = |kind, value: Vec<u8>| {
        TcOption::Bpf(TcFilterBpfOption::Other(DefaultNla::new(kind, value)))
    };
    let actions = [redirect(to)];
    let mut action = vec![0; actions.as_slice().buffer_len()];
    actions.as_slice().emit(&mut action);
    message.attributes.push(TcAttribute::Options(vec![
        option(BPF_ACT | NLA_F_NESTED, action),
        option(BPF_OPS_LEN, 1_u16.to_ne_bytes().to_vec()),
        option(BPF_OPS, TAKE_EVERY_FRAME.to_vec()),
    ]));
    Request {
        message: Rtnl::NewTrafficFilter(message),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
    }
}

fn redirect(to: u32) -> TcAction {
    let mut mirror = TcMirror::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = to;
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.to_owned()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(
            mirror,
        ))]),
    ];
    action
}

/// Asks for a device's joint. Answered by one message, or an error if there is none.
pub(crate) fn get_joint(index: u32) -> Request {
    Request {
        message: Rtnl::GetTrafficFilter(filter(index)),
        flags: 0,
    }
}

/// Keeps the kernel from giving a device an IPv6 address, and with it multicast groups and router
/// solicitations. Before the device is up.
pub(crate) fn silence(name: &str) -> Request {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let mode = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]);
    set(named(name, Some(mode)))
}
