//! Addresses: where an agent is, in one word.
//!
//! | Address | What it is |
//! |---|---|
//! | `unix:PATH` | the socket behind a VM's serial port |
//! | `vsock:CID[:PORT]` | a vsock port of a guest |
//! | `vsock-mux:PATH[:PORT]` | the unix socket of Cloud Hypervisor or Firecracker for all vsock ports of a guest |
//! | `libvirt:[URI#]NAME` | a domain of libvirt, through virsh; without a URI, of the connection that virsh chooses |
//! | `serial:PATH` | a pseudo-terminal that a hypervisor has connected to a VM's serial port |
//!
//! Numbers are decimal. A path may contain colons: what follows the last one counts as a port only if it is a number.
//! An address is displayed as it is written.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::virsh::Domain;

/// The vsock port that the examples of qemu-ga's documentation and qgad's socket unit listen on.
pub(crate) const VSOCK_PORT: u32 = 1234;

/// Where an agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// A vsock port, in this guest.
    Vsock { cid: u32, port: u32 },
    /// A vsock port of the guest whose hypervisor serves this unix socket.
    VsockMux { path: PathBuf, port: u32 },
    /// A domain whose agent libvirt talks to.
    Libvirt(Domain),
    /// A terminal.
    Serial(PathBuf),
}

impl Address {
    /// Reads an address; `None` for a text without the prefix of one, which is a name.
    pub(crate) fn parse(text: &str) -> Option<Result<Self, String>> {
        let (prefix, rest) = text.split_once(':')?;
        let address = match prefix {
            "unix" => path(rest).map(Self::Unix),
            "serial" => path(rest).map(Self::Serial),
            "vsock" => vsock(rest).ok_or("vsock:CID[:PORT] has two decimal numbers below 2^32"),
            "libvirt" => libvirt(rest),
            "vsock-mux" => vsock_mux(rest),
            _ => return None,
        };
        Some(address.map_err(|problem| format!("{text} is no address: {problem}")))
    }

    /// The path of the unix socket that leads there, if one does.
    pub(crate) fn socket(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) | Self::VsockMux { path, .. } => Some(path),
            Self::Vsock { .. } | Self::Libvirt(_) | Self::Serial(_) => None,
        }
    }

    /// The path of QEMU's own socket, which serves one peer at a time.
    pub(crate) fn qemu_socket(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Self::Vsock { cid, port } => write!(formatter, "vsock:{cid}:{port}"),
            Self::VsockMux { path, port } => write!(formatter, "vsock-mux:{}:{port}", path.display()),
            Self::Libvirt(Domain { uri: Some(uri), name }) => write!(formatter, "libvirt:{uri}#{name}"),
            Self::Libvirt(Domain { uri: None, name }) => write!(formatter, "libvirt:{name}"),
            Self::Serial(path) => write!(formatter, "serial:{}", path.display()),
        }
    }
}

fn path(text: &str) -> Result<PathBuf, &'static str> {
    match text {
        "" => Err("its path is missing"),
        text => Ok(text.into()),
    }
}

fn vsock(text: &str) -> Option<Address> {
    let (cid, port) = match text.split_once(':') {
        Some((cid, port)) => (cid, number(port)?),
        None => (text, VSOCK_PORT),
    };
    Some(Address::Vsock { cid: number(cid)?, port })
}

fn vsock_mux(text: &str) -> Result<Address, &'static str> {
    let with_port = text.rsplit_once(':').and_then(|(path, port)| Some((path, number(port)?)));
    let (text, port) = with_port.unwrap_or((text, VSOCK_PORT));
    Ok(Address::VsockMux { path: path(text)?, port })
}

/// A URI has no `#`, a name may have.
fn libvirt(text: &str) -> Result<Address, &'static str> {
    let (uri, name) = text.split_once('#').unwrap_or(("", text));
    match name {
        "" => Err("its domain is missing"),
        name => {
            Ok(Address::Libvirt(Domain { uri: Some(uri.to_owned()).filter(|uri| !uri.is_empty()), name: name.into() }))
        }
    }
}

/// Digits only: the standard library's parser accepts a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address as it is displayed, or what is wrong with it.
    fn check(text: &str, expected: Result<&str, &str>) {
        let address = Address::parse(text).unwrap().map(|address| address.to_string());
        assert_eq!(address.as_deref().map_err(|error| error.split(": ").last().unwrap()), expected, "{text}");
    }

    #[test]
    fn an_address_names_its_transport() {
        check("unix:/run/vm1.qga", Ok("unix:/run/vm1.qga"));
        check("unix:a:b", Ok("unix:a:b"));
        check("serial:/dev/pts/7", Ok("serial:/dev/pts/7"));
        check("vsock:3:1024", Ok("vsock:3:1024"));
        check("vsock:4294967295:1", Ok("vsock:4294967295:1"));
        check("vsock-mux:/run/v.sock:52", Ok("vsock-mux:/run/v.sock:52"));
    }

    #[test]
    fn a_vsock_port_that_is_left_out_is_that_of_the_agents_unit() {
        check("vsock:3", Ok("vsock:3:1234"));
        check("vsock-mux:/run/v.sock", Ok("vsock-mux:/run/v.sock:1234"));
        check("vsock-mux:/run/a:b.sock", Ok("vsock-mux:/run/a:b.sock:1234"));
    }

    #[test]
    fn an_address_without_a_path_or_with_wrong_numbers_is_refused() {
        for text in ["unix:", "serial:", "vsock-mux:", "vsock-mux::52"] {
            check(text, Err("its path is missing"));
        }
        for text in ["vsock:", "vsock:x", "vsock:3:", "vsock::1", "vsock:3:0x1", "vsock:4294967296:1", "vsock:-1:1"] {
            check(text, Err("vsock:CID[:PORT] has two decimal numbers below 2^32"));
        }
        check("vsock:+3:1", Err("vsock:CID[:PORT] has two decimal numbers below 2^32"));
    }

    #[test]
    fn a_domain_may_have_the_uri_of_its_connection() {
        check("libvirt:web1", Ok("libvirt:web1"));
        check("libvirt:qemu+ssh://root@host/system#web1", Ok("libvirt:qemu+ssh://root@host/system#web1"));
        check("libvirt:qemu:///session#a#b", Ok("libvirt:qemu:///session#a#b"));
        check("libvirt:#web1", Ok("libvirt:web1"));
        for text in ["libvirt:", "libvirt:#", "libvirt:qemu:///system#"] {
            check(text, Err("its domain is missing"));
        }
    }

    #[test]
    fn everything_else_is_a_name() {
        for text in ["", "web1", "100", "/run/vm1.qga", "web:1", "Unix:/x", "unix"] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }
}
