//! The expressions of rules. Each writes or reads registers of 4 bytes from the first on.

use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, Expressions, Immediate, Lookup, Meta, MetaKey, Operator, Payload,
    Register, Verdict, VerdictAttribute,
};

use crate::elements::{Family, Set};

/// NF_DROP and NF_ACCEPT, include/uapi/linux/netfilter.h.
pub(crate) const DROP: u32 = 0;
pub(crate) const ACCEPT: u32 = 1;
/// NFT_PAYLOAD_NETWORK_HEADER and NFT_PAYLOAD_TRANSPORT_HEADER, nf_tables.h.
pub(crate) const NETWORK: u32 = 1;
pub(crate) const TRANSPORT: u32 = 2;
/// Where a VNI is behind the start of the UDP header. A reserved byte follows it.
const VNI_AT: u32 = 12;

/// The n-th 4 bytes of registers.
fn word(number: u32) -> Register {
    const NFT_REG32_00: u32 = 8;
    Register::from(NFT_REG32_00 + number)
}

pub(crate) fn load(base: u32, offset: u32, len: u32, into: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(word(into)),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(len),
    ])
}

/// The VNI, without the reserved byte. The kernel loads 4 aligned bytes without a call, but copies
/// 3 (net/netfilter/nf_tables_core.c, `nft_payload_fast_eval`).
pub(crate) fn vni(into: u32) -> [Expressions; 2] {
    [
        load(TRANSPORT, VNI_AT, 4, into),
        and(into, &[0xff, 0xff, 0xff, 0]),
    ]
}

/// The source.
pub(crate) fn source(family: Family, into: u32) -> Expressions {
    match family {
        Family::V4 => load(NETWORK, 12, 4, into),
        Family::V6 => load(NETWORK, 8, 16, into),
    }
}

/// The destination.
pub(crate) fn destination(family: Family, into: u32) -> Expressions {
    match family {
        Family::V4 => load(NETWORK, 16, 4, into),
        Family::V6 => load(NETWORK, 24, 16, into),
    }
}

pub(crate) fn load_meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(word(0))])
}

pub(crate) fn is(value: &[u8]) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(word(0)),
        Cmp::Op(Operator::Equal),
        Cmp::Data(DataAttribute::Value(value.to_vec())),
    ])
}

/// Masks a register.
pub(crate) fn and(register: u32, mask: &[u8; 4]) -> Expressions {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(word(register)),
        Bitwise::DestinationRegister(word(register)),
        Bitwise::Length(4),
        Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
        Bitwise::Xor(DataAttribute::Value(vec![0; 4])),
    ])
}

pub(crate) fn lookup(set: Set) -> Expressions {
    Expressions::Lookup(vec![
        Lookup::Set(set.name().to_owned()),
        Lookup::SourceRegister(word(0)),
    ])
}

pub(crate) fn verdict(code: u32) -> Expressions {
    immediate(vec![VerdictAttribute::Code(Verdict::Other(code))])
}

pub(crate) fn jump(chain: &str) -> Expressions {
    immediate(vec![
        VerdictAttribute::Code(Verdict::Jump),
        VerdictAttribute::Chain(chain.to_owned()),
    ])
}

fn immediate(verdict: Vec<VerdictAttribute>) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(verdict)),
    ])
}
