//! The host's side of a conversation, with any agent that speaks the protocol.
//!
//! A [`Client`] owns a byte stream, typically the unix socket behind a VM's serial port, and carries out one command
//! at a time, each with a deadline. Lines left over from an earlier peer never reach a caller: a sync precedes the
//! first command, and the first one after a timeout.
//! The guest may be hostile, so a reply is bounded by [`MAX_REPLY_BYTES`], and by [`MAX_FACTS_BYTES`] where it carries
//! no file and no output of a program.
//! A command whose success is silent has succeeded when no failure arrives within [`SILENCE`], or when the stream ends:
//! the guest may be gone. A command that waits in the agent can be sent without waiting for its reply
//! ([`Client::send`]), so that another one can end its wait.
//! Reconnecting is the caller's task: only the caller knows where the stream came from.

mod error;
mod exec;
mod file;
mod job;
mod transport;
mod vsock_mux;

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use memchr::memrchr;
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};

use crate::{
    command::{Class, Command},
    commands::{
        SPECS,
        session::{Sync, SyncDelimited},
    },
    wire::{json, message::SENTINEL},
};

pub use self::{
    error::Error,
    exec::Ended,
    file::GuestFile,
    job::{Accepted, JobEnd, JobReader, JobWriter, Output},
    transport::{Limits, Transport},
    vsock_mux::connect_vsock_mux,
};

use self::transport::Lines;

/// Longest reply line: a 48 MiB file read is 64 MiB of base64, and no reply of the protocol is larger.
pub const MAX_REPLY_BYTES: usize = 80 * 1024 * 1024;

/// Longest reply line of a command that neither is about files nor runs programs. A fact takes a few hundred bytes, so
/// this is tens of thousands of them. Parsed, they may take thirty times as much memory.
pub const MAX_FACTS_BYTES: usize = 16 * 1024 * 1024;

/// How long a failure of a command is awaited whose success is silent. An agent that cannot end or suspend its guest
/// says so at once. The next command skips a failure that comes later.
pub const SILENCE: Duration = Duration::from_secs(5);

type Result<T> = std::result::Result<T, Error>;

/// A conversation with an agent over a byte stream.
#[derive(Debug)]
pub struct Client<T> {
    lines: Lines<T>,
    /// Whether the next lines from the agent can only be replies: first those to requests without one, in their order,
    /// and then that to the next request.
    in_step: bool,
    /// How many requests have no reply yet.
    unanswered: usize,
    next_sync_id: i64,
}

impl<T: Transport> Client<T> {
    /// Begins a conversation; nothing is sent yet.
    pub fn new(transport: T) -> Self {
        // Ids must differ from those of earlier clients of the same channel, and stay exact as floating point numbers.
        let random = RandomState::new().hash_one(std::process::id()) >> 12;
        let next_sync_id = i64::try_from(random).unwrap_or(1);
        Self { lines: Lines::new(transport), in_step: false, unanswered: 0, next_sync_id }
    }

    /// Runs a command and returns its reply; that of a silent command once it seems to have succeeded.
    ///
    /// # Errors
    /// When the agent refuses the command, the deadline passes or the stream breaks.
    pub fn call<C: Command>(&mut self, command: &C, deadline: Instant) -> Result<C::Reply> {
        self.exchange(C::SPEC.name, command, deadline)
    }

