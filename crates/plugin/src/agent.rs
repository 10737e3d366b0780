//! Asks the node's agent. Every wait has a deadline.
//!
//! [`start`] starts an agent when none answers.

mod start;

use std::{
    io::{self, ErrorKind},
    thread,
    time::{Duration, Instant},
};

use ratchet_cni::Environment;
use ratchet_protocol::{Attach, Client, ClientError, Reply, Request};

use crate::{codes::AgentError, config::Keys};

/// How long it may take to send an Expect.
const EXPECT_TIMEOUT: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(5);
/// How long an agent that ends may still accept calls without answering them: it closes its first
/// connections before its socket.
const ENDING: Duration = Duration::from_secs(1);

/// Whether to start an agent when none answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    OnDemand,
    Never,
}

/// The agent, as one config describes it.
pub(crate) struct Agent<'a> {
    keys: &'a Keys,
    env: &'a Environment,
}

impl<'a> Agent<'a> {
    pub fn new(keys: &'a Keys, env: &'a Environment) -> Self {
        Self { keys, env }
    }

    /// Asks and waits for the answer until the deadline. Starts an agent if it is needed.
    pub fn ask(
        &self,
        request: &Request,
        until: Instant,
        start: Start,
    ) -> Result<Reply, AgentError> {
        self.begin(request, until).finish(start)
    }

    /// Asks. [`Question::finish`] waits for the answer; the caller may work on something else until
    /// then.
    pub fn begin<'r>(&'r self, request: &'r Request, until: Instant) -> Question<'r> {
        Question {
            agent: self,
            request,
            until,
            asked: self.send(request, until),
        }
    }

    fn send(&self, request: &Request, until: Instant) -> Result<Client, ClientError> {
        let left = until
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        Client::ask(self.keys.local.socket(), request, left)
    }

    /// Tells the agent what will be attached, so that it can write it down already. The agent keeps
    /// it as long as the connection is open. Nothing depends on it: an agent that gets no Expect
    /// does all of it with the Attach.
    pub fn expect(&self, attach: &Attach) -> Option<Client> {
        Client::ask(
            self.keys.local.socket(),
            &Request::Expect(attach.clone()),
            EXPECT_TIMEOUT,
        )
        .ok()
    }
}

/// A request that has been sent, or could not be.
pub(crate) struct Question<'a> {
    agent: &'a Agent<'a>,
    request: &'a Request,
    until: Instant,
    asked: Result<Client, ClientError>,
}

impl Question<'_> {
    /// Waits for the answer. Starts an agent if it is needed.
    pub fn finish(self, start: Start) -> Result<Reply, AgentError> {
        let Self {
            agent,
            request,
            until,
            mut asked,
        } = self;
        let (mut may_start, may_repeat) = (
            start == Start::OnDemand,
            !matches!(request, Request::Attach(_)),
        );
        let mut first_hangup = None;
        loop {
            match asked.and_then(Client::answer) {
                Ok(Reply::Error(failure)) => return Err(AgentError::Refused(failure)),
                Ok(reply) => return Ok(reply),
                Err(ClientError::NoAgent { cause, .. }) if may_start && means_no_agent(&cause) => {
                    may_start = !agent
                        .start(until, &cause)
                        .map_err(AgentError::Unreachable)?;
                }
                // The agent has ended: it has died, or another one has taken over. An Attach is not
                // repeated: it may have been done or not, so the caller undoes it.
                Err(ClientError::Broken { cause, .. })
                    if may_repeat
                        && is_hangup(&cause)
                        && first_hangup.get_or_insert_with(Instant::now).elapsed() < ENDING =>
                {
                    thread::sleep(POLL);
                }
                Err(error) => return Err(error.into()),
            }
            asked = agent.send(request, until);
        }
    }
}

/// Whether the error means that no agent runs. Others mean that there may be one, out of reach.
fn means_no_agent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::ConnectionRefused
    )
}

fn is_hangup(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}
