//! Which machines are libvirt's domains, of which connection, and what virsh calls them.
//!
//! libvirt gives each domain a directory of its own, which its command line names: below `/var/lib/libvirt/qemu` where
//! the system's daemon runs it, below a user's `libvirt/qemu/lib` in that user's session. So an unprivileged user
//! learns it too, without a question to the daemon.

use nix::unistd::geteuid;

use super::qemu::Options;
use crate::target::{address::Address, virsh::Domain};

const SYSTEM: &str = "qemu:///system";
const SESSION: &str = "qemu:///session";

/// What the command line of each domain contains, with the URI of the connection.
const DIRECTORIES: [(&str, &str); 2] =
    [("/var/lib/libvirt/qemu/domain-", SYSTEM), ("/libvirt/qemu/lib/domain-", SESSION)];

/// The URI of the connection that has this machine as a domain.
pub(super) fn uri(options: &Options) -> Option<&'static str> {
    let contains = |part: &str| options.all("object").any(|object| object.to_string_lossy().contains(part));
    DIRECTORIES.iter().find(|(directory, _)| contains(directory)).map(|(_, uri)| *uri)
}

/// The way to a domain that runs as this user, or why there is none. A session is that of the user who asks.
pub(super) fn address(uri: &str, user: Option<u32>, name: &str, uuid: Option<&str>) -> Result<Address, String> {
    match user {
        Some(user) if uri == SESSION && user != geteuid().as_raw() => {
            Err(format!("belongs to the libvirt session of user {user}"))
        }
        _ => {
            // virsh takes a number for an id.
            let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
            let name = uuid.filter(|_| is_number).unwrap_or(name).to_owned();
            Ok(Address::Libvirt(Domain { uri: Some(uri.to_owned()), name }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uri: &str, user: u32, name: &str, expected: Result<&str, &str>) {
        let address = address(uri, Some(user), name, Some("aa-1")).map(|address| address.to_string());
        assert_eq!(address.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn a_domain_is_called_by_its_name_unless_virsh_would_take_that_for_an_id() {
        check(SYSTEM, 64055, "web1", Ok("libvirt:qemu:///system#web1"));
        check(SYSTEM, 64055, "100", Ok("libvirt:qemu:///system#aa-1"));
    }

    #[test]
    fn the_session_of_another_user_is_out_of_reach() {
        let us = geteuid().as_raw();
        check(SESSION, us, "web1", Ok("libvirt:qemu:///session#web1"));
        check(SESSION, u32::MAX - 7, "web1", Err("belongs to the libvirt session of user 4294967288"));
    }
}
