//! What can go wrong, which exit status it has, and where to look for its cause.
//!
//! One place prints errors. A failure to reach the agent says what to look at on the host and in the guest, because
//! the two look alike from outside: a VM that is off, an agent that is not installed, a port that another program
//! holds.

use std::{
    fmt,
    io::{self, Write},
    time::Duration,
};

use nix::errno::Errno;
use qga::client;

use crate::{render::printable, target::holder::Holder};

/// The agent refused or failed the command, or a local file could not be read or written.
const FAILED: u8 = 1;
/// Wrong usage, as clap(1) has it.
const WRONG_USAGE: u8 = 2;
/// No connection: no such machine, the socket is absent, nobody listens there, or access is denied.
const NO_CONNECTION: u8 = 3;
/// The timeout expired without an answer.
const SILENT: u8 = 4;
/// The agent does not know the command, or its policy forbids it.
const NOT_ALLOWED: u8 = 5;
/// The connection broke, or what came over it makes no sense.
const BROKEN: u8 = 6;
/// A signal ended the transfer or the program: this and its number.
const SIGNALLED: u8 = 128;

/// Longest error that is printed: as much as a hook in the guest may output, and more.
const MAX_ERROR_CHARACTERS: usize = 32 * 1024;

/// The statuses, for the help text.
pub(crate) const STATUS_HELP: &str = "\
Exit status:
  0  success
  1  the agent refused or failed the command, or a local file could not be read or written
  2  wrong usage, or a name that fits several machines
  3  no connection: no such machine, the socket is absent, nobody listens there, or access is denied
  4  the agent did not answer in time
  5  the agent does not know the command, or does not allow it (now)
  6  the connection broke, or the answer makes no sense
  128 + N: a transfer was ended by signal N
  exec, shell, jobs attach: the program's own status, 128 + N for a program ended by signal N; 124 when the timeout
  expired (the program is ended, but goes on if the agent has no jobs); 125 for any failure of qgactl or the agent,
  described on stderr; 123 when an agent without jobs kept only a part of the output (stderr names the program's own
  status); with a terminal, 0 when the user left, and 128 + N when signal N ended qgactl (the program goes on)
  several machines: on how many of them it failed, at most 100
  freeze --run: as exec, but the program is ended when the timeout expires, or when qgactl gets signal N, with
  128 + N; 125 also when the freeze did not last until the program's end";

/// A failure between qgactl and the agent.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection could not be made.
    NoConnection { target: String, error: io::Error },
    /// This host has no such machine.
    NoMachine { what: String },
    /// A machine has no way to its agent that can be used from here.
    Unreachable { name: String, why: String },
    /// The command line does not say which machine.
    NotChosen { what: String },
    /// The connection was made, but no agent answered.
    Silent { target: String, waited: Duration, holder: Option<Holder> },
    /// libvirt is connected to the socket.
    Held { target: String, holder: Holder },
    /// The guest has no file system at a mount point that was asked for.
    NotMounted { path: String },
    /// A command has no result.
    Command { name: String, error: client::Error },
    /// A signal asked for an end.
    Interrupted { signal: i32 },
}

impl Failure {
    fn status(&self) -> u8 {
        match self {
            Self::NoConnection { .. } | Self::NoMachine { .. } | Self::Unreachable { .. } | Self::Held { .. } => {
                NO_CONNECTION
            }
            Self::NotChosen { .. } => WRONG_USAGE,
            Self::Silent { .. } => SILENT,
            Self::Command { error, .. } => match error {
                client::Error::Refused { class, .. } if class == "CommandNotFound" => NOT_ALLOWED,
                client::Error::Refused { .. } => FAILED,
                client::Error::TimedOut => SILENT,
                client::Error::Closed | client::Error::Garbled(_) | client::Error::Io(_) => BROKEN,
            },
            Self::NotMounted { .. } => FAILED,
            Self::Interrupted { signal } => status_of_signal(*signal),
        }
    }

    /// Whether the agent has not answered, so that what was asked for may have been done or not.
    pub(crate) fn is_of_the_connection(&self) -> bool {
        match self {
            Self::NoConnection { .. } | Self::NoMachine { .. } | Self::Silent { .. } | Self::Held { .. } => true,
            Self::Command { error, .. } => !matches!(error, client::Error::Refused { .. }),
            Self::Unreachable { .. } | Self::NotChosen { .. } | Self::NotMounted { .. } | Self::Interrupted { .. } => {
                false
            }
        }
    }

    /// Whether the agent does not know the command, or does not allow it.
    pub(crate) fn is_not_allowed(&self) -> bool {
        self.status() == NOT_ALLOWED
    }

