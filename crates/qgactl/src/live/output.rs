//! Output of a job on its way to our own standard streams.
//!
//! A stream whose reader has gone away takes no more, and the rest of that stream is dropped. The job is told by
//! SIGPIPE, as if it had written there itself, and is then attended to its end.

use std::io::{self, ErrorKind, Write};

use qga::client;

/// Standard output and standard error.
#[derive(Debug, Default)]
pub(super) struct Output {
    is_closed: [bool; 2],
    failure: Option<anyhow::Error>,
}

impl Output {
    /// Passes on what came, and returns whether a stream has just been lost.
    pub(super) fn deliver(&mut self, output: &client::Output) -> bool {
        let lost_out = self.write(0, &mut io::stdout(), &output.out, "failed to write to standard output");
        let lost_err = self.write(1, &mut io::stderr(), &output.err, "failed to write to standard error");
        lost_out || lost_err
    }

    /// Fails if output was lost although its reader was there.
    pub(super) fn check(self) -> anyhow::Result<()> {
        self.failure.map_or(Ok(()), Err)
    }

    fn write(&mut self, stream: usize, to: &mut dyn Write, bytes: &[u8], what: &'static str) -> bool {
        if bytes.is_empty() || self.is_closed[stream] {
            return false;
        }
        let Err(error) = to.write_all(bytes).and_then(|()| to.flush()) else { return false };
        self.is_closed[stream] = true;
        if error.kind() != ErrorKind::BrokenPipe {
            self.failure = Some(anyhow::Error::from(error).context(what));
        }
        true
    }
}
