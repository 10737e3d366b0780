//! Reads back the table: whether it is as we make it, and the elements of its sets.

use std::collections::BTreeSet;

use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, HookNumber, InetHookNumber, NfTablesMessage, RuleAttribute,
    RuleMessage, SetAttribute, SetElementList, SetElementMessage, SetMessage, TableAttribute,
    TableFlags, TableMessage,
};
use nix::errno::Errno;

use crate::{
    elements::{Element, Set},
    error::Failure,
    expressions::ACCEPT,
    messages::user_data,
    rules::{TABLE, chains},
    socket::{Channel, attributes},
};

/// What is there.
pub(crate) struct Observed {
    pub(crate) is_there: bool,
    /// Whether chains, rules and sets are as we make them.
    pub(crate) is_whole: bool,
    pub(crate) elements: BTreeSet<Element>,
}

pub(crate) fn observe(channel: &mut Channel) -> Result<Observed, Failure> {
    let table = TableMessage { attributes: vec![] };
    let tables = channel.objects(&NfTablesMessage::GetTable(table))?;
    let Some(flags) = tables.iter().find_map(table_flags) else {
        return Ok(Observed {
            is_there: false,
            is_whole: false,
            elements: BTreeSet::new(),
        });
    };
    let is_whole =
        flags.is_empty() && has_chains(channel)? && has_rules(channel)? && has_sets(channel)?;
    let mut elements = BTreeSet::new();
    for set in Set::ALL {
        let keys = keys(channel, set)?;
        elements.extend(keys.into_iter().map(|key| (set, key)));
    }
    Ok(Observed {
        is_there: true,
        is_whole,
        elements,
    })
}

/// The flags of our table.
fn table_flags(message: &NfTablesMessage) -> Option<TableFlags> {
    let NfTablesMessage::NewTable(TableMessage { attributes }) = message else {
        return None;
    };
    let (mut is_ours, mut found) = (false, TableFlags::empty());
    for attribute in attributes {
        match attribute {
            TableAttribute::Name(name) => is_ours = name == TABLE,
            TableAttribute::Flags(flags) => found = *flags,
            _ => {}
        }
    }
    is_ours.then_some(found)
}

fn has_chains(channel: &mut Channel) -> Result<bool, Failure> {
    type Found = (String, Option<(InetHookNumber, u32)>, Option<u32>);
    let request = ChainMessage {
        attributes: vec![ChainAttribute::Table(TABLE.to_owned())],
    };
    let read = |message: NfTablesMessage| -> Option<Found> {
        let NfTablesMessage::NewChain(ChainMessage { attributes }) = message else {
            return None;
        };
        let (mut is_ours, mut found) = (false, (String::new(), None, None));
        for attribute in attributes {
            match attribute {
                ChainAttribute::Table(name) => is_ours = name == TABLE,
                ChainAttribute::Name(name) => found.0 = name,
                ChainAttribute::Hook(hook) => found.1 = hook_of(&hook),
                ChainAttribute::Policy(policy) => found.2 = Some(policy),
                _ => {}
            }
        }
        is_ours.then_some(found)
    };
    let found = channel.objects(&NfTablesMessage::GetChain(request))?;
    let found: Vec<Found> = found.into_iter().filter_map(read).collect();
    let wanted = chains().into_iter().map(|chain| {
        let policy = chain.hook.map(|_| ACCEPT);
        (
            chain.name.to_owned(),
            chain.hook.map(|hook| (hook, 0)),
            policy,
        )
    });
    Ok(same(found, wanted.collect()))
}

fn hook_of(hook: &[Hook]) -> Option<(InetHookNumber, u32)> {
    let number = hook.iter().find_map(|part| match part {
        Hook::Number(HookNumber::Inet(number)) => Some(*number),
        _ => None,
    });
    let priority = hook.iter().find_map(|part| match part {
        Hook::Priority(priority) => Some(*priority),
        _ => None,
    });
    number.zip(priority)
}

