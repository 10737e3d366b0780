//! The messages that make the table, and change its elements.

use std::collections::BTreeSet;

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    nftables::{
        ChainAttribute, ChainMessage, DataAttribute, Expressions, Hook, HookNumber, ListAttribute,
        NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute, SetDescription,
        SetElementAttribute, SetElementList, SetElementMessage, SetMessage, TableAttribute,
        TableMessage,
    },
    none::ControlMessage,
};
use sha2::{Digest, Sha256};

use crate::{
    elements::{Element, Set},
    expressions::ACCEPT,
    rules::{Chain, Rule, TABLE, chains},
    table::{Change, Table},
};

/// The subsystem of a batch's header, NFNL_SUBSYS_NFTABLES.
const SUBSYSTEM: u16 = 10;
/// The longest list of elements in one message: a netlink attribute has at most 64 KiB, and an
/// element at most 40 bytes with 12 of headers.
const ELEMENTS: usize = 1000;
/// The type of a rule's user data that `nft` shows as a comment (NFTNL_UDATA_RULE_COMMENT of
/// libnftnl).
const COMMENT: u8 = 0;

/// A message of a transaction, with its flags.
pub(crate) type Part = (NfTablesMessage, u16);

/// What makes the table as it is to be, in place of one that is there.
pub(crate) fn replace(table: &Table) -> Vec<Part> {
    let named = || TableMessage {
        attributes: vec![TableAttribute::Name(TABLE.to_owned())],
    };
    // Only what exists can be deleted.
    let mut parts = vec![
        (NfTablesMessage::NewTable(named()), NLM_F_CREATE),
        (NfTablesMessage::DeleteTable(named()), 0),
    ];
    if table.is_empty() {
        return parts;
    }
    let elements = table.elements();
    parts.push((NfTablesMessage::NewTable(named()), NLM_F_CREATE));
    let size = size_of(&elements);
    parts.extend((1..).zip(Set::ALL).map(|(id, set)| new_set(set, id, size)));
    let chains = chains();
    parts.extend(chains.iter().map(new_chain));
    for chain in &chains {
        parts.extend(chain.rules.iter().map(|rule| new_rule(chain, rule)));
    }
    parts.extend(change(&Change {
        added: elements,
        ..Change::default()
    }));
    parts
}

/// What changes elements.
pub(crate) fn change(change: &Change) -> Vec<Part> {
    let lists = |elements| {
        let of_set = |set| -> Vec<Vec<u8>> {
            let elements: &BTreeSet<Element> = elements;
            let keys = elements.iter().filter(|(of, _)| *of == set);
            keys.map(|(_, key)| key.clone()).collect()
        };
        Set::ALL.map(|set| (set, of_set(set)))
    };
    let mut parts = Vec::new();
    for (set, keys) in lists(&change.removed) {
        let messages = element_lists(set, &keys);
        parts.extend(messages.map(|list| (NfTablesMessage::DeleteSetElement(list), 0)));
    }
    for (set, keys) in lists(&change.added) {
        let messages = element_lists(set, &keys);
        parts.extend(messages.map(|list| (NfTablesMessage::NewSetElement(list), NLM_F_CREATE)));
    }
    parts
}

/// How many elements a set has room for, if the table has these. In a set with a fixed size the
/// kernel finds an element in about half of the time (net/netfilter/nft_set_hash.c: one that may
/// grow is a resizable hash table). A set that is full makes the table be made again.
fn size_of(elements: &BTreeSet<Element>) -> u32 {
    /// 64 KiB a set: the kernel has 4/3 as many lists as elements, rounded up to a power of two.
    const LEAST: usize = 4096;
    let most = Set::ALL.map(|set| elements.iter().filter(|(of, _)| *of == set).count());
    let most = most.into_iter().max().unwrap_or_default();
    u32::try_from(most.saturating_mul(2).max(LEAST)).unwrap_or(u32::MAX)
}

fn new_set(set: Set, id: u32, size: u32) -> Part {
    /// The type of keys that `nft` shows as a number. Only for people.
    const INTEGER: u32 = 4;
    let message = SetMessage {
        attributes: vec![
            SetAttribute::Table(TABLE.to_owned()),
            SetAttribute::Name(set.name().to_owned()),
            SetAttribute::KeyType(INTEGER),
            SetAttribute::KeyLen(u32::try_from(set.key_len()).unwrap_or_default()),
            SetAttribute::Id(id),
            SetAttribute::Description(vec![SetDescription::Size(size)]),
        ],
    };
    (NfTablesMessage::NewSet(message), NLM_F_CREATE)
}

