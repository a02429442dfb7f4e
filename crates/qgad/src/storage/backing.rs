//! What is below a loop device: another device, or a file.
//!
//! The loop driver reports the device number and the inode of its file. sysfs has the file's path only as it was when
//! the device was set up: the file may be deleted, hidden, or in another mount namespace, and another file may have its
//! path. So the path counts only if it leads to the same file, which can be checked without any request to a file
//! system.

use std::{
    ffi::OsStr,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use nix::{fcntl::OFlag, sys::stat::fstat};

use super::{
    device::{BlockDevice, Number},
    mounts::id_of_mount,
};
use crate::{
    root::Root,
    sys::loop_device::{BackingFile, backing_file},
};

/// What a loop device reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// Another device.
    Device(Number),
    /// A file.
    File {
        /// The device number of its file system as stat(2) has it, if it is known. On btrfs it is that of a subvolume,
        /// which is in no list of mounts.
        file_system: Option<Number>,
        /// The id of a mount that shows the file, if one is known.
        mount: Option<u64>,
    },
}

/// What is below a device, if it is a loop device or a partition of one. This may hang as any access to a file.
///
/// `about_to_open` is called with each path before it is opened.
pub(crate) fn of(root: &Root, device: &BlockDevice<'_>, about_to_open: &impl Fn(&Path)) -> Option<Backing> {
    let (disk, path) = image(root, device)?;
    let file = status(root, &disk, about_to_open);
    if let Some(number) =
        file.and_then(|file| Number::of_device(file.device_of_node)).filter(|number| number.major != 0)
    {
        return Some(Backing::Device(number));
    }
    let mount = file.and_then(|file| {
        about_to_open(&path);
        mount_of(root, &path, file)
    });
    Some(Backing::File { file_system: file.and_then(|file| Number::of_device(file.device)), mount })
}

/// The loop device, and the path of its file, as sysfs has it.
fn image<'a>(root: &Root, device: &BlockDevice<'a>) -> Option<(BlockDevice<'a>, PathBuf)> {
    let disk = device.disk();
    let path = root.read(disk.path().join("loop/backing_file")).ok()?;
    Some((disk, OsStr::from_bytes(path.strip_suffix(b"\n").unwrap_or(&path)).into()))
}

/// The file as the driver reports it. `None` if the node is gone or belongs to another device.
fn status(root: &Root, disk: &BlockDevice<'_>, about_to_open: &impl Fn(&Path)) -> Option<BackingFile> {
    let node = disk.node()?;
    about_to_open(Path::new(&node));
    let opened = root.open(&node, OFlag::O_RDONLY | OFlag::O_NONBLOCK).ok()?;
    if Number::of_device(fstat(&opened).ok()?.st_rdev) != disk.number() {
        return None;
    }
    backing_file(opened.as_fd()).ok()
}

/// The mount that a path leads to, if the file there is the driver's.
fn mount_of(root: &Root, path: &Path, file: BackingFile) -> Option<u64> {
    let opened = root.open_cached(path, OFlag::O_PATH).ok()?;
    let status = fstat(&opened).ok()?;
    let is_same = (file.device, file.inode) == (status.st_dev, status.st_ino);
    if is_same { id_of_mount(root, &opened) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOP: &str = "\
sys/dev/block/7:0 -> ../../devices/virtual/block/loop0
sys/devices/virtual/block/loop0/uevent:
| MAJOR=7
| MINOR=0
| DEVNAME=loop0
| DEVTYPE=disk
sys/devices/virtual/block/loop0/loop/backing_file: /image
sys/dev/block/7:1 -> ../../devices/virtual/block/loop0/loop0p1
sys/devices/virtual/block/loop0/loop0p1/uevent: DEVTYPE=partition
sys/dev/block/8:0 -> ../../devices/pci/sda
dev/loop0: stands for the node
image: a file
";

    fn check(number: &[u8], expected: Option<Backing>, paths: &[&str]) {
        let (root, _directory) = Root::from_text(LOOP);
        let device = BlockDevice::by_number(&root, Number::parse(number).unwrap()).unwrap();
        let opened = std::cell::RefCell::new(Vec::new());
        let found = of(&root, &device, &|path| opened.borrow_mut().push(path.to_str().unwrap().to_owned()));
        assert_eq!((found, opened.into_inner()), (expected, paths.iter().map(ToString::to_string).collect()));
    }

    #[test]
    fn a_loop_device_that_cannot_be_asked_stands_on_an_unknown_file() {
        let unknown = Some(Backing::File { file_system: None, mount: None });
        check(b"7:0", unknown, &["/dev/loop0"]);
        check(b"7:1", unknown, &["/dev/loop0"]);
        check(b"8:0", None, &[]);
    }
}
