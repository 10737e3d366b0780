//! What can go wrong with an etcd cluster, told so that a person knows what to do.

use std::error::Error;

use tonic::{Code, Status};

use crate::{HostPort, StoreError};

/// Whether another member may do better.
pub(super) fn is_away(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
    ) && !text(status).contains("certificate")
}

/// Whether what was asked, or the answer to it, is larger than a message may be. etcd says so of a
/// request (`ErrRequestTooLarge`), gRPC of both, in code `OutOfRange` or `ResourceExhausted`.
fn is_too_large(status: &Status) -> bool {
    let message = status.message();
    let is_grpcs = matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted);
    message.contains("request is too large")
        || is_grpcs && (message.contains("too large") || message.contains("larger than max"))
}

/// Whether logging in again may help: the token has expired, the server forgot it, or users were
/// changed.
pub(super) fn is_stale_login(status: &Status) -> bool {
    status.code() == Code::Unauthenticated
        || status.message().contains("revision of auth store is old")
}

/// The error for the outside: which store, which member, what is wrong, what to do.
pub(super) fn explain(url: &str, member: &HostPort, status: &Status) -> StoreError {
    let text = text(status);
    let broken =
        |advice: &str| StoreError::Broken(format!("store {url}: {advice} ({member}: {text})"));
    if text.contains("certificate") {
        return broken(
            "no trust by TLS. Check etcd_ca, which must have signed the server's certificate, the \
            host's name \
                       in it, and etcd_cert and etcd_key if the server asks for them",
        );
    }
    match (status.code(), status.message()) {
        (_, message) if message.contains("invalid user ID or password") => {
            broken("etcd refuses user or password. Check etcd_user and the file etcd_password_file")
        }
        (_, message) if message.contains("user name is empty") => {
            broken("etcd wants a user. Set etcd_user and etcd_password_file")
        }
        (Code::Unauthenticated, _) => {
            broken("etcd does not accept the login. Check etcd_user and etcd_password_file")
        }
        (_, message) if message.contains("authentication is not enabled") => broken(
            "etcd has no users. Remove etcd_user and etcd_password_file, or enable authentication \
             there",
        ),
        (Code::PermissionDenied, _) => broken(
            "the user may not read and write there. Grant it: etcdctl role grant-permission ROLE \
            --prefix=true \
                    readwrite ETCD_PREFIX/",
        ),
        (_, message) if message.contains("space exceeded") => {
            broken("etcd's database is full. Compact and defragment it, then: etcdctl alarm disarm")
        }
        (_, message) if message.contains("too many operations") => {
            broken("etcd refuses so many operations at once. Raise its --max-txn-ops")
        }
        _ if is_too_large(status) => StoreError::TooLarge(format!(
            "store {url}: this is more than one request or answer holds. Declare fewer links on \
             one pod, or raise etcd's --max-request-bytes ({member}: {text})"
        )),
        (Code::Unimplemented | Code::NotFound, _) => {
            broken("this is not an etcd server of version 3.4 or later")
        }
        (Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown, _) => {
            // A server that wants a certificate, or TLS at all, just hangs up on those who come
            // without.
            let tls = match url.starts_with("etcds:") {
                true => "and, if it asks for certificates, etcd_cert and etcd_key",
                false => "and, if it speaks TLS, write etcds:// instead of etcd://",
            };
            StoreError::Unavailable(format!(
                "store {url}: etcd does not answer ({member}: {text}). Check that it runs and can \
                be reached from here \
                 (etcdctl --endpoints={member} endpoint health), {tls}"
            ))
        }
        (Code::OutOfRange, _) => StoreError::Unavailable(format!(
            "store {url}: compacted while it was read; try again ({member}: {text})"
        )),
        _ => broken("etcd refuses what was asked"),
    }
}

fn text(status: &Status) -> String {
    match status.source() {
        Some(source) => chain(source),
        None => status.message().to_owned(),
    }
}

/// An error and all that caused it.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        texts.push(cause.to_string());
        next = cause.source();
    }
    texts.dedup();
    texts.join(": ")
}

/// A watch whose connection broke.
pub(super) fn lost_watch(url: &str, status: &Status) -> StoreError {
    refused_watch(url, &text(status))
}

/// A watch that etcd has ended.
pub(super) fn refused_watch(url: &str, reason: &str) -> StoreError {
    StoreError::Unavailable(format!(
        "store {url}: the watch has ended ({reason}); it begins anew"
    ))
}
