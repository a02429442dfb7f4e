//! From a target on the command line to an agent that answers.
//!
//! A connection counts only once the agent has answered a sync: a socket of QEMU's accepts connections whether or not
//! anyone in the guest listens, and the answer has a short deadline of its own, so that a dead agent is noticed at once
//! however long the command itself may take.

use std::{
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use nix::{
    errno::Errno,
    sys::{
        socket::{self, AddressFamily, SockFlag, SockType, SockaddrLike, UnixAddr, VsockAddr, sockopt},
        time::TimeVal,
    },
};
use qga::{
    Client, Command,
    client::{self, GuestFile},
    commands::file::FileOpen,
};

use crate::failure::Failure;

/// How long an agent may take to say anything at all: a healthy one needs milliseconds, a host under load a second.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between two attempts to reach an agent that is waited for.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What the last attempt has in any case.
const LAST_TIMEOUT: Duration = Duration::from_millis(100);

/// Longer than the agent's own deadline for a query, so that its error arrives rather than ours.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the agent is.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Target {
    /// The unix socket behind the VM's serial port
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The agent's vsock address, both parts decimal
    #[arg(long, value_name = "CID:PORT", value_parser = parse_vsock)]
    vsock: Option<(u32, u32)>,
}

/// An agent that has answered, and how long its replies may take.
pub(crate) struct Agent {
    /// The conversation.
    pub(crate) client: Client<UnixStream>,
    /// How long each reply may take.
    pub(crate) reply_timeout: Duration,
}

impl Agent {
    /// Runs a command.
    pub(crate) fn call<C: Command>(&mut self, command: &C) -> Result<C::Reply, Failure> {
        self.client.call(command, Instant::now() + self.reply_timeout).map_err(named::<C>)
    }

    /// Opens a file in the guest.
    pub(crate) fn open(&mut self, path: &str, mode: &str) -> Result<GuestFile<'_, UnixStream>, Failure> {
        GuestFile::open(&mut self.client, path, mode, self.reply_timeout).map_err(named::<FileOpen>)
    }
}

/// Names the command that failed.
pub(crate) fn named<C: Command>(error: client::Error) -> Failure {
    Failure::Command { name: C::SPEC.name.into(), error }
}

impl Target {
    /// Connects, and makes sure that an agent listens.
    pub(crate) fn connect(&self, reply_timeout: Option<Duration>) -> Result<Agent, Failure> {
        let reply_timeout = reply_timeout.unwrap_or(REPLY_TIMEOUT);
        let patience = GREETING_TIMEOUT.min(reply_timeout);
        let stream = self.open(patience).map_err(|error| Failure::NoConnection { target: self.to_string(), error })?;
        let mut client = Client::new(stream);
        client.sync(Instant::now() + patience).map_err(|error| match error {
            client::Error::TimedOut => Failure::Silent { target: self.to_string(), waited: patience },
            error => Failure::Command { name: self.to_string(), error },
        })?;
        Ok(Agent { client, reply_timeout })
    }

    /// Tries to connect until an agent answers. The failure is that of the last attempt.
    pub(crate) fn wait(&self, deadline: Instant) -> Result<Agent, Failure> {
        loop {
            let remaining = deadline.saturating_duration_since(Instant::now());
            match self.connect(Some(remaining.max(LAST_TIMEOUT))) {
                Err(_) if remaining > RETRY_PAUSE => thread::sleep(RETRY_PAUSE),
                result => return result,
            }
        }
    }

    /// The path of the socket, if that is where the agent is.
    pub(crate) fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    fn open(&self, patience: Duration) -> nix::Result<UnixStream> {
        match (&self.socket, self.vsock) {
            (Some(path), _) => open_socket(AddressFamily::Unix, &UnixAddr::new(path)?, patience),
            (None, Some((cid, port))) => open_socket(AddressFamily::Vsock, &VsockAddr::new(cid, port), patience),
            (None, None) => Err(Errno::EDESTADDRREQ),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.socket, self.vsock) {
            (Some(path), _) => write!(formatter, "{}", path.display()),
            (None, Some((cid, port))) => write!(formatter, "vsock {cid}:{port}"),
            (None, None) => Ok(()),
        }
    }
}

/// Connects by a deadline: the standard library's connect waits for ever behind clients that queue for a unix socket.
///
/// The standard library's unix stream does for every stream socket what we need of it, a vsock one included.
fn open_socket(family: AddressFamily, address: &dyn SockaddrLike, patience: Duration) -> nix::Result<UnixStream> {
    let socket: OwnedFd = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let seconds = i64::try_from(patience.as_secs()).unwrap_or(i64::MAX);
    socket::setsockopt(&socket, sockopt::SendTimeout, &TimeVal::new(seconds, patience.subsec_micros().into()))?;
    socket::connect(socket.as_raw_fd(), address)?;
    Ok(socket.into())
}

fn parse_vsock(text: &str) -> Result<(u32, u32), String> {
    let parts = text.split_once(':').and_then(|(cid, port)| Some((cid.parse().ok()?, port.parse().ok()?)));
    parts.ok_or_else(|| "not of the form CID:PORT, two decimal numbers below 2^32".into())
}

#[cfg(test)]
mod tests {
    use super::parse_vsock;

    #[test]
    fn a_vsock_address_is_two_decimal_numbers() {
        assert_eq!(parse_vsock("3:1234"), Ok((3, 1234)));
        assert_eq!(parse_vsock("4294967295:1"), Ok((u32::MAX, 1)));
        for wrong in ["", "3", ":", "3:", ":1", "x:1", "3:0x1", "4294967296:1", "-1:1"] {
            assert!(parse_vsock(wrong).is_err(), "{wrong}");
        }
    }
}