/// Whether two lists have the same members, in any order.
fn same<T: PartialEq>(one: Vec<T>, other: Vec<T>) -> bool {
    one.len() == other.len() && one.iter().all(|member| other.contains(member))
}

fn has_rules(channel: &mut Channel) -> Result<bool, Failure> {
    for chain in chains() {
        let request = RuleMessage {
            attributes: vec![
                RuleAttribute::Table(TABLE.to_owned()),
                RuleAttribute::Chain(chain.name.to_owned()),
            ],
        };
        let found = channel.objects(&NfTablesMessage::GetRule(request))?;
        let found = found
            .iter()
            .filter_map(|message| user_data_of(message, chain.name));
        let wanted = chain.rules.iter().map(user_data);
        if !found.eq(wanted) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The user data of a rule of ours, in one chain.
fn user_data_of(message: &NfTablesMessage, chain: &str) -> Option<Vec<u8>> {
    let NfTablesMessage::NewRule(RuleMessage { attributes }) = message else {
        return None;
    };
    let (mut of_table, mut of_chain, mut found) = (false, false, Vec::new());
    for attribute in attributes {
        match attribute {
            RuleAttribute::Table(name) => of_table = name == TABLE,
            RuleAttribute::Chain(name) => of_chain = name == chain,
            RuleAttribute::UserData(bytes) => found.clone_from(bytes),
            _ => {}
        }
    }
    (of_table && of_chain).then_some(found)
}

fn has_sets(channel: &mut Channel) -> Result<bool, Failure> {
    let request = SetMessage {
        attributes: vec![SetAttribute::Table(TABLE.to_owned())],
    };
    let read = |message: NfTablesMessage| {
        let NfTablesMessage::NewSet(SetMessage { attributes }) = message else {
            return None;
        };
        let (mut is_ours, mut found) = (false, (String::new(), 0));
        for attribute in attributes {
            match attribute {
                SetAttribute::Table(name) => is_ours = name == TABLE,
                SetAttribute::Name(name) => found.0 = name,
                SetAttribute::KeyLen(length) => found.1 = length as usize,
                _ => {}
            }
        }
        is_ours.then_some(found)
    };
    let found = channel.objects(&NfTablesMessage::GetSet(request))?;
    let found = found.into_iter().filter_map(read).collect();
    let wanted = Set::ALL.map(|set| (set.name().to_owned(), set.key_len()));
    Ok(same(found, wanted.into()))
}

fn keys(channel: &mut Channel, set: Set) -> Result<Vec<Vec<u8>>, Failure> {
    let request = SetElementMessage {
        attributes: vec![
            SetElementList::Table(TABLE.to_owned()),
            SetElementList::Set(set.name().to_owned()),
        ],
    };
    match channel.dump(&NfTablesMessage::GetSetElement(request), |message| {
        Some(keys_of(message.payload))
    }) {
        Err(failure) if failure.errno == Errno::ENOENT => Ok(Vec::new()),
        found => Ok(found?.into_iter().flatten().collect()),
    }
}

/// Reads the keys of NFT_MSG_NEWSETELEM (include/uapi/linux/netfilter/nf_tables.h).
fn keys_of(payload: &[u8]) -> Vec<Vec<u8>> {
    /// Length of `struct nfgenmsg`.
    const HEADER: usize = 4;
    const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
    const NFTA_LIST_ELEM: u16 = 1;
    const NFTA_SET_ELEM_KEY: u16 = 1;
    const NFTA_DATA_VALUE: u16 = 1;
    fn within(wanted: u16, of: &[u8]) -> impl Iterator<Item = &[u8]> {
        let found = attributes(of).filter(move |(kind, _)| *kind == wanted);
        found.map(|(_, value)| value)
    }
    within(
        NFTA_SET_ELEM_LIST_ELEMENTS,
        payload.get(HEADER..).unwrap_or_default(),
    )
    .flat_map(|list| within(NFTA_LIST_ELEM, list))
    .flat_map(|element| within(NFTA_SET_ELEM_KEY, element))
    .flat_map(|data| within(NFTA_DATA_VALUE, data))
    .map(<[u8]>::to_vec)
    .collect()
}
