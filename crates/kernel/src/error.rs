//! What can go wrong between Ratchet and the kernel, in words that name the operation, the device
//! and the namespace. The kernel's error number stays available for callers that decide by it.

use std::path::PathBuf;

use nix::errno::Errno;
use ratchet_model::{
    Reason,
    device::{At, Netns},
    link::Vni,
    names::SandboxId,
};

/// Why something could not be read from the kernel or done to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// Nobody registered this sandbox, or it was forgotten since.
    #[error(
        "sandbox {0}: its network namespace is not known here (never announced, or gone since)"
    )]
    Unregistered(SandboxId),
    /// There is nothing at the path of a network namespace.
    #[error("network namespace {}: it is gone", path.display())]
    NetnsGone {
        /// The path.
        path: PathBuf,
    },
    /// What is at the path is not a network namespace.
    #[error(
        "{}: expected a network namespace, found something else; if this is a file in /run/netns, \
        the namespace was \
         unmounted or its mount does not reach this process (mount /run/netns with HostToContainer \
         propagation)",
        path.display()
    )]
    NotNetns {
        /// The path.
        path: PathBuf,
    },
    /// There is no such device.
    #[error("cannot {doing}: there is no device {at}")]
    NoDevice {
        /// What was attempted.
        doing: String,
        /// The device.
        at: At,
    },
    /// A device cannot come to where it is to be, because another one has its name.
    #[error("cannot {doing}: the name {name} is taken in {netns} by another device")]
    NameTaken {
        /// What was attempted.
        doing: String,
        /// The name.
        name: String,
        /// Where.
        netns: Netns,
    },
    /// A VXLAN device with this identifier and port exists in the node's namespace or was born
    /// there.
    #[error(
        "cannot {doing}: VNI {vni} on UDP port {port} is in use by another VXLAN device of this \
         node"
    )]
    VniTaken {
        /// What was attempted.
        doing: String,
        /// The identifier.
        vni: Vni,
        /// The UDP port.
        port: u16,
    },
    /// The device is not the one that Ratchet made for this link there, and is left alone.
    #[error("will not {doing}: {at} is not the device that Ratchet made there for this link")]
    Foreign {
        /// What was attempted.
        doing: String,
        /// The device.
        at: At,
    },
    /// The kernel lacks a feature.
    #[error(
        "cannot {doing}: this kernel has no {feature}; try `modprobe {module}`, or a kernel with \
         {config}"
    )]
    Unsupported {
        /// What was attempted.
        doing: String,
        /// What is missing.
        feature: &'static str,
        /// The module that brings it.
        module: &'static str,
        /// The kernel's build option for it.
        config: &'static str,
    },
    /// The kernel said no.
    #[error("cannot {doing}: {}{}", errno.desc(), explained(reason.as_ref()))]
    Refused {
        /// What was attempted.
        doing: String,
        /// The kernel's error.
        errno: Errno,
        /// Why, if the kernel explained it (NLMSGERR_ATTR_MSG) or it is known for this operation.
        reason: Option<String>,
    },
    /// Not attempted: an earlier step for the same link and device failed.
    #[error("not done, because an earlier step failed")]
    Skipped,
}

impl KernelError {
    /// The kernel's error number, where one stands behind the error.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::NoDevice { .. } => Some(Errno::ENODEV),
            Self::NameTaken { .. } | Self::VniTaken { .. } => Some(Errno::EEXIST),
            Self::Unsupported { .. } => Some(Errno::EOPNOTSUPP),
            Self::NetnsGone { .. } => Some(Errno::ENOENT),
            Self::Unregistered(_)
            | Self::NotNetns { .. }
            | Self::Foreign { .. }
            | Self::Skipped => None,
        }
    }

    /// Whether the network namespace itself is missing: for an undoing, that is success.
    pub fn is_netns_gone(&self) -> bool {
        matches!(self, Self::Unregistered(_) | Self::NetnsGone { .. })
    }

    /// The same as a reason, for links that it concerns.
    pub fn reason(&self) -> Reason {
        let error = self.to_string();
        match self {
            Self::Unregistered(_) => Reason::NetnsUnknown { error },
            Self::NetnsGone { .. } => Reason::NetnsGone { error },
            Self::NotNetns { .. } => Reason::NetnsInvalid { error },
            Self::NoDevice { .. } => Reason::DeviceMissing { error },
            Self::NameTaken { .. } => Reason::DeviceNameTaken { error },
            Self::VniTaken { .. } => Reason::VniInUse { error },
            Self::Foreign { .. } => Reason::DeviceForeign { error },
            Self::Unsupported { .. } => Reason::KernelUnsupported { error },
            Self::Refused { .. } => Reason::KernelRefused { error },
            Self::Skipped => Reason::StepSkipped { error },
        }
    }

    /// A failed system call.
    pub(crate) fn system(doing: impl Into<String>, errno: Errno) -> Self {
        Self::Refused {
            doing: doing.into(),
            errno,
            reason: None,
        }
    }

    /// The same for an error as the standard library reports it.
    pub(crate) fn io(doing: impl Into<String>, error: &std::io::Error) -> Self {
        Self::system(doing, errno_of(error))
    }
}

/// The error number of an I/O error; EIO when it has none.
pub(crate) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn explained(reason: Option<&String>) -> String {
    reason.map(|text| format!(" ({text})")).unwrap_or_default()
}
