//! The system log, for a daemon without a log file.
//!
//! A line is one datagram, as syslog(3) sends it. Sending never blocks: a line for which there is no room or no
//! receiver is lost and counted. After a restart of the receiver, the connection is made again.

use std::{
    io::{self, Write},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process,
};

/// Where every syslog daemon and the journal receive lines.
const PATH: &str = "/dev/log";
/// The facility of daemons, of syslog(3).
const FACILITY: u8 = 3;

/// A connection to the system log.
#[derive(Debug)]
pub(crate) struct Syslog {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Syslog {
    /// Connects to the system log.
    ///
    /// # Errors
    /// When there is no receiver.
    pub(crate) fn connect() -> io::Result<Self> {
        Self::connect_to(Path::new(PATH))
    }

    fn connect_to(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(path)?;
        Ok(Self { path: path.into(), socket })
    }
}

/// Each write is one line.
impl Write for Syslog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let line = &bytes[..end.unwrap_or(bytes.len())];
        match self.socket.send(line) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                *self = Self::connect_to(&self.path)?;
                self.socket.send(line)?;
            }
            result => {
                result?;
            }
        }
        Ok(line.len() + usize::from(end.is_some()))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line of a priority of syslog(3), without the time, which the receiver adds.
pub(super) fn line(priority: u8, message: &str) -> String {
    format!("<{}>qgad[{}]: {message}", FACILITY << 3 | priority, process::id())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{
        super::lines::{Lines, Lost},
        *,
    };

    fn received(receiver: &UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        let count = receiver.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    #[test]
    fn a_line_is_a_datagram_with_its_priority_the_agents_name_and_its_process() {
        assert_eq!(line(4, "a warning"), format!("<28>qgad[{}]: a warning", process::id()));
    }

    #[test]
    fn lines_without_a_receiver_are_counted_and_the_next_receiver_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        assert!(Syslog::connect_to(&path).is_err());
        let receiver = UnixDatagram::bind(&path).unwrap();
        let mut lines = Lines::new(Syslog::connect_to(&path).unwrap());
        let missing = |Lost { count, .. }: &Lost| format!("{count} are missing");
        assert_eq!(lines.append("one", missing), None);
        assert_eq!(received(&receiver), "one");
        drop(receiver);
        fs::remove_file(&path).unwrap();
        assert!(lines.append("two", missing).is_some());
        assert_eq!(lines.append("three", missing), None, "only the first one is reported at once");
        let receiver = UnixDatagram::bind(&path).unwrap();
        assert_eq!(lines.append("four", missing), None);
        assert_eq!([received(&receiver), received(&receiver)], ["2 are missing", "four"]);
    }

    #[test]
    fn a_receiver_that_does_not_read_blocks_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let mut lines = Lines::new(Syslog::connect_to(&path).unwrap());
        let lost = (0..100_000).find_map(|_| lines.append("a line", |_| String::new()));
        assert_eq!(lost.as_deref(), Some("Resource temporarily unavailable"));
        drop(receiver);
    }
}
