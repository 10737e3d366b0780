//! The part of etcd's gRPC API that the store speaks, by hand: some two dozen messages, the same
//! since etcd 3.4.
//!
//! Names and numbers are those of `etcdserverpb/rpc.proto` and `mvccpb/kv.proto`. Written out here
//! since every crate that generates them asks for the protobuf compiler whenever Ratchet is built.

/// `mvccpb.KeyValue`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    #[prost(bytes = "vec", tag = "5")]
    pub value: Vec<u8>,
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

/// `ResponseHeader`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Header {
    #[prost(int64, tag = "3")]
    pub revision: i64,
}

/// `RangeRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Range {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub limit: i64,
    #[prost(int64, tag = "4")]
    pub revision: i64,
    #[prost(bool, tag = "8")]
    pub keys_only: bool,
    #[prost(bool, tag = "9")]
    pub count_only: bool,
}

/// `RangeResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RangeResult {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    #[prost(bool, tag = "3")]
    pub more: bool,
    #[prost(int64, tag = "4")]
    pub count: i64,
}

/// `PutRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Put {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub lease: i64,
    /// The key, which must be there, keeps its value.
    #[prost(bool, tag = "5")]
    pub ignore_value: bool,
}

/// `DeleteRangeRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Delete {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
}

/// What stands in an answer where nobody looks.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Ignored {}

/// `RequestOp`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Op {
    #[prost(oneof = "OpKind", tags = "1, 2, 3")]
    pub kind: Option<OpKind>,
}

/// `RequestOp.request`.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum OpKind {
    #[prost(message, tag = "1")]
    Range(Range),
    #[prost(message, tag = "2")]
    Put(Put),
    #[prost(message, tag = "3")]
    Delete(Delete),
}

impl From<OpKind> for Op {
    fn from(kind: OpKind) -> Self {
        Self { kind: Some(kind) }
    }
}

impl Op {
    /// Writes a key.
    pub(super) fn put(key: String, value: Vec<u8>) -> Self {
        OpKind::Put(Put {
            key: key.into_bytes(),
            value,
            ..Put::default()
        })
        .into()
    }

    /// Writes a key, which must be there, as it is: those who watch it hear of that.
    pub(super) fn touch(key: String) -> Self {
        OpKind::Put(Put {
            key: key.into_bytes(),
            ignore_value: true,
            ..Put::default()
        })
        .into()
    }

    /// Deletes a key.
    pub(super) fn delete(key: String) -> Self {
        OpKind::Delete(Delete {
            key: key.into_bytes(),
        })
        .into()
    }
}

/// `ResponseOp`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OpResult {
    #[prost(oneof = "OpResultKind", tags = "1, 2, 3")]
    pub kind: Option<OpResultKind>,
}

/// `ResponseOp.response`.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum OpResultKind {
    #[prost(message, tag = "1")]
    Range(RangeResult),
    #[prost(message, tag = "2")]
    Put(Ignored),
    #[prost(message, tag = "3")]
    Delete(Ignored),
}

/// `Compare`, always of `mod_revision`: the key's, or that of every key up to `range_end`. An
/// absent key has 0.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Compare {
    #[prost(enumeration = "Relation", tag = "1")]
    pub relation: i32,
    /// `Compare.CompareTarget`, always [`MOD`].
    #[prost(int32, tag = "2")]
    pub target: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    /// One of a oneof of five, hence written even when it is 0.
    #[prost(int64, optional, tag = "6")]
    pub mod_revision: Option<i64>,
    #[prost(bytes = "vec", tag = "64")]
    pub range_end: Vec<u8>,
}

impl Compare {
    /// The condition that a key still has this revision.
    pub(super) fn unchanged(key: String, revision: i64) -> Self {
        Self {
            relation: Relation::Equal.into(),
            target: MOD,
            key: key.into_bytes(),
            mod_revision: Some(revision),
            range_end: Vec::new(),
        }
    }

    /// The condition that there is no such key.
    pub(super) fn absent(key: String) -> Self {
        Self::unchanged(key, 0)
    }
}

/// `Compare.CompareTarget.MOD`.
const MOD: i32 = 2;

/// `Compare.CompareResult`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Relation {
    Equal = 0,
    Greater = 1,
    Less = 2,
}

/// `TxnRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Txn {
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<Op>,
}

/// `TxnResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TxnResult {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    pub responses: Vec<OpResult>,
}

/// `WatchRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WatchRequest {
    #[prost(oneof = "WatchAction", tags = "1, 2")]
    pub action: Option<WatchAction>,
}

/// `WatchRequest.request_union`.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum WatchAction {
    #[prost(message, tag = "1")]
    Create(WatchCreate),
    #[prost(message, tag = "2")]
    Cancel(WatchCancel),
}

/// `WatchCreateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WatchCreate {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub start_revision: i64,
    #[prost(int64, tag = "7")]
    pub watch_id: i64,
}

/// `WatchCancelRequest`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct WatchCancel {
    #[prost(int64, tag = "1")]
    pub watch_id: i64,
}

/// `WatchResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WatchNews {
    #[prost(int64, tag = "2")]
    pub watch_id: i64,
    #[prost(bool, tag = "3")]
    pub created: bool,
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    #[prost(int64, tag = "5")]
    pub compact_revision: i64,
    #[prost(string, tag = "6")]
    pub cancel_reason: String,
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Ignored>,
}

/// `AuthenticateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Authenticate {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub password: String,
}

/// `AuthenticateResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Authenticated {
    #[prost(string, tag = "2")]
    pub token: String,
}

/// `LeaseGrantRequest`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Grant {
    /// Seconds.
    #[prost(int64, tag = "1")]
    pub ttl: i64,
}

/// `LeaseGrantResponse`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Granted {
    #[prost(int64, tag = "2")]
    pub id: i64,
}

/// `LeaseRevokeRequest`, and `LeaseKeepAliveRequest`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Lease {
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// `LeaseKeepAliveResponse`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct KeptAlive {
    /// Seconds; 0: there is no such lease any more.
    #[prost(int64, tag = "3")]
    pub ttl: i64,
}