    /// Runs a command by its name, also one this library does not know.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn call_raw(
        &mut self,
        command: &str,
        arguments: &serde_json::Map<String, serde_json::Value>,
        deadline: Instant,
    ) -> Result<serde_json::Value> {
        self.exchange(command, arguments, deadline)
    }

    /// Runs a command by its name, and reads its reply as whatever the caller asks for, for instance as raw text.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn call_as<R: DeserializeOwned>(
        &mut self,
        command: &str,
        arguments: &serde_json::Map<String, serde_json::Value>,
        deadline: Instant,
    ) -> Result<R> {
        self.exchange(command, arguments, deadline)
    }

    /// Sends a command, and leaves its reply to [`Self::receive`] or [`Self::try_receive`]. Several commands may be
    /// sent before; the agent carries them out one after the other, and the replies come in that order.
    ///
    /// After a failure that is no refusal, here or there, none of the outstanding replies comes any more. The other
    /// functions of a client drop them, too. A command whose success is silent has no reply, and is not for this.
    ///
    /// # Errors
    /// When the deadline passes or the stream breaks.
    pub fn send<C: Command>(&mut self, command: &C, deadline: Instant) -> Result<()> {
        self.post(C::SPEC.name, command, deadline)
    }

    /// The reply to the earliest command that was sent and has none. The caller knows which command that is.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn receive<C: Command>(&mut self, deadline: Instant) -> Result<C::Reply> {
        let line = self.lines.receive(longest_reply(C::SPEC.name), deadline);
        self.read_reply(line)
    }

    /// Whether the next reply is here already, as a whole, so that nothing announces it on the stream any more.
    pub fn has_reply(&self) -> bool {
        self.lines.has_line()
    }

    /// As [`Self::receive`], but `None` if the reply is not there as a whole. Reads once from the stream, at most, and
    /// does not wait: callers wait until there is something to read.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn try_receive<C: Command>(&mut self) -> Result<Option<C::Reply>> {
        match self.lines.try_receive(longest_reply(C::SPEC.name)) {
            Ok(None) => Ok(None),
            Ok(Some(line)) => self.read_reply(Ok(line)).map(Some),
            Err(error) => self.read_reply(Err(error)),
        }
    }

    /// Synchronizes the conversation: the agent forgets half a message, and stale replies are skipped.
    ///
    /// Callers need it only to find out whether an agent listens: every call does it when it must.
    ///
    /// # Errors
    /// When the deadline passes or the stream breaks.
    pub fn sync(&mut self, deadline: Instant) -> Result<()> {
        self.drop_replies();
        let id = self.new_sync_id();
        let mut request = vec![SENTINEL];
        request.extend(encode_request(SyncDelimited::SPEC.name, &SyncDelimited { id }));
        self.lines.send(&request, deadline)?;
        loop {
            self.lines.skip_past(SENTINEL, deadline)?;
            if is_sync_reply(&self.lines.receive(MAX_REPLY_BYTES, deadline)?, id) {
                self.in_step = true;
                return Ok(());
            }
        }
    }

    /// Synchronizes the conversation without the byte 0xFF, for a channel that only carries text.
    ///
    /// Half a message that an earlier peer left with the agent swallows this one; callers then try once more.
    ///
    /// # Errors
    /// When the deadline passes or the stream breaks.
    pub fn sync_undelimited(&mut self, deadline: Instant) -> Result<()> {
        self.drop_replies();
        let id = self.new_sync_id();
        self.lines.send(&encode_request(Sync::SPEC.name, &Sync { id }), deadline)?;
        while !is_sync_reply(&self.lines.receive(MAX_REPLY_BYTES, deadline)?, id) {}
        self.in_step = true;
        Ok(())
    }

    /// Waits until the stream ends, as it does when the guest shuts down or reboots.
    ///
    /// # Errors
    /// When a failure of an earlier command comes first, or the deadline passes.
    pub fn wait_for_end(&mut self, deadline: Instant) -> Result<()> {
        self.drop_replies();
        loop {
            let line = match self.lines.receive(MAX_REPLY_BYTES, deadline) {
                Ok(line) => line,
                Err(Error::Closed) => return Ok(()),
                Err(error) => return Err(error),
            };
            let reply = serde_json::from_slice::<Reply<IgnoredAny>>(&line);
            if let Ok(Reply { failure: Some(Failure { class, desc }), .. }) = reply {
                return Err(Error::Refused { class, desc });
            }
        }
    }

    /// The largest messages that the stream carries.
    pub fn limits(&self) -> Limits {
        self.lines.limits()
    }

    /// The stream below, for instance to close one half of it.
    pub fn transport(&mut self) -> &mut T {
        self.lines.transport()
    }

    fn exchange<A: Serialize + ?Sized, R: DeserializeOwned>(
        &mut self,
        command: &str,
        arguments: &A,
        deadline: Instant,
    ) -> Result<R> {
        if self.unanswered > 0 {
            self.drop_replies();
        }
        self.post(command, arguments, deadline)?;
        let longest = longest_reply(command);
        let is_silent = SPECS.iter().any(|spec| spec.name == command && spec.silent);
        let line = match is_silent {
            false => self.lines.receive(longest, deadline),
            true => match self.lines.receive(longest, deadline.min(Instant::now() + SILENCE)) {
                // What comes later is skipped by the next command's sync.
                Err(Error::TimedOut | Error::Closed) => {
                    self.drop_replies();
                    return read_nothing();
                }
                line => line,
            },
        };
        self.read_reply(line)
    }

    fn post<A: Serialize + ?Sized>(&mut self, command: &str, arguments: &A, deadline: Instant) -> Result<()> {
        if !self.in_step {
            self.sync(deadline)?;
        }
        // Half a request may be all that the agent gets.
        self.in_step = false;
        self.lines.send(&encode_request(command, arguments), deadline)?;
        self.in_step = true;
        self.unanswered += 1;
        Ok(())
    }

    /// The result that a line from the agent tells. Without a line that is one, the replies to come are dropped.
    fn read_reply<R: DeserializeOwned>(&mut self, line: Result<Vec<u8>>) -> Result<R> {
        let result = line.and_then(|line| parse_reply(&line));
        match result {
            Ok(_) | Err(Error::Refused { .. }) => self.unanswered = self.unanswered.saturating_sub(1),
            Err(_) => self.drop_replies(),
        }
        result
    }

    /// What comes next is skipped up to the reply of the next sync.
    fn drop_replies(&mut self) {
        self.in_step = false;
        self.unanswered = 0;
    }

    fn new_sync_id(&mut self) -> i64 {
        self.next_sync_id += 1;
        self.next_sync_id
    }
}

