//! `/dev/virtio-ports`, as udev maintains it: a link per port, by the name that the host gave it.
//!
//! A uevent of the kernel is only a reason to look: the links follow the ports that exist now.

use std::{
    collections::BTreeMap,
    fs,
    os::{fd::AsRawFd, fd::OwnedFd, unix::fs::symlink},
    path::{Path, PathBuf},
};

use anyhow::Result;
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket},
};

/// The directory of the links.
pub(crate) const DIRECTORY: &str = "/dev/virtio-ports";
/// More than the longest uevent: the kernel composes them in a buffer of 2 KiB.
const MAX_EVENT_BYTES: usize = 8192;
/// The netlink group of the kernel's own uevents; udev has another.
const KERNEL_EVENTS: u32 = 1;

/// The kernel's uevents.
pub(crate) struct Watch(OwnedFd);

impl Watch {
    pub(crate) fn new() -> Result<Self> {
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_EVENTS))?;
        fs::create_dir_all(DIRECTORY)?;
        Ok(Self(socket))
    }

    /// Maintains the links until this one exists.
    pub(crate) fn wait_for(&self, link: &Path) -> Result<()> {
        update()?;
        while link.symlink_metadata().is_err() {
            self.update_at_next_event()?;
        }
        Ok(())
    }

    /// Maintains the links until the guest ends.
    pub(crate) fn run(&self) {
        loop {
            if let Err(error) = self.update_at_next_event() {
                eprintln!("vmtest: failed to maintain {DIRECTORY}: {error:#}");
            }
        }
    }

    fn update_at_next_event(&self) -> Result<()> {
        match recv(self.0.as_raw_fd(), &mut [0; MAX_EVENT_BYTES], MsgFlags::empty()) {
            // After lost events, too, the ports tell the truth.
            Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => update(),
            Err(error) => Err(error.into()),
        }
    }
}

fn update() -> Result<()> {
    let wanted = named_ports();
    for link in fs::read_dir(DIRECTORY)? {
        let link = link?.path();
        if wanted.get(&link) != fs::read_link(&link).ok().as_ref() {
            fs::remove_file(link)?;
        }
    }
    for (link, port) in wanted {
        if link.symlink_metadata().is_err() {
            symlink(port, link)?;
        }
    }
    Ok(())
}

/// The links and their targets. A port has no name until the host has sent it.
fn named_ports() -> BTreeMap<PathBuf, PathBuf> {
    let Ok(ports) = fs::read_dir("/sys/class/virtio-ports") else { return BTreeMap::new() };
    ports
        .filter_map(|port| {
            let port = port.ok()?;
            let name = fs::read_to_string(port.path().join("name")).ok()?;
            let device = Path::new("../").join(port.file_name());
            let is_there = Path::new("/dev").join(port.file_name()).exists();
            (is_there && !name.trim().is_empty()).then(|| (Path::new(DIRECTORY).join(name.trim()), device))
        })
        .collect()
}
