//! The source filter: whether it lets through what the tunnels need, and only that.

use ratchet_kernel::{FoundFilter, Kernel, KernelError};

use crate::Check;

const NAME: &str = "source filter";

/// Looks. `tunnels` are those that the agent says are up.
pub(crate) fn look(tunnels: Option<usize>) -> Option<Check> {
    judge(Kernel::new().and_then(|kernel| kernel.filter()), tunnels)
}

fn judge(found: Result<FoundFilter, KernelError>, tunnels: Option<usize>) -> Option<Check> {
    let found = match found {
        Ok(found) => found,
        // The check of nftables says so.
        Err(KernelError::Unsupported { .. }) => return None,
        Err(error) => return Some(Check::warn(NAME, error.to_string(), "run this as root")),
    };
    let count = found.passages.len();
    let hint = "the agent corrects this at its next resync; if it comes again, find the program \
                that changes the table `inet ratchet` or flushes all tables (`nft monitor`)";
    Some(match tunnels {
        _ if !found.is_whole => Check::warn(NAME, "its rules were changed", hint),
        Some(tunnels) if count < tunnels => {
            let text =
                format!("it knows {count} of {tunnels} tunnels: the others are not protected");
            Check::warn(NAME, text, hint)
        }
        _ => Check::ok(NAME, format!("it protects {count} tunnels")),
    })
}

#[cfg(test)]
mod tests;