/// Most bytes of a reply to a command.
fn longest_reply(command: &str) -> usize {
    match SPECS.iter().find(|spec| spec.name == command).map(|spec| spec.class) {
        Some(Class::File | Class::Exec) | None => MAX_REPLY_BYTES,
        Some(_) => MAX_FACTS_BYTES,
    }
}

fn parse_reply<R: DeserializeOwned>(line: &[u8]) -> Result<R> {
    let reply: Reply<R> =
        serde_json::from_slice(line).map_err(|error| Error::Garbled(format!("{error}: {}", Error::quote(line))))?;
    match (reply.success, reply.failure) {
        (Some(value), None) => Ok(value),
        (None, Some(Failure { class, desc })) => Err(Error::Refused { class, desc }),
        _ => Err(Error::Garbled(format!("neither a result nor an error: {}", Error::quote(line)))),
    }
}

/// What a silent success would have returned.
fn read_nothing<R: DeserializeOwned>() -> Result<R> {
    serde_json::from_str("{}").map_err(|error| Error::Garbled(error.to_string()))
}

fn encode_request<A: Serialize + ?Sized>(command: &str, arguments: &A) -> Vec<u8> {
    #[derive(Serialize)]
    struct Request<'a, A: ?Sized> {
        execute: &'a str,
        arguments: &'a A,
    }
    let mut line = json::to_vec(&Request { execute: command, arguments });
    line.push(b'\n');
    line
}

/// What a line from the agent says. Members this library does not know are ignored.
#[derive(Deserialize)]
struct Reply<R> {
    #[serde(rename = "return")]
    success: Option<R>,
    #[serde(rename = "error")]
    failure: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    class: String,
    #[serde(default)]
    desc: String,
}

fn is_sync_reply(line: &[u8], id: i64) -> bool {
    // An agent that was killed within a line leaves its beginning, so that the next one's sentinel is inside a line.
    let line = memrchr(SENTINEL, line).map_or(line, |sentinel| &line[sentinel + 1..]);
    serde_json::from_slice(line).is_ok_and(|reply: Reply<i64>| reply.success == Some(id))
}
