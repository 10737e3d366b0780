//! Requests about the numbers that namespaces have in one another.

use std::os::fd::RawFd;

use netlink_packet_route::{
    RouteNetlinkMessage as Rtnl,
    nsid::{NsidAttribute, NsidMessage},
};

use crate::socket::Request;

/// Asks which number a namespace has in that of the socket.
pub(crate) fn get_namespace_number(netns: RawFd) -> Request {
    let mut message = NsidMessage::default();
    message.attributes = vec![NsidAttribute::Fd(netns.cast_unsigned())];
    Request {
        message: Rtnl::GetNsId(message),
        flags: 0,
    }
}

/// Gives a namespace any number in that of the socket.
pub(crate) fn number_namespace(netns: RawFd) -> Request {
    let mut message = NsidMessage::default();
    message.attributes = vec![
        NsidAttribute::Fd(netns.cast_unsigned()),
        NsidAttribute::Id(-1),
    ];
    Request {
        message: Rtnl::NewNsId(message),
        flags: 0,
    }
}

/// Dumps the numbers in the namespace that has this number in that of the socket.
pub(crate) fn dump_namespace_numbers(netns: i32) -> Request {
    let mut message = NsidMessage::default();
    message.attributes = vec![NsidAttribute::TargetNsid(netns)];
    Request {
        message: Rtnl::GetNsId(message),
        flags: 0,
    }
}
