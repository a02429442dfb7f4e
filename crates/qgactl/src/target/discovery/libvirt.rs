//! Which machines are libvirt's domains, and of which connection.
//!
//! libvirt gives each domain a directory of its own, which its command line names: below `/var/lib/libvirt/qemu` where
//! the system's daemon runs it, below a user's `libvirt/qemu/lib` in that user's session. So an unprivileged user
//! learns it too, without a question to the daemon.

use super::qemu::Options;

/// What the command line of each domain contains, with the URI of the connection.
const DIRECTORIES: [(&str, &str); 2] =
    [("/var/lib/libvirt/qemu/domain-", "qemu:///system"), ("/libvirt/qemu/lib/domain-", "qemu:///session")];

/// The URI of the connection that has this machine as a domain.
pub(super) fn uri(options: &Options) -> Option<&'static str> {
    let contains = |part: &str| options.all("object").any(|object| object.to_string_lossy().contains(part));
    DIRECTORIES.iter().find(|(directory, _)| contains(directory)).map(|(_, uri)| *uri)
}
