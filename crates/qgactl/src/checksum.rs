//! Whether a file in the guest is the same as what was sent or received.
//!
//! The guest computes a SHA-256 with its own `sha256sum`, where it has one and policy allows programs. Elsewhere only
//! the sizes are compared. The result says which comparison was made.

use std::time::{Duration, Instant};

use qga::{
    client::{Ended, Error},
    commands::exec::{CaptureOutput, Exec},
};
use sha2::{Digest, Sha256};

use crate::{
    connect::{Agent, named},
    failure::Failure,
};

/// Least time for the guest to compute: an emulated VM is slow to start a program.
const BASE_TIME: Duration = Duration::from_secs(60);

/// Slowest that a guest reads and hashes, from a slow disk and under emulation.
const BYTES_PER_SECOND: u64 = 4 * 1024 * 1024;

/// Hexadecimal digits of a SHA-256.
const HASH_DIGITS: usize = 64;

/// What the comparison found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No difference was found; with what was compared.
    Fine(String),
    /// The two differ, in this respect.
    Different(String),
}

/// The bytes that were transferred.
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

    /// Compares them with a file in the guest, of this size if the guest reports one.
    pub(crate) fn compare(self, agent: &mut Agent, path: &str, size: Option<u64>) -> Result<Verdict, Failure> {
        Ok(match size {
            // Files in /proc report no size and may change at each read; a pipe can be read only once.
            None => Verdict::Fine("not compared: the guest tells no size".into()),
            Some(0) if self.bytes > 0 => Verdict::Fine("not compared: the guest tells no size".into()),
            Some(size) if size != self.bytes => {
                Verdict::Different(format!("{} bytes were transferred, but the file has {size}", self.bytes))
            }
            Some(_) => match guest_hash(agent, path, self.bytes)? {
                Ok(theirs) if theirs == hex(&self.hasher.finalize()) => Verdict::Fine("SHA-256 matches".into()),
                Ok(_) => Verdict::Different("the guest computes another SHA-256".into()),
                Err(reason) => Verdict::Fine(format!("only the size was compared: {reason}")),
            },
        })
    }
}

/// The hash that the guest computes of a file of so many bytes, or why it computes none.
fn guest_hash(agent: &mut Agent, path: &str, bytes: u64) -> Result<Result<String, &'static str>, Failure> {
    let program = Exec {
        path: "sha256sum".into(),
        arg: Some(vec!["--".into(), path.into()]),
        env: None,
        input_data: None,
        capture_output: Some(CaptureOutput::Separated),
    };
    let deadline = Instant::now() + BASE_TIME + Duration::from_secs(bytes / BYTES_PER_SECOND);
    let timeout = agent.reply_timeout::<Exec>();
    let status = match agent.client.run(&program, timeout, Some(deadline)) {
        Ok(Ended::Exited(status)) => status,
        Ok(Ended::StillRunning { .. }) => return Ok(Err("sha256sum takes too long in the guest")),
        Err(Error::Refused { class, .. }) if class == "CommandNotFound" => {
            return Ok(Err("the agent does not run programs"));
        }
        Err(Error::Refused { .. }) => return Ok(Err("the guest has no sha256sum")),
        Err(error) => return Err(named::<Exec>(error)),
    };
    let output = status.out_data.and_then(|data| data.into_bytes().ok()).unwrap_or_default();
    // A name with unusual characters is announced by a backslash before the hash.
    let hash = output.strip_prefix(b"\\").unwrap_or(&output).get(..HASH_DIGITS);
    Ok(match hash {
        Some(hash) if status.exitcode == Some(0) => Ok(String::from_utf8_lossy(hash).into_owned()),
        _ => Err("sha256sum failed in the guest"),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
