//! A serial line that ends here as a terminal, such as the pseudo-terminal of QEMU's `-chardev pty`.
//!
//! The terminal is put into raw mode, or it would echo the agent's replies back to it and change line ends. There is
//! no end of the stream: a hypervisor that is gone is an error of the next read or write.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::termios::{self, SetArg},
};
use qga::client::Transport;

use super::AgentStream;

/// A serial line.
#[derive(Debug)]
pub(crate) struct Serial {
    terminal: File,
    timeout: Option<Duration>,
}

impl Serial {
    /// Opens a terminal as a serial line.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        // Nor may it become our controlling terminal, or wait for a carrier.
        options.read(true).write(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK);
        let terminal = options.open(path)?;
        if !terminal.is_terminal() {
            return Err(Errno::ENOTTY.into());
        }
        let mut modes = termios::tcgetattr(&terminal)?;
        termios::cfmakeraw(&mut modes);
        termios::tcsetattr(&terminal, SetArg::TCSANOW, &modes)?;
        Ok(Self { terminal, timeout: None })
    }

    fn wait_for(&self, event: PollFlags) -> io::Result<()> {
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let remaining = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // Rounded up, so that the deadline has passed then.
            let bound = remaining.map_or(PollTimeout::NONE, |remaining| {
                PollTimeout::try_from(remaining + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut [PollFd::new(self.terminal.as_fd(), event)], bound) {
                Ok(0) if remaining.is_some_and(|remaining| remaining.is_zero()) => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Read for Serial {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait_for(PollFlags::POLLIN)?;
        self.terminal.read(buffer)
    }
}

impl Write for Serial {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.wait_for(PollFlags::POLLOUT)?;
        self.terminal.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.terminal.flush()
    }
}

impl AgentStream for Serial {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.terminal.as_fd())
    }
}

impl Transport for Serial {
    fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.timeout = timeout;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use nix::pty::{OpenptyResult, openpty};

    use super::*;

    fn pair() -> (Serial, File, File) {
        let OpenptyResult { master, slave } = openpty(None, None).unwrap();
        let path: PathBuf = nix::unistd::ttyname(&slave).unwrap();
        (Serial::open(&path).unwrap(), master.into(), slave.into())
    }

    #[test]
    fn bytes_pass_unchanged_in_both_directions_and_are_not_echoed() {
        let (mut serial, mut hypervisor, _slave) = pair();
        let every: Vec<u8> = (0..=255).collect();
        hypervisor.write_all(&every).unwrap();
        let mut received = Vec::new();
        serial.set_timeout(Some(Duration::from_secs(60))).unwrap();
        while received.len() < every.len() {
            let mut piece = [0; 256];
            let read = serial.read(&mut piece).unwrap();
            received.extend(&piece[..read]);
        }
        assert_eq!(received, every);
        serial.write_all(&every).unwrap();
        hypervisor.read_exact(&mut received).unwrap();
        assert_eq!(received, every);
    }

    #[test]
    fn a_read_ends_at_its_timeout() {
        let (mut serial, _hypervisor, _slave) = pair();
        serial.set_timeout(Some(Duration::from_millis(10))).unwrap();
        assert_eq!(serial.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn what_is_no_terminal_is_refused() {
        assert_eq!(Serial::open(Path::new("/dev/null")).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }
}
