//! Targets: from a name or an address to a stream to the agent.
//!
//! [`address`] says what addresses there are, [`discovery`] which machines this host runs and where their agents are,
//! [`holder`] who is connected to a socket, and [`open`] connects. No agent has answered yet when a stream is open:
//! QEMU accepts connections in any case.

pub(crate) mod address;
pub(crate) mod discovery;
pub(crate) mod holder;
mod serial;
mod sock_diag;
pub(crate) mod virsh;

use std::{
    io,
    net::Shutdown,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::{
    socket::{self, AddressFamily, SockFlag, SockType, SockaddrLike, UnixAddr, VsockAddr, sockopt},
    time::TimeVal,
};
use qga::client::{self, Transport, connect_vsock_mux};

use self::{address::Address, serial::Serial, virsh::Virsh};

/// A stream to an agent, whatever it goes over.
pub(crate) type Stream = Box<dyn AgentStream>;

/// What is needed of such a stream beyond conversations of one request and its reply.
pub(crate) trait AgentStream: Transport + Send {
    /// Readable when there is a reply. `None` where a reply arrives only while it is waited for, as through virsh.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// Ends the connection, so that another one can be made.
    fn disconnect(&self) {}
}

impl AgentStream for UnixStream {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }

    fn disconnect(&self) {
        // Fails only if the other side has done so.
        let _ = self.shutdown(Shutdown::Both);
    }
}

/// Connects to an address. What must be waited for there ends with the timeout.
pub(crate) fn open(address: &Address, timeout: Duration) -> io::Result<Stream> {
    Ok(match address {
        Address::Unix(path) => Box::new(open_unix(path, timeout)?),
        Address::Vsock { cid, port } => {
            Box::new(open_socket(AddressFamily::Vsock, &VsockAddr::new(*cid, *port), timeout)?)
        }
        Address::VsockMux { path, port } => {
            let deadline = Instant::now() + timeout;
            let mut stream = open_unix(path, timeout)?;
            connect_vsock_mux(&mut stream, *port, deadline).map_err(|error| refused_by_mux(error, *port))?;
            Box::new(stream)
        }
        Address::Libvirt(domain) => Box::new(Virsh::open(domain, timeout)?),
        Address::Serial(path) => Box::new(Serial::open(path)?),
    })
}

fn open_unix(path: &Path, timeout: Duration) -> nix::Result<UnixStream> {
    open_socket(AddressFamily::Unix, &UnixAddr::new(path)?, timeout)
}

/// Connects with a timeout: the standard library's connect blocks while other clients queue for a unix socket.
///
/// The standard library's unix stream also serves other stream sockets, such as vsock, for what is needed here.
fn open_socket(family: AddressFamily, address: &dyn SockaddrLike, timeout: Duration) -> nix::Result<UnixStream> {
    let socket: OwnedFd = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
    socket::setsockopt(&socket, sockopt::SendTimeout, &TimeVal::new(seconds, timeout.subsec_micros().into()))?;
    socket::connect(socket.as_raw_fd(), address)?;
    Ok(socket.into())
}

fn refused_by_mux(error: client::Error, port: u32) -> io::Error {
    match error {
        client::Error::Closed => io::Error::other(format!("nobody listens on vsock port {port} of the guest")),
        client::Error::TimedOut => io::Error::other("the hypervisor did not answer CONNECT in time"),
        client::Error::Io(error) => error,
        error => io::Error::other(format!("the hypervisor did not answer CONNECT with OK: {error}")),
    }
}
