//! Whether a file in the guest and what was sent or received are the same.
//!
//! The guest computes a SHA-256 with its own `sha256sum`, where policy lets programs run and there is one. Elsewhere
//! the sizes have to do. What could be compared is said, so that nobody takes one for the other.

use std::{
    fmt,
    time::{Duration, Instant},
};

use qga::{
    client::{Ended, Error},
    commands::exec::{CaptureOutput, Exec},
};
use sha2::{Digest, Sha256};

use crate::{
    connect::{Agent, named},
    failure::Failure,
};

/// Least time for the guest to compute: a VM under emulation takes its time to start a program.
const BASE_TIME: Duration = Duration::from_secs(60);

/// Slowest that a guest reads and hashes, from a slow disk and under emulation.
const BYTES_PER_SECOND: u64 = 4 * 1024 * 1024;

/// What the comparison found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The guest computed the same hash.
    Same,
    /// The guest computed another one.
    Different,
    /// The guest computed none, for this reason.
    Unknown(String),
}

/// The bytes that went by.
#[derive(Default)]
pub(crate) struct Checksum {
    hasher: Sha256,
    bytes: u64,
}

impl Checksum {
    /// Takes further bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// How many there were.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Compares them with a file in the guest.
    pub(crate) fn compare(self, agent: &mut Agent, path: &str) -> Result<Verdict, Failure> {
        let program = Exec {
            path: "sha256sum".into(),
            arg: Some(vec!["--".into(), path.into()]),
            env: None,
            input_data: None,
            capture_output: Some(CaptureOutput::Separated),
        };
        let deadline = Instant::now() + BASE_TIME + Duration::from_secs(self.bytes / BYTES_PER_SECOND);
        let unknown = |reason: &str| Ok(Verdict::Unknown(reason.into()));
        let status = match agent.client.run(&program, agent.reply_timeout, Some(deadline)) {
            Ok(Ended::Exited(status)) => status,
            Ok(Ended::StillRunning { .. }) => return unknown("sha256sum takes too long in the guest"),
            Err(Error::Refused { class, .. }) if class == "CommandNotFound" => {
                return unknown("the agent does not run programs");
            }
            Err(Error::Refused { .. }) => return unknown("the guest has no sha256sum"),
            Err(error) => return Err(named::<Exec>(error)),
        };
        let output = status.out_data.and_then(|data| data.into_bytes().ok()).unwrap_or_default();
        let ours = hex(&self.hasher.finalize());
        // A name with unusual characters is announced by a backslash before the hash.
        let theirs = output.strip_prefix(b"\\").unwrap_or(&output);
        match theirs.get(..ours.len()) {
            Some(theirs) if status.exitcode == Some(0) => {
                Ok(if theirs == ours.as_bytes() { Verdict::Same } else { Verdict::Different })
            }
            _ => unknown("sha256sum failed in the guest"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same => formatter.write_str("SHA-256 matches"),
            Self::Different => formatter.write_str("SHA-256 differs"),
            Self::Unknown(reason) => write!(formatter, "only the size was compared: {reason}"),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
