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

use crate::render::printable;

/// The agent refused or failed the command, or a local file could not be read or written.
const FAILED: u8 = 1;
/// No connection: the socket is absent, nobody listens there, or access is denied.
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
  2  wrong usage
  3  no connection: the socket is absent, nobody listens there, or access is denied
  4  the agent did not answer in time
  5  the agent does not know the command, or does not allow it (now)
  6  the connection broke, or the answer makes no sense
  128 + N: a transfer was ended by signal N
  exec, shell, jobs attach: the program's own status, 128 + N for a program ended by signal N; 124 when the timeout
  expired (the program is ended, but goes on if the agent has no jobs); 125 for any failure of qgactl or the agent,
  described on stderr; 123 when an agent without jobs kept only a part of the output (stderr names the program's own
  status); with a terminal, 0 when the user left, and 128 + N when signal N ended qgactl (the program goes on)
  freeze --run: as exec, but the program is ended when the timeout expires, or when qgactl gets signal N, with
  128 + N; 125 also when the freeze did not last until the program's end";

/// A failure between qgactl and the agent.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection could not be made.
    NoConnection { target: String, error: Errno },
    /// The connection was made, but no agent answered.
    Silent { target: String, waited: Duration },
    /// A command has no result.
    Command { name: String, error: client::Error },
    /// A signal asked for an end.
    Interrupted { signal: i32 },
}

impl Failure {
    fn status(&self) -> u8 {
        match self {
            Self::NoConnection { .. } => NO_CONNECTION,
            Self::Silent { .. } => SILENT,
            Self::Command { error, .. } => match error {
                client::Error::Refused { class, .. } if class == "CommandNotFound" => NOT_ALLOWED,
                client::Error::Refused { .. } => FAILED,
                client::Error::TimedOut => SILENT,
                client::Error::Closed | client::Error::Garbled(_) | client::Error::Io(_) => BROKEN,
            },
            Self::Interrupted { signal } => status_of_signal(*signal),
        }
    }

    /// Whether the agent has not answered, so that what was asked for may have been done or not.
    pub(crate) fn is_of_the_connection(&self) -> bool {
        match self {
            Self::NoConnection { .. } | Self::Silent { .. } => true,
            Self::Command { error, .. } => !matches!(error, client::Error::Refused { .. }),
            Self::Interrupted { .. } => false,
        }
    }

    /// Whether the agent does not know the command, or does not allow it.
    pub(crate) fn is_not_allowed(&self) -> bool {
        self.status() == NOT_ALLOWED
    }

    /// Where to look for the cause.
    fn hint(&self) -> &'static str {
        match self {
            Self::NoConnection { error, .. } => match error {
                Errno::ENOENT => "On the host: is the VM running, and is this the path of its QEMU's -chardev socket?",
                Errno::ECONNREFUSED => {
                    "On the host: nobody listens there; the file may be left over from a VM that has ended."
                }
                Errno::EACCES | Errno::EPERM => "On the host: the socket belongs to the user that QEMU runs as.",
                Errno::EAGAIN => "On the host: other programs hold the socket and queue for it.",
                _ => "",
            },
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
            Self::Interrupted { .. } => "",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConnection { target, error } => {
                write!(formatter, "failed to connect to {target}: {}", error.desc())
            }
            Self::Silent { target, waited } => {
                write!(formatter, "connected to {target}, but no agent answered within {} s", waited.as_secs_f64())
            }
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
