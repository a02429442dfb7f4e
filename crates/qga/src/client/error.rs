//! Why a conversation failed, in words for the user on the host.

use std::{fmt, io};

/// Most of a garbled reply that an error quotes.
const MAX_QUOTED_BYTES: usize = 200;

/// Why a command has no result.
#[derive(Debug)]
pub enum Error {
    /// The agent answered with an error.
    Refused {
        /// What programs key on: `GenericError`, or `CommandNotFound` for a command that is unknown or refused.
        class: String,
        /// What the agent says about it.
        desc: String,
    },
    /// The deadline passed without a reply. The agent may still carry out the command.
    TimedOut,
    /// The stream ended without a reply.
    Closed,
    /// The agent sent something that is no reply to the command.
    Garbled(String),
    /// The stream broke.
    Io(io::Error),
}

impl Error {
    /// As much of a line as an error can carry.
    pub(super) fn quote(line: &[u8]) -> String {
        String::from_utf8_lossy(&line[..line.len().min(MAX_QUOTED_BYTES)]).into_owned()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { desc, .. } => formatter.write_str(desc),
            Self::TimedOut => formatter.write_str("the agent did not answer in time"),
            Self::Closed => formatter.write_str("the connection was closed before the agent answered"),
            Self::Garbled(what) => write!(formatter, "the agent's answer makes no sense: {what}"),
            Self::Io(error) => write!(formatter, "the connection failed: {error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Closed,
            _ => Self::Io(error),
        }
    }
}
