//! Where the I/O loop gets its streams from: accepting peers, and opening a port again.
//!
//! The loop watches [`Source::descriptor`], calls [`Source::wake`] on its events and at [`Source::retry_at`], and then
//! takes streams by [`Source::next`] until there is none. Nothing here waits.
//! Peers for whom the agent has no descriptor left wait in the socket's backlog. They are tried again every
//! [`ACCEPT_INTERVAL`].

use std::{
    io, mem,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::errno::Errno;

use super::{Accepted, Channel, EndOfInput, Listener, Port, Retry};
use crate::util::errno;

/// How often a peer that waits for a descriptor is tried again: no event says that the agent can open one again.
const ACCEPT_INTERVAL: Duration = Duration::from_secs(1);

/// A channel that is being served.
#[derive(Debug)]
pub(crate) enum Source {
    /// Gives one stream a peer.
    Listener(Acceptor),
    /// Gives one stream at a time.
    Port(PortOpener),
}

/// What a source has for the loop.
#[derive(Debug)]
pub(crate) enum Next {
    /// A stream to serve.
    Stream(OwnedFd, EndOfInput),
    /// A peer that is not served. Others have their turn before the next one: watch the descriptor anew.
    Refused,
    /// There is a new descriptor to watch, or none.
    Watch,
    /// Nothing, until the next event.
    Nothing,
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: Listener,
    may_accept: bool,
    failure: Option<AcceptFailure>,
}

/// Peers wait although they could be served.
#[derive(Debug)]
struct AcceptFailure {
    reason: Errno,
    /// When they are tried again. `None` if that waits for a peer to leave.
    retry_at: Option<Instant>,
}

/// A serial port.
#[derive(Debug)]
pub(crate) struct PortOpener {
    port: Port,
    /// Whether a port that is missing or breaks is opened again.
    waits_for_port: bool,
    /// Opened at start, and not served yet.
    opened: Option<OwnedFd>,
    may_open: bool,
    retry: Option<Retry>,
    /// The loop does not watch the descriptor of `retry` yet.
    is_unwatched: bool,
    last_failure: String,
}

impl Source {
    /// Takes over a channel. With `waits_for_port`, a port that is missing or breaks is opened when it appears.
    pub(crate) fn new(channel: Channel, waits_for_port: bool) -> Self {
        match channel {
            Channel::Listener(listener) => Self::Listener(Acceptor { listener, may_accept: false, failure: None }),
            Channel::Port(port, opened) => Self::Port(PortOpener {
                port,
                waits_for_port,
                may_open: opened.is_none(),
                opened,
                retry: None,
                is_unwatched: false,
                last_failure: String::new(),
            }),
        }
    }

    /// What to watch, edge-triggered, for input.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Listener(acceptor) => Some(acceptor.listener.as_fd()),
            Self::Port(opener) => opener.retry.as_ref().and_then(Retry::descriptor),
        }
    }

    /// When to call [`Self::wake`] without an event.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        match self {
            Self::Listener(acceptor) => acceptor.failure.as_ref().and_then(|failure| failure.retry_at),
            Self::Port(opener) => opener.retry.as_ref().and_then(Retry::at),
        }
    }

    /// There may be a stream: after an event, at the time to retry, and when a peer has left.
    pub(crate) fn wake(&mut self) {
        match self {
            Self::Listener(acceptor) => acceptor.wake(),
            Self::Port(opener) => opener.may_open |= opener.retry.is_some(),
        }
    }

    /// The next stream.
    pub(crate) fn next(&mut self) -> Next {
        match self {
            Self::Listener(acceptor) => acceptor.next(),
            Self::Port(opener) => opener.next(),
        }
    }

    /// A stream ended or failed. Tells whether the source is of further use, and logs if not.
    pub(crate) fn lose_stream(&mut self, failure: Option<io::Error>) -> bool {
        match self {
            Self::Listener(acceptor) => {
                if let Some(error) = failure {
                    log::debug!("a peer's connection failed: {error}");
                }
                acceptor.wake();
                true
            }
            Self::Port(opener) => opener.lose_stream(failure),
        }
    }

    /// What the agent does with it, for the administrator.
    pub(crate) fn status(&self) -> String {
        match self {
            Self::Listener(_) => "serving the host".into(),
            Self::Port(PortOpener { port, retry: Some(_), .. }) => {
                format!("waiting for the host's port {}", port.path().display())
            }
            Self::Port(PortOpener { port, .. }) => format!("serving the host on {}", port.path().display()),
        }
    }
}

impl Acceptor {
    fn wake(&mut self) {
        self.may_accept = true;
        if let Some(failure) = &mut self.failure {
            failure.retry_at = None;
        }
    }

    fn next(&mut self) -> Next {
        if !self.may_accept {
            return Next::Nothing;
        }
        let accepted = self.listener.accept();
        let last_failure = self.failure.take().map(|failure| failure.reason);
        match accepted {
            Ok(Accepted::Peer(stream)) => return Next::Stream(stream, EndOfInput::Closes),
            Ok(Accepted::Refused) => return Next::Refused,
            Ok(Accepted::Nobody) => {}
            Err(reason) => {
                self.failure = Some(AcceptFailure { reason, retry_at: Some(Instant::now() + ACCEPT_INTERVAL) });
                if last_failure != Some(reason) {
                    log::error!("failed to accept a peer, which waits: {}", errno::describe(reason));
                }
            }
        }
        self.may_accept = false;
        Next::Nothing
    }
}

impl PortOpener {
    fn next(&mut self) -> Next {
        if let Some(stream) = self.opened.take() {
            return Next::Stream(stream, self.port.end_of_input());
        }
        if mem::take(&mut self.is_unwatched) {
            return Next::Watch;
        }
        if !mem::take(&mut self.may_open) {
            return Next::Nothing;
        }
        self.retry = None;
        match self.port.open() {
            Ok(stream) => {
                self.last_failure.clear();
                Next::Stream(stream, self.port.end_of_input())
            }
            Err(failure) => {
                if self.last_failure != failure {
                    log::warn!("{failure}");
                    log::warn!("waiting for channel path...");
                    self.last_failure = failure;
                }
                self.wait();
                self.next()
            }
        }
    }

    /// A port that just broke is not opened at once: it may break again.
    fn lose_stream(&mut self, failure: Option<io::Error>) -> bool {
        let reason = failure.map_or_else(|| "it ended".into(), |error| error.to_string());
        log::error!("error reading channel '{}': {reason}", self.port.path().display());
        if self.waits_for_port {
            log::warn!("agent stopped unexpectedly, restarting...");
            self.wait();
        }
        self.waits_for_port
    }

    /// Waits until opening the port may succeed.
    fn wait(&mut self) {
        self.retry = Some(Retry::watch(self.port.path()));
        self.is_unwatched = true;
    }
}
