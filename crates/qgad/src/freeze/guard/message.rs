//! The protocol between an agent and a guard: each message has a kind, some bytes and perhaps a descriptor.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::errno::Errno;

use super::super::{
    Lease, Target,
    parts::{Action, Holding, Stuck, Thawed},
};
use crate::{
    process::descriptor_passing::{receive, send},
    storage::device::Number,
};

/// Largest message: a kind, two numbers and a path, which Linux limits to 4096 bytes.
const MAX_MESSAGE_BYTES: usize = 1 + 2 * NUMBER_BYTES + 4096;
const NUMBER_BYTES: usize = size_of::<u64>();
/// Most stuck system calls in one message. Further ones are reported when some of these have returned.
const MAX_STUCK_TOLD: usize = 100;

/// One message.
#[derive(Debug)]
pub(super) enum Message {
    /// A file system. They come in the order of freezing.
    Target(Target),
    /// How long the freeze may last, or what is left of that.
    Lease(Lease),
    /// The state directory, and the takeover socket, if there is one. A guard gets the socket last.
    StateDirectory(PathBuf, Option<OwnedFd>),
    /// The hook, and how long it may run.
    Hook(PathBuf, Duration),
    /// To a guard: get ready.
    GetReady(Holding),
    /// From a guard: it is ready, or has sent all that it holds.
    Ready,
    /// Freeze the file system with this index.
    Freeze(usize),
    /// The kernel has returned from freezing it.
    Frozen(usize, nix::Result<()>),
    /// Everything is frozen.
    Complete,
    /// Thaw everything. The guard exits when nothing is stuck any more.
    Thaw,
    /// What is thawed until now. Sent as the answer to a thaw, after a thaw by itself, and when a stuck call has
    /// returned.
    Thawed(Thawed),
}

impl Message {
    /// Sends it. The timeout is that of the socket.
    pub(super) fn send(&self, socket: &impl AsFd) -> nix::Result<()> {
        let (kind, bytes, descriptor) = match self {
            Self::Target(target) => return send_target(socket, target),
            Self::Lease(lease) => (b'L', lease.map(|lease| numbers(&[millis(lease)])).unwrap_or_default(), None),
            Self::StateDirectory(directory, takeover_socket) => {
                (b'S', directory.as_os_str().as_bytes().to_vec(), takeover_socket.as_ref())
            }
            Self::Hook(path, limit) => {
                (b'H', [&numbers(&[millis(*limit)]), path.as_os_str().as_bytes()].concat(), None)
            }
            Self::GetReady(holding) => (b'G', numbers(&[u64::from(*holding == Holding::Frozen)]), None),
            Self::Ready => (b'R', Vec::new(), None),
            Self::Freeze(index) => (b'F', numbers(&[*index as u64]), None),
            Self::Frozen(index, result) => {
                let errno = result.err().map_or(0, |errno| errno as i32);
                (b'f', numbers(&[*index as u64, u64::from(errno.unsigned_abs())]), None)
            }
            Self::Complete => (b'C', Vec::new(), None),
            Self::Thaw => (b'T', Vec::new(), None),
            Self::Thawed(thawed) => (b't', encode_thawed(thawed), None),
        };
        send(socket, kind, &bytes, descriptor)
    }

    /// Waits for the next one; `None` at the end.
    ///
    /// # Errors
    /// When the socket breaks, or the bytes are no message.
    pub(super) fn receive(socket: &impl AsFd) -> io::Result<Option<Self>> {
        let mut buffer = [0; MAX_MESSAGE_BYTES];
        let Some((length, descriptor)) = receive(socket, &mut buffer)? else { return Ok(None) };
        Self::decode(buffer[0], &buffer[1..length], descriptor).ok_or(io::ErrorKind::InvalidData.into()).map(Some)
    }

    fn decode(kind: u8, mut bytes: &[u8], descriptor: Option<OwnedFd>) -> Option<Self> {
        let bytes = &mut bytes;
        Some(match (kind, descriptor) {
            (b'D', Some(descriptor)) => {
                let file_system = Number { major: number(bytes)?, minor: number(bytes)? };
                Self::Target(Target { mount_point: path(bytes), descriptor, file_system })
            }
            (b'L', None) if bytes.is_empty() => Self::Lease(None),
            (b'L', None) => Self::Lease(Some(Duration::from_millis(number(bytes)?))),
            (b'S', takeover_socket) => Self::StateDirectory(path(bytes), takeover_socket),
            (b'H', None) => {
                let limit = Duration::from_millis(number(bytes)?);
                Self::Hook(path(bytes), limit)
            }
            (b'G', None) if number::<u64>(bytes)? == 0 => Self::GetReady(Holding::Nothing),
            (b'G', None) => Self::GetReady(Holding::Frozen),
            (b'R', None) => Self::Ready,
            (b'F', None) => Self::Freeze(number(bytes)?),
            (b'f', None) => {
                let index = number(bytes)?;
                match number(bytes)? {
                    0 => Self::Frozen(index, Ok(())),
                    errno => Self::Frozen(index, Err(Errno::from_raw(errno))),
                }
            }
            (b'C', None) => Self::Complete,
            (b'T', None) => Self::Thaw,
            (b't', None) => Self::Thawed(decode_thawed(bytes)?),
            _ => return None,
        })
    }
}

