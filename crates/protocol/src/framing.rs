//! Messages as lines: one JSON document each, with the protocol number. Both sides use it.

use serde::{Deserialize, Serialize};

use crate::message::{Failure, FailureKind, Reply, Request, SUPPORTED};

/// The longest message in bytes. A pod's annotations have up to 256 KiB (Kubernetes' limit), and a
/// report of 10,000 links has a few MiB.
pub const MAX_MESSAGE: u64 = 64 << 20;

/// A request on the wire.
#[derive(Serialize, Deserialize)]
struct RequestLine {
    protocol: u32,
    #[serde(flatten)]
    request: Request,
}

/// An answer on the wire.
#[derive(Serialize, Deserialize)]
struct ReplyLine {
    protocol: u32,
    reply: Reply,
}

/// Parses a request, for the agent. Returns it with the protocol number to answer in.
///
/// # Errors
/// The failure to answer with.
pub fn parse_request(line: &[u8]) -> Result<(u32, Request), Failure> {
    #[derive(Deserialize)]
    struct Number {
        protocol: u32,
    }
    let wrong =
        |e: serde_json::Error| Failure::new(FailureKind::Protocol, format!("not a request: {e}"));
    let Number { protocol } = serde_json::from_slice(line).map_err(wrong)?;
    if !SUPPORTED.contains(&protocol) {
        let message = format!("protocol {protocol} is asked for, {SUPPORTED:?} are understood");
        return Err(Failure::new(FailureKind::Protocol, message));
    }
    let line: RequestLine = serde_json::from_slice(line).map_err(wrong)?;
    Ok((protocol, line.request))
}

/// Parses an answer, for the client.
///
/// # Errors
/// What is wrong with it.
pub fn parse_reply(line: &[u8]) -> Result<Reply, String> {
    serde_json::from_slice::<ReplyLine>(line)
        .map(|line| line.reply)
        .map_err(|e| e.to_string())
}

impl Reply {
    /// The answer as a line.
    pub fn to_line(&self, protocol: u32) -> Vec<u8> {
        line(&ReplyLine {
            protocol,
            reply: self.clone(),
        })
    }
}

impl Request {
    /// The request as a line.
    pub fn to_line(&self, protocol: u32) -> Vec<u8> {
        line(&RequestLine {
            protocol,
            request: self.clone(),
        })
    }
}

fn line(message: &impl Serialize) -> Vec<u8> {
    // Fails only for maps whose keys are not text. No message has one.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::PROTOCOL;

    #[test]
    fn what_one_side_writes_the_other_reads() {
        let request = Request::Links { watch: true };
        let (protocol, read) = parse_request(&request.to_line(PROTOCOL)).unwrap();
        assert_eq!((protocol, read), (PROTOCOL, request));
        assert_eq!(
            parse_reply(&Reply::Done.to_line(PROTOCOL)).unwrap(),
            Reply::Done
        );
    }

    #[test]
    fn fields_of_a_later_version_are_ignored() {
        let line = br#"{"protocol":1,"request":"links","watch":false,"colour":"blue"}"#;
        assert_eq!(
            parse_request(line).unwrap().1,
            Request::Links { watch: false }
        );
        let line = br#"{"protocol":1,"reply":{"error":{"kind":"of_a_later_version","message":"m",
            "hint":"h"}},"x":1}"#;
        let Reply::Error(failure) = parse_reply(line).unwrap() else {
            panic!()
        };
        assert_eq!(failure.kind, FailureKind::Internal);
    }

    #[test]
    fn the_answer_to_another_protocol_names_those_that_are_understood() {
        let failure = parse_request(br#"{"protocol":999,"request":"hello"}"#).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Protocol);
        assert_eq!(
            failure.message,
            "protocol 999 is asked for, [1] are understood"
        );
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200),
        text in ".{0,200}") {
            for input in [bytes.as_slice(), text.as_bytes(), format!(r#"{{"protocol":1,
                {text}"#).as_bytes()] {
                if let Err(failure) = parse_request(input) {
                    prop_assert_eq!(failure.kind, FailureKind::Protocol);
                }
                let _ = parse_reply(input);
            }
        }
    }
}
