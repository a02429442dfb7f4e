//! A vsock client: it sends its input, shuts down that half, and writes to its output what it receives.

use std::{fs::File, io, os::fd::AsRawFd};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, VsockAddr};

/// Connects to a context id and a port, both decimal.
pub(crate) fn connect(address: &[String]) -> Result<()> {
    let [cid, port] = address else { bail!("a vsock address is CID PORT") };
    let socket = socket::socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    socket::connect(socket.as_raw_fd(), &VsockAddr::new(cid.parse()?, port.parse()?))
        .with_context(|| format!("failed to connect to vsock {cid}:{port}"))?;
    let mut stream = File::from(socket);
    io::copy(&mut io::stdin(), &mut stream)?;
    socket::shutdown(stream.as_raw_fd(), socket::Shutdown::Write)?;
    io::copy(&mut stream, &mut io::stdout())?;
    Ok(())
}
