//! Vsock through a unix socket, as Cloud Hypervisor and Firecracker offer it.
//!
//! Such a hypervisor serves all vsock ports of its guest on one unix socket. A peer that has connected names the port
//! in a line, `CONNECT <port>`. Once the guest has accepted, the hypervisor answers `OK <host's port>`, and from then
//! on the stream is that of the guest. Where nobody listens in the guest, the hypervisor closes the connection instead.
//! Facts: Firecracker's docs/vsock.md, Cloud Hypervisor's docs/vsock.md.

use std::{io, time::Instant};

use super::{Error, Result, Transport};

/// Longest answer, in bytes: `OK `, ten digits and the end of the line are fewer.
const MAX_ANSWER_BYTES: usize = 32;

/// Asks the hypervisor at the other end for a port of its guest. Afterwards the stream belongs to who listens there.
///
/// # Errors
/// When the hypervisor closes the connection or answers something else, or the deadline passes.
pub fn connect_vsock_mux(stream: &mut impl Transport, port: u32, deadline: Instant) -> Result<()> {
    let mut request: &[u8] = &format!("CONNECT {port}\n").into_bytes();
    while !request.is_empty() {
        bound(stream, deadline)?;
        match stream.write(request) {
            Ok(0) => return Err(Error::Closed),
            Ok(written) => request = &request[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let answer = read_line(stream, deadline)?;
    let is_accepted = |port: &[u8]| (1..=10).contains(&port.len()) && port.iter().all(u8::is_ascii_digit);
    match answer.strip_prefix(b"OK ") {
        Some(port) if is_accepted(port) => Ok(()),
        _ => Err(Error::Garbled(format!("not OK and a port: {}", Error::quote(&answer)))),
    }
}

/// Byte by byte, because what follows the line belongs to the conversation.
fn read_line(stream: &mut impl Transport, deadline: Instant) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < MAX_ANSWER_BYTES {
        bound(stream, deadline)?;
        match stream.read(&mut byte) {
            Ok(0) => return Err(Error::Closed),
            Ok(_) if byte == *b"\n" => return Ok(line),
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Garbled(format!("more than a line: {}", Error::quote(&line))))
}

fn bound(stream: &mut impl Transport, deadline: Instant) -> Result<()> {
    let remaining = deadline.saturating_duration_since(Instant::now());
    if remaining.is_zero() {
        return Err(Error::TimedOut);
    }
    Ok(stream.set_timeout(Some(remaining))?)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
        thread,
        time::Duration,
    };

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    /// What comes of an answer, what was asked, and what the peer then reads.
    fn check(answer: &'static [u8]) -> (Result<()>, Vec<u8>, Vec<u8>) {
        let (mut host, mut hypervisor) = UnixStream::pair().unwrap();
        let peer = thread::spawn(move || {
            let mut request = vec![0; "CONNECT 1234\n".len()];
            hypervisor.read_exact(&mut request).unwrap();
            hypervisor.write_all(answer).unwrap();
            request
        });
        let result = connect_vsock_mux(&mut host, 1234, Instant::now() + TIMEOUT);
        let request = peer.join().unwrap();
        let mut rest = Vec::new();
        host.read_to_end(&mut rest).unwrap();
        (result, request, rest)
    }

    #[test]
    fn what_follows_the_answer_belongs_to_the_conversation() {
        let (result, request, rest) = check(b"OK 1073741824\n\xFF{\"return\": 1}\n");
        assert!(result.is_ok());
        assert_eq!((request.as_slice(), rest.as_slice()), (&b"CONNECT 1234\n"[..], &b"\xFF{\"return\": 1}\n"[..]));
    }

    #[test]
    fn a_hypervisor_that_closes_has_no_listener_in_its_guest() {
        assert!(matches!(check(b"").0, Err(Error::Closed)));
        assert!(matches!(check(b"OK 10").0, Err(Error::Closed)));
    }

    #[test]
    fn anything_else_is_not_an_answer() {
        for answer in [&b"NO\n"[..], b"OK\n", b"OK \n", b"OK x\n", b"OK 12345678901\n", b"\n", b"ok 1\n", b"OK 1\r\n"] {
            assert!(matches!(check(answer).0, Err(Error::Garbled(_))), "{}", String::from_utf8_lossy(answer));
        }
        assert!(matches!(check(&[b'x'; 1000]).0, Err(Error::Garbled(text)) if text.len() < 100));
    }

    #[test]
    fn a_hypervisor_that_says_nothing_is_not_waited_for_longer_than_asked() {
        let (mut host, _hypervisor) = UnixStream::pair().unwrap();
        let result = connect_vsock_mux(&mut host, 1, Instant::now() + Duration::from_millis(20));
        assert!(matches!(result, Err(Error::TimedOut)));
    }
}
