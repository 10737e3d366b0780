use netlink_packet_core::Emitable;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use super::*;

fn told(index: u32, part: &str, flags: LinkFlags) -> Vec<u8> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = flags;
    let alias = format!("ratchet link=00000000000000ff end=a config=7 {part}sandbox=s0 mac=00");
    message.attributes = vec![LinkAttribute::IfAlias(alias)];
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

#[test]
fn only_changes_of_node_ends_that_are_up_are_told() {
    let mut known = HashMap::new();
    let link = Some("00000000000000ff".parse().unwrap());
    let (node, up, lower) = ("part=node ", LinkFlags::Up, LinkFlags::LowerUp);
    let mut hear = |part, flags| hear(&mut known, (NEW_LINK, &told(7, part, flags)));
    assert_eq!(hear(node, up | lower), None, "as it is made");
    assert_eq!(hear(node, up), link, "the pod has set its end down");
    assert_eq!(hear(node, up), None, "told already");
    assert_eq!(
        hear(node, LinkFlags::empty()),
        None,
        "set down by the agent"
    );
    assert_eq!(hear(node, up | lower), link, "the pod's end is up again");
    assert_eq!(hear("", up), None, "an interface that waits for its pod");
    assert_eq!(hear("part=tunnel ", up), None, "a tunnel");
    let gone = super::hear(&mut known, (DELETED_LINK, &told(7, node, up)));
    assert_eq!(gone, None);
    assert!(known.is_empty());
}