fn new_chain(chain: &Chain) -> Part {
    let mut attributes = vec![
        ChainAttribute::Table(TABLE.to_owned()),
        ChainAttribute::Name(chain.name.to_owned()),
    ];
    if let Some(hook) = chain.hook {
        // NF_IP_PRI_FILTER, include/uapi/linux/netfilter_ipv4.h.
        let hook = vec![Hook::Number(HookNumber::Inet(hook)), Hook::Priority(0)];
        attributes.extend([
            ChainAttribute::Hook(hook),
            ChainAttribute::Policy(ACCEPT),
            ChainAttribute::Type("filter".to_owned()),
        ]);
    }
    let message = ChainMessage { attributes };
    (NfTablesMessage::NewChain(message), NLM_F_CREATE)
}

fn new_rule(chain: &Chain, rule: &Rule) -> Part {
    let expressions = rule.expressions.iter().cloned();
    let message = RuleMessage {
        attributes: vec![
            RuleAttribute::Table(TABLE.to_owned()),
            RuleAttribute::Chain(chain.name.to_owned()),
            RuleAttribute::Expressions(expressions.map(ListAttribute::from).collect()),
            RuleAttribute::UserData(user_data(rule)),
        ],
    };
    let flags = NLM_F_CREATE | NLM_F_APPEND;
    (NfTablesMessage::NewRule(message), flags)
}

/// The comment of a rule: what it is for, and a digest of what it does, by which the rule of
/// another release is told from this one's.
pub(crate) fn user_data(rule: &Rule) -> Vec<u8> {
    let mut digest = Sha256::new();
    for expression in &rule.expressions {
        digest.update(emitted(expression));
    }
    let [a, b, c, d, ..] = <[u8; 32]>::from(digest.finalize());
    let number = u32::from_be_bytes([a, b, c, d]);
    let text = format!("{} [{number:08x}]\0", rule.comment);
    let length = u8::try_from(text.len()).expect("comments are short");
    [&[COMMENT, length], text.as_bytes()].concat()
}

fn emitted(expression: &Expressions) -> Vec<u8> {
    let mut bytes = vec![0; expression.buffer_len()];
    expression.emit(&mut bytes);
    bytes
}

fn element_lists(set: Set, keys: &[Vec<u8>]) -> impl Iterator<Item = SetElementMessage> {
    keys.chunks(ELEMENTS).map(move |keys| SetElementMessage {
        attributes: vec![
            SetElementList::Table(TABLE.to_owned()),
            SetElementList::Set(set.name().to_owned()),
            SetElementList::Elements(keys.iter().map(|key| element(key)).collect()),
        ],
    })
}

fn element(key: &[u8]) -> ListAttribute<SetElementAttribute> {
    let key = DataAttribute::Value(key.to_vec());
    ListAttribute::Element(vec![SetElementAttribute::Key(key)])
}

/// A transaction as one datagram: begin, the parts, end. The kernel answers the last part (or what
/// it refuses), whose sequence number is returned with it.
pub(crate) fn transaction(parts: Vec<Part>, first: u32) -> (Vec<u8>, u32) {
    let mut bytes = Vec::new();
    let mut sequence = first;
    let control = |message| {
        let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM);
        NetfilterMessage::new(header, NetfilterMessageInner::None(message))
    };
    push(&mut bytes, control(ControlMessage::BatchBegin), 0, sequence);
    let count = parts.len();
    for (number, (message, flags)) in (1..).zip(parts) {
        sequence = sequence.wrapping_add(1);
        let ack = if number == count { NLM_F_ACK } else { 0 };
        push(&mut bytes, inet(message), flags | ack, sequence);
    }
    let end = sequence.wrapping_add(1);
    push(&mut bytes, control(ControlMessage::BatchEnd), 0, end);
    (bytes, sequence)
}

/// A message for the family of the table.
pub(crate) fn inet(message: NfTablesMessage) -> NetfilterMessage {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
    NetfilterMessage::new(header, message)
}

/// Appends a message to a datagram.
pub(crate) fn push(bytes: &mut Vec<u8>, message: NetfilterMessage, flags: u16, sequence: u32) {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}