    /// Where to look for the cause.
    fn hint(&self) -> &'static str {
        match self {
            Self::NoConnection { error, .. } => match errno(error) {
                Errno::ENOENT => "On the host: is the VM running, and is this the path of its QEMU's -chardev socket?",
                Errno::ECONNREFUSED => {
                    "On the host: nobody listens there; the file may be left over from a VM that has ended."
                }
                Errno::EACCES | Errno::EPERM => "On the host: the socket belongs to the user that QEMU runs as.",
                Errno::EAGAIN => "On the host: other programs hold the socket and queue for it.",
                _ => "",
            },
            Self::Held { .. } => {
                "libvirt would lose its agent to a second peer. `qgactl -M NAME` goes through libvirt, with the name \
                 that\n  `qgactl list` shows, or libvirt:[URI#]NAME."
            }
            Self::Silent { .. } => {
                "In the guest: is the agent running (systemctl status qgad qemu-guest-agent), and does it hold its \
                 port\n  (/dev/virtio-ports/org.qemu.guest_agent.0)? It may also be busy with a long command.\n\
                 On the host: QEMU serves one connection of a socket at a time; does libvirt or another program \
                 hold it?"
            }
            Self::Command { error, .. } => match error {
                client::Error::TimedOut => {
                    "The agent answers, but this takes longer, and may still be carried out. Raise --timeout to wait."
                }
                client::Error::Refused { class, desc } if class == "CommandNotFound" => {
                    if desc.contains("frozen") {
                        "In the guest: file systems are frozen. `qgactl thaw` thaws them."
                    } else if desc.contains("disabled") {
                        "In the guest: block-rpcs or allow-rpcs in /etc/qemu/qemu-ga.conf, or the agent's options -b \
                         and -a (some\n  distributions set them in /etc/sysconfig/qemu-ga), forbid it; or file systems \
                         are frozen.\n\
                         On the host: `qgactl info` lists what is allowed."
                    } else {
                        "On the host: `qgactl info` lists the commands that this agent knows."
                    }
                }
                client::Error::Refused { desc, .. } if desc == "Parameter 'lease' is unexpected" => {
                    "In the guest: only qgad knows leases; leave --lease out."
                }
                _ => "",
            },
            Self::NotMounted { .. } => {
                "On the host: `qgactl fs` lists the mount points; a file system with several has the first one there."
            }
            Self::NoMachine { .. } => "`qgactl list` lists the machines of this host.",
            Self::NotChosen { .. } => "Name one of them by its UUID or its address: qgactl -M NAME",
            Self::Unreachable { .. } | Self::Interrupted { .. } => "",
        }
    }
}

/// Why a connection could not be made, without the kernel's number.
pub(crate) fn reason(error: &io::Error) -> String {
    match errno(error) {
        Errno::UnknownErrno => error.to_string(),
        errno => errno.desc().to_owned(),
    }
}

/// The kernel's reason, or one that has no hint.
fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConnection { target, error } => {
                write!(formatter, "failed to connect to {target}: {}", reason(error))
            }
            Self::NoMachine { what } | Self::NotChosen { what } => formatter.write_str(what),
            Self::Unreachable { name, why } => write!(formatter, "{name} {why}"),
            Self::Silent { target, waited, holder } => {
                write!(formatter, "connected to {target}, but no agent answered within {} s", waited.as_secs_f64())?;
                match holder {
                    Some(holder) => write!(formatter, ": {holder} holds the socket"),
                    None => Ok(()),
                }
            }
            Self::Held { target, holder } => {
                write!(formatter, "not connected to {target}, because libvirt holds it: {holder}")
            }
            Self::NotMounted { path } => write!(formatter, "no file system of the guest is listed at {path}"),
            Self::Command { name, error } => write!(formatter, "{name}: {error}"),
            Self::Interrupted { .. } => formatter.write_str("interrupted"),
        }
    }
}

impl std::error::Error for Failure {}

/// The exit status of an error.
pub(crate) fn status(error: &anyhow::Error) -> u8 {
    error.downcast_ref().map_or(FAILED, Failure::status)
}

/// The exit status for an end by a signal.
pub(crate) fn status_of_signal(number: i32) -> u8 {
    u8::try_from(number).map_or(u8::MAX, |number| SIGNALLED.saturating_add(number))
}

/// Prints an error, and where to look for its cause.
pub(crate) fn print(error: &anyhow::Error) {
    let text: String = format!("{error:#}").chars().take(MAX_ERROR_CHARACTERS).collect();
    // Further lines come from the guest, and must not look like qgactl's.
    say(&format!("qgactl: {}", text.trim_end().replace('\n', "\n  ")));
    for line in error.downcast_ref().map_or("", Failure::hint).lines() {
        say(&format!("  {line}"));
    }
}

/// Prints a line to stderr, escaped as on stdout. A reader that has gone away is no reason to stop half-way.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{}", printable(line));
}
