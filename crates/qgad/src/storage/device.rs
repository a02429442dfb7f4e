//! One block device: its path in sysfs, its names, and its properties in the udev database.
//!
//! A device is a directory below `/sys/devices`. The file `uevent` there has its numbers and the name of its node.
//! The udev database in `/run/udev/data` has its serial. Without udev, the serial is known only for virtio, where
//! udev would take it from sysfs unchanged.

use std::{
    cell::OnceCell,
    ffi::OsStr,
    fmt, io,
    path::{Component, Path, PathBuf},
};

use nix::{
    fcntl::OFlag,
    libc::dev_t,
    sys::stat::{major, minor},
};

use crate::root::Root;

/// A link to each block device, by its number.
const DEVICES: &str = "/sys/dev/block";

/// A device number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Number {
    /// The number of the driver.
    pub(crate) major: u32,
    /// The number of the device at its driver.
    pub(crate) minor: u32,
}

impl Number {
    /// Reads `8:1`.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let (major, minor) = str::from_utf8(text).ok()?.split_once(':')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    /// The number in the form of stat(2).
    pub(crate) fn of_device(device: dev_t) -> Option<Self> {
        Some(Self { major: major(device).try_into().ok()?, minor: minor(device).try_into().ok()? })
    }
}

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.major, self.minor)
    }
}

/// A block device. Its files are read when they are first needed: there may be thousands of devices.
#[derive(Clone, Debug)]
pub(crate) struct BlockDevice<'a> {
    root: &'a Root,
    path: PathBuf,
    uevent: OnceCell<Vec<u8>>,
    udev: OnceCell<Vec<u8>>,
}

impl<'a> BlockDevice<'a> {
    /// The device with this number, if sysfs has it.
    pub(crate) fn by_number(root: &'a Root, number: Number) -> Option<Self> {
        Self::by_link(root, &Path::new(DEVICES).join(number.to_string()))
    }

    /// Whether the kernel has removed the device with this number, although its file system may still be mounted. In
    /// doubt it has not.
    pub(crate) fn is_gone(root: &Root, number: Number) -> bool {
        // If sysfs lists no devices at all, a missing one means nothing.
        let has_devices = root.names(DEVICES).is_ok_and(|names| !names.is_empty());
        let link = root.read_link(Path::new(DEVICES).join(number.to_string()));
        number.major != 0 && has_devices && link.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// The device that a link in sysfs points to.
    pub(crate) fn by_link(root: &'a Root, link: &Path) -> Option<Self> {
        Some(Self::at(root, follow(root, link)?))
    }

    /// The device whose directory this is.
    pub(crate) fn at(root: &'a Root, path: PathBuf) -> Self {
        Self { root, path, uevent: OnceCell::new(), udev: OnceCell::new() }
    }

    /// Its directory below `/sys/devices`.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its name in the kernel: `sda1`.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned()
    }

    /// Its device node: `/dev/sda1`.
    pub(crate) fn node(&self) -> Option<String> {
        Some(format!("/dev/{}", value(self.uevent(), "DEVNAME=")?))
    }

    /// Its name in the device mapper.
    pub(crate) fn alias(&self) -> Option<String> {
        value(self.udev(), "E:DM_NAME=").filter(|name| !name.is_empty())
    }

    /// Its serial, as udev composes it.
    pub(crate) fn serial(&self) -> Option<String> {
        let known = value(self.udev(), "E:ID_SERIAL=").filter(|serial| !serial.is_empty());
        known.or_else(|| if self.udev().is_empty() { self.virtio_serial() } else { None })
    }

    /// Whether it is on no bus: it consists of other devices, of memory, or of a file.
    pub(crate) fn is_virtual(&self) -> bool {
        self.path.starts_with("/sys/devices/virtual/block")
    }

    /// The devices that it consists of, in directory order. `None` if the kernel has no such list.
    pub(crate) fn underlying(&self) -> Option<Vec<Self>> {
        let mut directory = self.path.join("slaves");
        // A partition has no such list. Its disk has.
        let names = self.root.names(&directory).or_else(|_| {
            directory = self.disk_path().join("slaves");
            self.root.names(&directory)
        });
        let names = names.ok()?;
        Some(names.iter().filter_map(|name| Self::by_link(self.root, &directory.join(name))).collect())
    }

