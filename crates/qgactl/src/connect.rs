//! From a target on the command line to an agent that answers.
//!
//! A connection counts only once the agent has answered a sync: QEMU's socket accepts connections whether or not anyone
//! in the guest listens. That answer has a short timeout of its own, so that a dead agent is noticed at once however
//! long the command itself may take.
//! How long a reply may take is decided here for all subcommands: what the user says, or else what the command's own
//! [`qga::Spec`] allows the agent, and [`MARGIN`].

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
    client::{self, GuestFile, JobReader, JobWriter},
    command::QUERY_TIMEOUT,
    commands::{SPECS, file::FileOpen, job::JobStart},
};
use serde_json::{Map, Value, value::RawValue};

use crate::failure::Failure;

/// How long an agent may take to say anything at all: a healthy one needs milliseconds, a host under load a second.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between two attempts to reach an agent that is waited for.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Least timeout of the last attempt.
const LAST_TIMEOUT: Duration = Duration::from_millis(100);

/// What is waited beyond the agent's own timeout, so that its error arrives rather than ours: a busy host delays both.
const MARGIN: Duration = Duration::from_secs(15);

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

/// An agent that has answered.
pub(crate) struct Agent {
    /// The conversation.
    pub(crate) client: Client<UnixStream>,
    /// How long each reply may take, if the user says so.
    timeout: Option<Duration>,
}

impl Agent {
    /// Runs a command.
    pub(crate) fn call<C: Command>(&mut self, command: &C) -> Result<C::Reply, Failure> {
        let deadline = Instant::now() + self.reply_timeout::<C>();
        self.call_until(command, deadline)
    }

    /// Runs a command whose reply has this deadline.
    pub(crate) fn call_until<C: Command>(&mut self, command: &C, deadline: Instant) -> Result<C::Reply, Failure> {
        self.client.call(command, deadline).map_err(named::<C>)
    }

    /// Runs a command by its name, which qgactl need not know, and returns the text of its reply.
    pub(crate) fn call_by_name(
        &mut self,
        name: &str,
        arguments: &Map<String, Value>,
    ) -> Result<Box<RawValue>, Failure> {
        let known = SPECS.iter().find(|spec| spec.name == name);
        let timeout = self.reply_timeout_of(known.map_or(QUERY_TIMEOUT, |spec| spec.timeout));
        let reply = self.client.call_as(name, arguments, Instant::now() + timeout);
        reply.map_err(|error| Failure::Command { name: name.into(), error })
    }

    /// Opens a file in the guest.
    pub(crate) fn open(&mut self, path: &str, mode: &str) -> Result<GuestFile<'_, UnixStream>, Failure> {
        let timeout = self.reply_timeout::<FileOpen>();
        GuestFile::open(&mut self.client, path, mode, timeout).map_err(named::<FileOpen>)
    }

    /// Starts a job.
    pub(crate) fn start_job(&mut self, job: &JobStart) -> Result<(JobReader, JobWriter), Failure> {
        let deadline = Instant::now() + self.reply_timeout::<JobStart>();
        self.client.start_job(job, deadline).map_err(named::<JobStart>)
    }

    /// How long the reply to a command may take.
    pub(crate) fn reply_timeout<C: Command>(&self) -> Duration {
        self.reply_timeout_of(C::SPEC.timeout)
    }

    fn reply_timeout_of(&self, agents_own: Duration) -> Duration {
        self.timeout.unwrap_or(agents_own + MARGIN)
    }
}

/// Names the command that failed.
pub(crate) fn named<C: Command>(error: client::Error) -> Failure {
    Failure::Command { name: C::SPEC.name.into(), error }
}

impl Target {
    /// Connects, and makes sure that an agent listens. Each reply may take `timeout`, or what its command's spec says.
    pub(crate) fn connect(&self, timeout: Option<Duration>) -> Result<Agent, Failure> {
        let greeting_timeout = timeout.map_or(GREETING_TIMEOUT, |timeout| timeout.min(GREETING_TIMEOUT));
        let stream =
            self.open(greeting_timeout).map_err(|error| Failure::NoConnection { target: self.to_string(), error })?;
        let mut client = Client::new(stream);
        client.sync(Instant::now() + greeting_timeout).map_err(|error| match error {
            client::Error::TimedOut => Failure::Silent { target: self.to_string(), waited: greeting_timeout },
            error => Failure::Command { name: self.to_string(), error },
        })?;
        Ok(Agent { client, timeout })
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

    fn open(&self, timeout: Duration) -> nix::Result<UnixStream> {
        match (&self.socket, self.vsock) {
            (Some(path), _) => open_socket(AddressFamily::Unix, &UnixAddr::new(path)?, timeout),
            (None, Some((cid, port))) => open_socket(AddressFamily::Vsock, &VsockAddr::new(cid, port), timeout),
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

/// Connects with a timeout: the standard library's connect blocks while other clients queue for a unix socket.
///
/// The standard library's unix stream also serves other stream sockets, such as vsock, for what is needed here.
fn open_socket(family: AddressFamily, address: &dyn SockaddrLike, timeout: Duration) -> nix::Result<UnixStream> {
    let socket: OwnedFd = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
    socket::setsockopt(&socket, sockopt::SendTimeout, &TimeVal::new(seconds, timeout.subsec_micros().into()))?;
    socket::connect(socket.as_raw_fd(), address)?;
    Ok(socket.into())
}

fn parse_vsock(text: &str) -> Result<(u32, u32), String> {
    let parts = text.split_once(':').and_then(|(cid, port)| Some((cid.parse().ok()?, port.parse().ok()?)));
    parts.ok_or_else(|| "not of the form CID:PORT, two decimal numbers below 2^32".into())
}

#[cfg(test)]
mod tests {
    use qga::commands::storage::Fstrim;

    use super::*;

    #[test]
    fn a_reply_has_longer_than_the_agent_allows_the_command_unless_the_user_says_otherwise() {
        let agent = |timeout| Agent { client: Client::new(UnixStream::pair().unwrap().0), timeout };
        assert_eq!(agent(None).reply_timeout::<Fstrim>(), Fstrim::SPEC.timeout + MARGIN);
        let second = Duration::from_secs(1);
        assert_eq!(agent(Some(second)).reply_timeout::<Fstrim>(), second);
    }

    #[test]
    fn a_vsock_address_is_two_decimal_numbers() {
        assert_eq!(parse_vsock("3:1234"), Ok((3, 1234)));
        assert_eq!(parse_vsock("4294967295:1"), Ok((u32::MAX, 1)));
        for wrong in ["", "3", ":", "3:", ":1", "x:1", "3:0x1", "4294967296:1", "-1:1"] {
            assert!(parse_vsock(wrong).is_err(), "{wrong}");
        }
    }
}
