//! Failures of an etcd cluster, with what to do about them.

use std::error::Error;

use tonic::{Code, Status};

use crate::{HostPort, StoreError};

/// Whether another member may answer.
pub(super) fn is_offline(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
    ) && !text(status).contains("certificate")
}

/// Whether a request or its answer is larger than a message may be. etcd reports it for requests
/// (`ErrRequestTooLarge`), gRPC for both, with the code `OutOfRange` or `ResourceExhausted`.
fn is_too_large(status: &Status) -> bool {
    let message = status.message();
    let is_grpcs = matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted);
    message.contains("request is too large")
        || is_grpcs && (message.contains("too large") || message.contains("larger than max"))
}

/// Whether a new login may help: the token has expired, the server has lost it, or users were
/// changed.
pub(super) fn is_stale_login(status: &Status) -> bool {
    status.code() == Code::Unauthenticated
        || status.message().contains("revision of auth store is old")
}

/// The error for people: which store, which member, what is wrong, what to do.
pub(super) fn explain(url: &str, member: &HostPort, status: &Status) -> StoreError {
    let text = text(status);
    let broken =
        |advice: &str| StoreError::Broken(format!("store {url}: {advice} ({member}: {text})"));
    if let Some(advice) = advice(status, &text) {
        return broken(advice);
    }
    match status.code() {
        _ if is_too_large(status) => StoreError::TooLarge(format!(
            "store {url}: this is more than one request or answer holds. Declare fewer links on \
             one pod, or raise etcd's --max-request-bytes ({member}: {text})"
        )),
        Code::Unimplemented | Code::NotFound => {
            broken("this is not an etcd server of version 3.4 or later")
        }
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
            // A server that requires TLS, or a certificate, closes connections without it.
            let tls = match url.starts_with("etcds:") {
                true => "and, if it asks for certificates, etcd_cert and etcd_key",
                false => "and, if it speaks TLS, write etcds:// instead of etcd://",
            };
            StoreError::Unavailable(format!(
                "store {url}: etcd does not answer ({member}: {text}). Check that it runs and can \
                 be reached from here (etcdctl --endpoints={member} endpoint health), {tls}"
            ))
        }
        Code::OutOfRange => StoreError::Unavailable(format!(
            "store {url}: compacted while it was read; try again ({member}: {text})"
        )),
        _ => broken("etcd refuses the request"),
    }
}

/// What is wrong and what to do, for a failure that a person must correct.
fn advice(status: &Status, text: &str) -> Option<&'static str> {
    let says = |words: &str| status.message().contains(words);
    Some(match status.code() {
        _ if text.contains("certificate") => {
            "a certificate is not accepted. Check etcd_ca, which must have signed the server's \
             certificate, the host name in that one, and etcd_cert and etcd_key if the server asks \
             for them"
        }
        _ if says("invalid user ID or password") => {
            "etcd refuses user or password. Check etcd_user and the file etcd_password_file"
        }
        _ if says("user name is empty") => {
            "etcd requires a user. Set etcd_user and etcd_password_file"
        }
        Code::Unauthenticated => {
            "etcd does not accept the login. Check etcd_user and etcd_password_file"
        }
        _ if says("authentication is not enabled") => {
            "etcd has no users. Remove etcd_user and etcd_password_file, or enable authentication \
             in etcd"
        }
        Code::PermissionDenied => {
            "the user may not read and write there. Grant it: etcdctl role grant-permission ROLE \
             --prefix=true readwrite ETCD_PREFIX/"
        }
        _ if says("space exceeded") => {
            "etcd's database is full. Compact and defragment it, then: etcdctl alarm disarm"
        }
        _ if says("too many operations") => {
            "etcd refuses so many operations at once. Raise its --max-txn-ops"
        }
        _ => return None,
    })
}

fn text(status: &Status) -> String {
    match status.source() {
        Some(source) => chain(source),
        None => status.message().to_owned(),
    }
}

/// An error and its causes.
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

/// The error of a watch whose connection has broken.
pub(super) fn lost_watch(url: &str, status: &Status) -> StoreError {
    refused_watch(url, &text(status))
}

/// The error of a watch that etcd has ended.
pub(super) fn refused_watch(url: &str, reason: &str) -> StoreError {
    StoreError::Unavailable(format!(
        "store {url}: the watch has ended ({reason}); it starts again"
    ))
}