    /// Whether it still is a device of this machine. Links to one that was removed may stay.
    pub(crate) fn exists(&self) -> bool {
        self.root.open(&self.path, OFlag::O_PATH).is_ok()
    }

    /// Its disk if it is a partition, or itself.
    pub(crate) fn disk(&self) -> Self {
        Self::at(self.root, self.disk_path().to_owned())
    }

    /// Its number.
    pub(crate) fn number(&self) -> Option<Number> {
        let number = |key| value(self.uevent(), key)?.parse().ok();
        Some(Number { major: number("MAJOR=")?, minor: number("MINOR=")? })
    }

    /// Its partitions, in directory order.
    pub(crate) fn partitions(&self) -> Vec<Self> {
        let disk = self.name();
        let names = self.root.names(&self.path).unwrap_or_default();
        let partitions = names.iter().filter(|name| name.to_str().is_some_and(|name| is_partition_of(&disk, name)));
        partitions
            .map(|name| Self::at(self.root, self.path.join(name)))
            .filter(|partition| !partition.uevent().is_empty())
            .collect()
    }

    /// Whether its size is 0, as that of a loop device without a file.
    pub(crate) fn is_empty(&self) -> bool {
        self.root.read(self.path.join("size")).map_or(true, |size| size.trim_ascii() == b"0")
    }

    fn uevent(&self) -> &[u8] {
        self.uevent.get_or_init(|| self.root.read(self.path.join("uevent")).unwrap_or_default())
    }

    fn udev(&self) -> &[u8] {
        self.udev.get_or_init(|| match (value(self.uevent(), "MAJOR="), value(self.uevent(), "MINOR=")) {
            (Some(major), Some(minor)) => {
                self.root.read(format!("/run/udev/data/b{major}:{minor}")).unwrap_or_default()
            }
            _ => Vec::new(),
        })
    }

    /// Its directory, or that of its disk if it is a partition.
    fn disk_path(&self) -> &Path {
        let is_partition = value(self.uevent(), "DEVTYPE=").is_some_and(|kind| kind == "partition");
        self.path.parent().filter(|_| is_partition).unwrap_or(&self.path)
    }

    /// The rules of udev take it from this file, without trailing blanks, and only for disks with such names.
    fn virtio_serial(&self) -> Option<String> {
        let disk = self.disk_path();
        if !disk.file_name()?.to_str()?.starts_with("vd") {
            return None;
        }
        let serial = self.root.read(disk.join("serial")).ok()?;
        let serial = serial.trim_ascii_end();
        (!serial.is_empty()).then(|| replace_unsafe(&String::from_utf8_lossy(serial)))
    }
}

/// Replaces each character that udev does not allow in a property from sysfs by an underscore.
fn replace_unsafe(text: &str) -> String {
    let is_safe = |character: char| {
        character.is_ascii_alphanumeric()
            || "#+-.:=@_/ $%?,".contains(character)
            || !character.is_ascii() && character != char::REPLACEMENT_CHARACTER
    };
    text.chars().map(|character| if is_safe(character) { character } else { '_' }).collect()
}

fn is_partition_of(disk: &str, name: &str) -> bool {
    let number = name.strip_prefix(disk).map(|rest| rest.strip_prefix('p').unwrap_or(rest));
    number.is_some_and(|number| number.starts_with(|first: char| first.is_ascii_digit()))
}

