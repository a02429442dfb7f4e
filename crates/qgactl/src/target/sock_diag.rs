//! The kernel's table of unix sockets, with the peer of each: sock_diag(7).
//!
//! `/proc/net/unix` names no peers. The table is that of our network namespace; connections that nobody has accepted
//! yet are not in it. A kernel without the module `unix_diag` has no table.

use std::{
    ffi::OsString,
    io,
    os::{fd::AsRawFd, unix::ffi::OsStringExt},
    path::PathBuf,
};

use nix::sys::{
    socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, sockopt},
    time::TimeVal,
};

/// linux/sock_diag.h and linux/unix_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const UDIAG_SHOW_NAME: u32 = 1;
const UDIAG_SHOW_PEER: u32 = 4;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_PEER: u16 = 2;
const ESTABLISHED: u8 = 1;
/// linux/socket.h.
const AF_UNIX: u8 = 1;
/// linux/netlink.h.
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Bytes of a message's header, of the fixed part of an answer, and of an attribute's header.
const HEADER: usize = 16;
const FIXED: usize = 16;
const ATTRIBUTE: usize = 4;

/// What is read at a time: the kernel fills at most 32 KiB.
const CHUNK: usize = 64 * 1024;
/// Most bytes of the table: a socket takes about a hundred.
const MAX_TABLE_BYTES: usize = 64 * 1024 * 1024;
/// The kernel answers without waiting for anybody.
const TIMEOUT_SECONDS: i64 = 2;

/// One end of a connection between unix sockets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Connected {
    /// Where the server listens, in the words of its bind(2).
    pub(crate) path: PathBuf,
    /// The inode of the other end.
    pub(crate) peer: u32,
}

/// The servers' ends of all connections to paths.
pub(crate) fn connections() -> io::Result<Vec<Connected>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket::socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag)?;
    socket::setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(TIMEOUT_SECONDS, 0))?;
    socket::send(socket.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut connections = Vec::new();
    let mut chunk = vec![0; CHUNK];
    let mut total = 0;
    while total < MAX_TABLE_BYTES {
        let length = socket::recv(socket.as_raw_fd(), &mut chunk, MsgFlags::empty())?;
        total += length.max(HEADER);
        if read_messages(&chunk[..length], &mut connections)? {
            return Ok(connections);
        }
    }
    Err(io::Error::other("the kernel's table of unix sockets is too long"))
}

fn request() -> Vec<u8> {
    let mut request = Vec::new();
    // nlmsghdr: length, type, flags, sequence number, port
    request.extend(40_u32.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    request.extend([0; 8]);
    // unix_diag_req: family, states, inode, what to show, cookie
    request.extend([AF_UNIX, 0, 0, 0]);
    request.extend((1_u32 << ESTABLISHED).to_ne_bytes());
    request.extend([0; 4]);
    request.extend((UDIAG_SHOW_NAME | UDIAG_SHOW_PEER).to_ne_bytes());
    request.extend([0; 8]);
    request
}

/// Adds what a datagram tells, and says whether it was the last one.
fn read_messages(mut bytes: &[u8], connections: &mut Vec<Connected>) -> io::Result<bool> {
    while let Some(length) = u32_at(bytes, 0) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length < HEADER || length > bytes.len() {
            return Err(io::Error::other("the kernel's table of unix sockets cannot be read"));
        }
        match u16_at(bytes, 4) {
            Some(NLMSG_DONE) => return Ok(true),
            Some(NLMSG_ERROR) => {
                let errno = u32_at(bytes, HEADER).map_or(0, u32::cast_signed);
                return Err(io::Error::from_raw_os_error(-errno));
            }
            Some(SOCK_DIAG_BY_FAMILY) => connections.extend(connection(&bytes[HEADER..length])),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// A `unix_diag_msg` and its attributes, if it has a path and a peer.
fn connection(message: &[u8]) -> Option<Connected> {
    let mut attributes = message.get(FIXED..)?;
    let (mut path, mut peer) = (None, None);
    while let Some(length) = u16_at(attributes, 0).map(usize::from).filter(|length| *length >= ATTRIBUTE) {
        let value = attributes.get(ATTRIBUTE..length)?;
        match u16_at(attributes, 2) {
            Some(UNIX_DIAG_NAME) if value.first().is_some_and(|first| *first != 0) => {
                let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
                path = Some(PathBuf::from(OsString::from_vec(value[..end].to_vec())));
            }
            // A peer that has closed its end has no inode.
            Some(UNIX_DIAG_PEER) => peer = u32_at(value, 0).filter(|inode| *inode != 0),
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Connected { path: path?, peer: peer? })
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::net::{UnixListener, UnixStream},
    };

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(ATTRIBUTE + value.len()).unwrap();
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn entry(attributes: &[Vec<u8>]) -> Vec<u8> {
        message(SOCK_DIAG_BY_FAMILY, &[vec![0; FIXED], attributes.concat()].concat())
    }

    #[test]
    fn a_connection_has_a_path_and_a_peer() {
        let peer = attribute(UNIX_DIAG_PEER, &7_u32.to_ne_bytes());
        let table = [
            entry(&[attribute(UNIX_DIAG_NAME, b"/run/a"), attribute(9, b"x"), peer.clone()]),
            entry(&[attribute(UNIX_DIAG_NAME, b"\0abstract"), peer.clone()]),
            entry(&[peer]),
            entry(&[attribute(UNIX_DIAG_NAME, b"/run/b")]),
            message(NLMSG_DONE, &[0; 4]),
        ];
        let mut connections = Vec::new();
        assert!(read_messages(&table.concat(), &mut connections).unwrap());
        assert_eq!(connections, [Connected { path: "/run/a".into(), peer: 7 }]);
    }

    #[test]
    fn a_table_that_is_cut_or_refused_is_an_error_and_no_panic() {
        let whole = entry(&[attribute(UNIX_DIAG_NAME, b"/run/a")]);
        for length in 0..whole.len() {
            assert!(!read_messages(&whole[..length], &mut Vec::new()).unwrap_or(false), "{length}");
        }
        let mut wrong = whole;
        wrong[HEADER + FIXED] = 255;
        assert!(!read_messages(&wrong, &mut Vec::new()).unwrap());
        let refusal = read_messages(&message(NLMSG_ERROR, &(-2_i32).to_ne_bytes()), &mut Vec::new());
        assert_eq!(refusal.unwrap_err().raw_os_error(), Some(nix::libc::ENOENT));
    }

    #[test]
    fn the_kernel_tells_who_is_at_the_other_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let is_connected = || connections().unwrap().iter().any(|one| one.path == path);
        let client = UnixStream::connect(&path).unwrap();
        assert!(!is_connected(), "nobody has accepted it");
        let _server = listener.accept().unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", client.as_raw_fd())).unwrap();
        let found = connections().unwrap().into_iter().find(|one| one.path == path).unwrap();
        assert_eq!(link.to_str().unwrap(), format!("socket:[{}]", found.peer));
        drop(client);
        assert!(!is_connected());
    }
}
