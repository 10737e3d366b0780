//! The numbers by which the kernel's objects are known as Ratchet's.

/// The device group (IFLA_GROUP) in which every interface of Ratchet's is created: "Rtch". It marks
/// a device that has no alias yet because its creator died.
pub const GROUP_OURS: u32 = 0x5274_6368;

/// The device group into which devices are put to be deleted with one request: "Rtcx".
pub const GROUP_DOOMED: u32 = 0x5274_6378;

/// The protocol number of Ratchet's addresses (IFA_PROTO, kernel 5.18 and later) and routes
/// (rtm_protocol). It tells them from the pod's own. iproute2's etc/iproute2/rt_protos does not use
/// it.
pub const PROTOCOL_OURS: u8 = 82;