/// The target of a link in sysfs. Such links are relative and point to directories, so their text is enough.
pub(super) fn follow(root: &Root, link: &Path) -> Option<PathBuf> {
    let target = root.read_link(link).ok()?;
    let mut path = link.parent()?.to_owned();
    for component in target.components() {
        match component {
            Component::RootDir => path = "/".into(),
            Component::ParentDir => _ = path.pop(),
            Component::Normal(name) => path.push(name),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Some(path)
}

/// The rest of the first line that begins with the key.
fn value(contents: &[u8], key: &str) -> Option<String> {
    let mut lines = contents.split(|&byte| byte == b'\n');
    let value = lines.find_map(|line| line.strip_prefix(key.as_bytes()))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: &str = "\
sys/dev/block/254:0 -> ../../devices/pci0000:00/0000:00:04.0/virtio1/block/vda
sys/devices/pci0000:00/0000:00:04.0/virtio1/block/vda/uevent:
| MAJOR=254
| MINOR=0
| DEVNAME=vda
| DEVTYPE=disk
sys/dev/block/254:1 -> ../../devices/pci0000:00/0000:00:04.0/virtio1/block/vda/vda1
sys/devices/pci0000:00/0000:00:04.0/virtio1/block/vda/vda1/uevent:
| MAJOR=254
| MINOR=1
| DEVNAME=vda1
| DEVTYPE=partition
";

    fn check(more: &str, minor: u32, node: &str, serial: Option<&str>) {
        let (root, _directory) = Root::from_text(&format!("{DISK}{more}"));
        let device = BlockDevice::by_number(&root, Number { major: 254, minor }).unwrap();
        assert_eq!(device.node().as_deref(), Some(node));
        assert_eq!(device.serial().as_deref(), serial);
    }

    #[test]
    fn the_serial_is_that_of_udev() {
        let udev = "run/udev/data/b254:0:\n| S:disk/by-id/x\n| E:ID_SERIAL=from-udev\n| E:ID_FS_TYPE=ext4\n";
        check(udev, 0, "/dev/vda", Some("from-udev"));
        check("run/udev/data/b254:1:\n| E:ID_SERIAL=of-the-partition\n", 1, "/dev/vda1", Some("of-the-partition"));
    }

    const SERIAL: &str = "sys/devices/pci0000:00/0000:00:04.0/virtio1/block/vda/serial:";

    #[test]
    fn without_udev_a_virtio_disk_and_its_partitions_have_the_serial_of_the_kernel() {
        check(&format!("{SERIAL} my disk-1 \n"), 0, "/dev/vda", Some("my disk-1"));
        check(&format!("{SERIAL} my&disk\n"), 1, "/dev/vda1", Some("my_disk"));
        check(&format!("{SERIAL}\n"), 0, "/dev/vda", None);
        check("", 0, "/dev/vda", None);
    }

    #[test]
    fn the_database_of_udev_comes_first() {
        check(&format!("{SERIAL} kernel\nrun/udev/data/b254:0:\n| I:1\n"), 0, "/dev/vda", None);
        check(&format!("{SERIAL} kernel\nrun/udev/data/b254:0:\n| E:ID_SERIAL=\n"), 0, "/dev/vda", None);
    }

    #[test]
    fn a_partition_is_named_after_its_disk_and_numbered() {
        for (disk, name, expected) in [
            ("sda", "sda1", true),
            ("nvme0n1", "nvme0n1p12", true),
            ("sda", "sda", false),
            ("sda", "sdap", false),
            ("sda", "sdb1", false),
            ("sda", "queue", false),
        ] {
            assert_eq!(is_partition_of(disk, name), expected, "{disk} {name}");
        }
    }

    #[test]
    fn a_device_is_gone_when_the_kernel_has_others_and_not_this_one() {
        let check = |tree: &str, number: &[u8], expected| {
            let (root, _directory) = Root::from_text(tree);
            assert_eq!(BlockDevice::is_gone(&root, Number::parse(number).unwrap()), expected);
        };
        check(DISK, b"254:1", false);
        check(DISK, b"8:0", true);
        check(DISK, b"0:44", false);
        check("sys/dev/block/\n", b"8:0", false);
        check("sys/\n", b"8:0", false);
    }

    #[test]
    fn a_device_without_any_file_has_its_name_and_nothing_else() {
        let (root, _directory) = Root::from_text("sys/dev/block/8:0 -> ../../devices/odd/sda\n");
        let device = BlockDevice::by_number(&root, Number { major: 8, minor: 0 }).unwrap();
        assert_eq!((device.name().as_str(), device.node(), device.serial()), ("sda", None, None));
        assert!(device.is_empty() && device.underlying().is_none() && device.partitions().is_empty());
    }
}
