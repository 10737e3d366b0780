//! What can go wrong between Ratchet and nftables.

use nix::errno::Errno;

/// Why the filter could not be read or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The kernel has no nftables.
    #[error(
        "cannot {doing}: this kernel has no nftables; try `modprobe nf_tables`, or a kernel with \
         CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET"
    )]
    Unsupported {
        /// What was attempted.
        doing: String,
    },
    /// The kernel said no.
    #[error("cannot {doing}: {}{}", errno.desc(), explained(reason.as_ref()))]
    Refused {
        /// What was attempted.
        doing: String,
        /// The kernel's error.
        errno: Errno,
        /// Why, if the kernel explained it.
        reason: Option<String>,
    },
}

impl FilterError {
    pub(crate) fn new(doing: &str, failure: Failure) -> Self {
        let doing = doing.to_owned();
        let Failure { errno, reason } = failure;
        match errno {
            // No nfnetlink; no nftables in it (net/netfilter/nfnetlink.c, `nfnetlink_rcv_batch` and
            // `nfnetlink_rcv_msg`); no chains of the family inet.
            Errno::EPROTONOSUPPORT | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT => {
                Self::Unsupported { doing }
            }
            Errno::EINVAL if reason.is_none() && !crate::socket::has_nftables() => {
                Self::Unsupported { doing }
            }
            errno => Self::Refused {
                doing,
                errno,
                reason,
            },
        }
    }
}

/// The kernel's refusal of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) errno: Errno,
    pub(crate) reason: Option<String>,
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self {
            errno,
            reason: None,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        error
            .raw_os_error()
            .map_or(Errno::EIO, Errno::from_raw)
            .into()
    }
}

fn explained(reason: Option<&String>) -> String {
    reason.map(|text| format!(" ({text})")).unwrap_or_default()
}
