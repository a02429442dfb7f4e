//! The devices of btrfs.
//!
//! A btrfs has no device number of its own, and may be on several devices. The source of a mount names one of them, by
//! a path that may be gone or lead to another device, such as `/dev/root`. The kernel reports the id of a mounted btrfs
//! ([`ids`]), and sysfs lists the devices by that id. If a btrfs is hidden or does not answer, the device that its
//! source names is used.

use std::{
    fmt::Write,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use super::{
    Probes,
    device::{BlockDevice, Number},
    mounts::{self, Mount},
};
use crate::{root::Root, sys};

/// The type in the kernel's lists of mounts.
pub(crate) const KIND: &str = "btrfs";
/// A directory for each mounted btrfs, by its id.
const FILE_SYSTEMS: &str = "/sys/fs/btrfs";

/// The id of each file system, as sysfs writes it; `None` for one that is no btrfs or does not answer.
pub(crate) fn ids(probes: &Probes, root: &Root, mounts: &[Mount]) -> Vec<Option<String>> {
    let root = root.clone();
    mounts::ask_visible(
        probes,
        None,
        mounts,
        |mount| mount.kind == KIND,
        move |mount| id_of(&root, &mounts::open_path(&root, mount).ok()?),
    )
}

/// The id of the btrfs that a file is on, of which there is an attributes-only descriptor.
pub(crate) fn id_of(root: &Root, found: &OwnedFd) -> Option<String> {
    let opened = mounts::open_found(root, found).ok()?;
    Some(format_id(sys::btrfs::file_system_id(opened.as_fd()).ok()?))
}

/// Whether all devices of a btrfs were removed. In doubt they were not.
pub(crate) fn is_gone(root: &Root, id: &str) -> bool {
    let listed = devices_in(root, id);
    !listed.is_empty() && !listed.iter().any(BlockDevice::exists)
}

/// The present devices of a btrfs, beginning with the one that its source names, if that is one of them. Without an id,
/// they are those of the btrfs that has this device.
pub(crate) fn devices<'a>(root: &'a Root, id: Option<&str>, of_source: Number) -> Vec<BlockDevice<'a>> {
    let source = BlockDevice::by_number(root, of_source);
    let is_source = |device: &BlockDevice<'_>| source.as_ref().is_some_and(|source| source.path() == device.path());
    let mut devices = match id {
        Some(id) => devices_in(root, id),
        None => {
            let ids = root.names(FILE_SYSTEMS).unwrap_or_default();
            let mut all = ids.iter().map(|id| devices_in(root, id));
            all.find(|devices| devices.iter().any(is_source)).unwrap_or_default()
        }
    };
    devices.retain(BlockDevice::exists);
    devices.sort_by_key(|device| (!is_source(device), device.name()));
    // An older kernel has no such list.
    if devices.is_empty() { source.into_iter().collect() } else { devices }
}

fn devices_in<'a>(root: &'a Root, id: impl AsRef<Path>) -> Vec<BlockDevice<'a>> {
    let directory = Path::new(FILE_SYSTEMS).join(id).join("devices");
    let names = root.names(&directory).unwrap_or_default();
    names.iter().filter_map(|name| BlockDevice::by_link(root, &directory.join(name))).collect()
}

/// Formats the bytes of a UUID.
fn format_id(bytes: [u8; 16]) -> String {
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "\
sys/dev/block/7:0 -> ../../devices/virtual/block/loop0
sys/dev/block/7:1 -> ../../devices/virtual/block/loop1
sys/dev/block/8:0 -> ../../devices/pci/sda
sys/devices/virtual/block/loop0/
sys/devices/virtual/block/loop1/
sys/devices/pci/sda/
sys/fs/btrfs/features/
sys/fs/btrfs/1234/devices/loop0 -> ../../../../devices/virtual/block/loop0
sys/fs/btrfs/1234/devices/loop1 -> ../../../../devices/virtual/block/loop1
sys/fs/btrfs/5678/devices/sda -> ../../../../devices/pci/sda
sys/fs/btrfs/5678/devices/sdb -> ../../../../devices/pci/removed
sys/fs/btrfs/9abc/devices/sdc -> ../../../../devices/pci/removed
";

    fn check(tree: &str, id: Option<&str>, of_source: &[u8], expected: &[&str]) {
        let (root, _directory) = Root::from_text(tree);
        let found = devices(&root, id, Number::parse(of_source).unwrap());
        assert_eq!(found.iter().map(BlockDevice::name).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_id_tells_the_devices_whatever_the_source_has_become() {
        check(TWO, Some("1234"), b"7:1", &["loop1", "loop0"]);
        check(TWO, Some("1234"), b"8:0", &["loop0", "loop1"]);
        check(TWO, Some("5678"), b"0:44", &["sda"]);
    }

    #[test]
    fn without_an_id_the_source_tells_them() {
        check(TWO, None, b"7:1", &["loop1", "loop0"]);
        check(TWO, None, b"0:44", &[]);
        check("sys/dev/block/8:0 -> ../../devices/pci/sda\n", None, b"8:0", &["sda"]);
    }

    #[test]
    fn a_btrfs_is_gone_when_the_last_of_its_devices_is() {
        let (root, _directory) = Root::from_text(TWO);
        assert_eq!(["1234", "5678", "9abc", "absent"].map(|id| is_gone(&root, id)), [false, false, true, false]);
    }

    #[test]
    fn an_id_is_formatted_as_sysfs_has_it() {
        let bytes = std::array::from_fn(|index| u8::try_from(index).unwrap() * 17);
        assert_eq!(format_id(bytes), "00112233-4455-6677-8899-aabbccddeeff");
    }
}
