//! Who is connected to a socket of QEMU, which serves one peer at a time.
//!
//! A second peer would wait in the queue, and be served when the first one leaves: after a restart of libvirt, in
//! libvirt's stead, which then believes the agent to be gone. So qgactl asks before it connects to a path.
//! What the kernel or missing rights do not reveal is unknown, and then nobody is said to hold the socket.

use std::{
    collections::HashMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::{
    discovery::Host,
    sock_diag::{self, Connected},
};

/// What libvirt's daemons are called, as far as the kernel keeps the name.
const LIBVIRT: [&str; 2] = ["libvirtd", "virtqemud"];

/// The connections to this host's sockets at one moment.
#[derive(Debug)]
pub(crate) struct Connections {
    host: Host,
    connected: Vec<Connected>,
    /// The process that has a socket open, by inode. It costs a look at every descriptor of every process.
    owners: OnceLock<HashMap<u32, u32>>,
}

/// Who is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The process and its name, if they can be seen.
    pub(crate) process: Option<(u32, String)>,
}

impl Connections {
    /// Those of this host, now.
    pub(crate) fn now() -> Self {
        Self::of(Host::this(), sock_diag::connections().unwrap_or_default())
    }

    fn of(host: Host, connected: Vec<Connected>) -> Self {
        Self { host, connected, owners: OnceLock::new() }
    }

    /// Who is connected to the socket at a path.
    pub(crate) fn holder(&self, path: &Path) -> Option<Holder> {
        let connection = self.connected.iter().find(|one| one.path == path || is_same(&one.path, path))?;
        let pid = self.owners.get_or_init(|| owners(&self.host)).get(&connection.peer).copied();
        let name = |pid: u32| String::from_utf8(self.host.read(&format!("proc/{pid}/comm"))?).ok();
        Some(Holder { process: pid.map(|pid| (pid, name(pid).unwrap_or_default().trim_end().to_owned())) })
    }
}

impl Holder {
    /// Whether it is libvirt, which keeps its connection as long as it runs.
    pub(crate) fn is_libvirt(&self) -> bool {
        self.process.as_ref().is_some_and(|(_, name)| LIBVIRT.contains(&name.as_str()))
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((pid, name)) => write!(formatter, "{name} ({pid})"),
            None => formatter.write_str("another user's program"),
        }
    }
}

/// Whether two paths lead to the same socket, for instance through a link from /var/run to /run.
fn is_same(one: &Path, other: &Path) -> bool {
    let canonical = |path| fs::canonicalize(path).ok();
    one.file_name() == other.file_name() && canonical(one).is_some() && canonical(one) == canonical(other)
}

fn owners(host: &Host) -> HashMap<u32, u32> {
    let inode = |link: PathBuf| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    let sockets = |pid| host.links(&format!("proc/{pid}/fd")).filter_map(inode).map(move |inode: u32| (inode, pid));
    host.processes().into_iter().flat_map(sockets).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections() -> (Connections, tempfile::TempDir) {
        let (host, directory) = Host::from_text(
            "proc/12/fd/0 -> /dev/null
             proc/12/fd/3 -> socket:[7]
             proc/12/comm: virtqemud
             proc/13/fd/4 -> socket:[8]
             proc/13/comm: qgactl",
        );
        let connected = [("/run/a", 7), ("/run/b", 8), ("/run/c", 9)];
        let connected = connected.map(|(path, peer)| Connected { path: path.into(), peer });
        (Connections::of(host, connected.into()), directory)
    }

    fn check(path: &str, expected: Option<(&str, bool)>) {
        let (connections, _directory) = connections();
        let holder = connections.holder(path.as_ref());
        let said = holder.as_ref().map(|holder| (holder.to_string(), holder.is_libvirt()));
        assert_eq!(said.as_ref().map(|(text, is_libvirt)| (text.as_str(), *is_libvirt)), expected, "{path}");
    }

    #[test]
    fn the_holder_is_the_process_that_has_the_other_end_open() {
        check("/run/a", Some(("virtqemud (12)", true)));
        check("/run/b", Some(("qgactl (13)", false)));
        check("/run/c", Some(("another user's program", false)));
        check("/run/d", None);
    }
}
