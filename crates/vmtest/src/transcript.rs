//! A stream to the agent that records every byte of both directions.
//!
//! A line of the transcript is one read or write: `> ` to the agent, `< ` from it, `= ` for the host's connecting and
//! disconnecting. Bytes that are not printable are escaped as in Rust.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use qga::client::Transport;

/// A connection to the agent's end of the VM.
#[derive(Debug)]
pub struct Recorded {
    stream: UnixStream,
    transcript: File,
}

impl Recorded {
    /// Connects, and appends to the transcript.
    ///
    /// # Errors
    /// When nothing listens, or the transcript cannot be written.
    pub fn connect(socket: &Path, transcript: &Path) -> Result<Self> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("failed to connect to {}", socket.display()))?;
        let mut transcript = OpenOptions::new().create(true).append(true).open(transcript)?;
        writeln!(transcript, "= connected")?;
        Ok(Self { stream, transcript })
    }

    /// The same connection, for another thread.
    ///
    /// # Errors
    /// When this process has too many files open.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, transcript: self.transcript.try_clone()? })
    }

    fn note(&mut self, direction: char, bytes: &[u8]) {
        // Losing a line of the transcript must not fail a test.
        let _ = writeln!(self.transcript, "{direction} {}", bytes.escape_ascii());
    }
}

impl Read for Recorded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.note('<', &buffer[..count]);
        Ok(count)
    }
}

impl Write for Recorded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.stream.write(bytes)?;
        self.note('>', &bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Transport for Recorded {
    fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_timeout(timeout)
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let _ = writeln!(self.transcript, "= disconnected");
    }
}