/// Sends a file system without taking it over.
pub(super) fn send_target(socket: &impl AsFd, target: &Target) -> nix::Result<()> {
    let Number { major, minor } = target.file_system;
    let bytes = [&numbers(&[major.into(), minor.into()]), target.mount_point.as_os_str().as_bytes()].concat();
    send(socket, b'D', &bytes, Some(&target.descriptor))
}

fn encode_thawed(thawed: &Thawed) -> Vec<u8> {
    let count = u64::try_from(thawed.count).unwrap_or_default();
    let stuck = thawed.stuck.iter().take(MAX_STUCK_TOLD);
    let stuck = stuck.flat_map(|Stuck { index, action, since }| {
        [*index as u64, u64::from(*action == Action::Thaw), millis(since.elapsed())]
    });
    numbers(&std::iter::once(count).chain(stuck).collect::<Vec<_>>())
}

fn decode_thawed(bytes: &mut &[u8]) -> Option<Thawed> {
    let count = number(bytes)?;
    let mut stuck = Vec::new();
    let now = Instant::now();
    while !bytes.is_empty() {
        let index = number(bytes)?;
        let action = if number::<u64>(bytes)? == 0 { Action::Freeze } else { Action::Thaw };
        let since = now.checked_sub(Duration::from_millis(number(bytes)?)).unwrap_or(now);
        stuck.push(Stuck { index, action, since });
    }
    Some(Thawed { count, stuck })
}

fn numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().copied().flat_map(u64::to_le_bytes).collect()
}

/// Takes a number from the front.
fn number<N: TryFrom<u64>>(bytes: &mut &[u8]) -> Option<N> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    u64::from_le_bytes(*number).try_into().ok()
}

/// Takes the rest as a path.
fn path(bytes: &mut &[u8]) -> PathBuf {
    OsString::from_vec(std::mem::take(bytes).to_vec()).into()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    /// What arrives of a message, as text.
    fn pass(message: &Message) -> String {
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        message.send(&one).unwrap();
        format!("{:?}", Message::receive(&other).unwrap().unwrap())
    }

    #[test]
    fn what_is_sent_arrives() {
        for message in [
            Message::Lease(None),
            Message::Lease(Some(Duration::from_millis(1500))),
            Message::StateDirectory("/run".into(), None),
            Message::Hook("/etc/hook".into(), Duration::from_secs(60)),
            Message::GetReady(Holding::Nothing),
            Message::GetReady(Holding::Frozen),
            Message::Ready,
            Message::Freeze(3),
            Message::Frozen(3, Ok(())),
            Message::Frozen(4, Err(Errno::EIO)),
            Message::Complete,
            Message::Thaw,
            Message::Thawed(Thawed { count: 3, stuck: Vec::new() }),
        ] {
            assert_eq!(pass(&message), format!("{message:?}"));
        }
    }

    #[test]
    fn what_is_stuck_arrives_with_its_age() {
        let since = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
        let stuck = |index, action| Stuck { index, action, since };
        let sent = Thawed { count: 1, stuck: vec![stuck(2, Action::Freeze), stuck(7, Action::Thaw)] };
        let bytes = encode_thawed(&sent);
        let Thawed { count, stuck } = decode_thawed(&mut bytes.as_slice()).unwrap();
        assert_eq!(count, 1);
        for (arrived, sent) in stuck.iter().zip(&sent.stuck) {
            assert_eq!((arrived.index, arrived.action), (sent.index, sent.action));
            assert!(arrived.since.elapsed() >= Duration::from_secs(5));
        }
        assert_eq!(stuck.len(), 2);
    }

    #[test]
    fn more_than_fits_is_no_message_that_is_too_large() {
        let stuck = Stuck { index: usize::MAX, action: Action::Thaw, since: Instant::now() };
        let bytes = encode_thawed(&Thawed { count: i64::MAX, stuck: vec![stuck; 10_000] });
        assert!(bytes.len() < MAX_MESSAGE_BYTES);
    }

    #[test]
    fn what_is_cut_is_no_message() {
        for (kind, bytes) in [(b'F', &[0; 7][..]), (b'f', &[0; 8]), (b't', &[0; 12]), (b'D', &[0; 16]), (b'?', &[])] {
            assert!(Message::decode(kind, bytes, None).is_none());
        }
    }
}
