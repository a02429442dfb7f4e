//! One block device: its place in sysfs, its names, and what udev knows of it.
//!
//! A device is its directory below `/sys/devices`. The kernel's `uevent` file there has its numbers and the name of its
//! node, udev's database in `/run/udev/data` its serial. Without udev the serial is known only where the kernel has the
//! very string that udev would compose, which is so for virtio.

use std::{
    cell::OnceCell,
    ffi::OsStr,
    fmt,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use crate::root::Root;

/// A device's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Number {
    /// Of the driver.
    pub(crate) major: u32,
    /// Of the device among those of the driver.
    pub(crate) minor: u32,
}

impl Number {
    /// Reads `8:1`.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let (major, minor) = str::from_utf8(text).ok()?.split_once(':')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.major, self.minor)
    }
}

/// A block device. Its files are read when they are first asked for: there may be thousands of devices.
#[derive(Clone, Debug)]
pub(crate) struct BlockDevice<'a> {
    root: &'a Root,
    path: PathBuf,
    uevent: OnceCell<Vec<u8>>,
    udev: OnceCell<Vec<u8>>,
}

impl<'a> BlockDevice<'a> {
    /// The device with these numbers, if sysfs has it.
    pub(crate) fn numbered(root: &'a Root, number: Number) -> Option<Self> {
        Self::behind(root, Path::new(&format!("/sys/dev/block/{number}")))
    }

    /// The device that a link in sysfs leads to.
    pub(crate) fn behind(root: &'a Root, link: &Path) -> Option<Self> {
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

    /// The kernel's name of it: `sda1`.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned()
    }

    /// Its device node: `/dev/sda1`.
    pub(crate) fn node(&self) -> Option<String> {
        Some(format!("/dev/{}", value(self.uevent(), "DEVNAME=")?))
    }

    /// The name that the device mapper gave it.
    pub(crate) fn alias(&self) -> Option<String> {
        value(self.udev(), "E:DM_NAME=").filter(|name| !name.is_empty())
    }

    /// Its serial, as udev composes it.
    pub(crate) fn serial(&self) -> Option<String> {
        let known = value(self.udev(), "E:ID_SERIAL=").filter(|serial| !serial.is_empty());
        known.or_else(|| if self.udev().is_empty() { self.virtio_serial() } else { None })
    }

    /// Whether it is made of others, or of memory or a file: the kernel places it on no bus.
    pub(crate) fn is_virtual(&self) -> bool {
        self.path.starts_with("/sys/devices/virtual/block")
    }

    /// The devices it is made of, in the directory's order; nothing where the kernel keeps no such list.
    pub(crate) fn parts(&self) -> Option<Vec<Self>> {
        let mut directory = self.path.join("slaves");
        // A partition has no such list: its disk has.
        let names = self.root.names(&directory).or_else(|_| {
            directory = self.disk_path().join("slaves");
            self.root.names(&directory)
        });
        let names = names.ok()?;
        Some(names.iter().filter_map(|name| Self::behind(self.root, &directory.join(name))).collect())
    }

    /// The file that it is made of, if it is a loop device or a partition of one.
    pub(crate) fn image(&self) -> Option<PathBuf> {
        let path = self.root.read(self.disk_path().join("loop/backing_file")).ok()?;
        Some(OsStr::from_bytes(path.strip_suffix(b"\n").unwrap_or(&path)).into())
    }

    /// The partitions it is divided into, in the directory's order.
    pub(crate) fn partitions(&self) -> Vec<Self> {
        let disk = self.name();
        let names = self.root.names(&self.path).unwrap_or_default();
        let partitions = names.iter().filter(|name| name.to_str().is_some_and(|name| is_partition_of(&disk, name)));
        partitions
            .map(|name| Self::at(self.root, self.path.join(name)))
            .filter(|partition| !partition.uevent().is_empty())
            .collect()
    }

    /// Whether it holds anything. Loop devices and the like exist before they do.
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

    /// Its own directory, or its disk's if it is a partition.
    fn disk_path(&self) -> &Path {
        let is_partition = value(self.uevent(), "DEVTYPE=").is_some_and(|kind| kind == "partition");
        self.path.parent().filter(|_| is_partition).unwrap_or(&self.path)
    }

    /// udev takes it from this file, without blanks behind it, and only for disks whose names begin so.
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

/// What udev allows in a property that comes from a file of sysfs; anything else becomes an underscore.
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

/// Where a link of sysfs leads. Its links are relative and lead to directories, so that its text is enough.
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

/// What stands behind this on its line.
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
        let device = BlockDevice::numbered(&root, Number { major: 254, minor }).unwrap();
        assert_eq!(device.node().as_deref(), Some(node));
        assert_eq!(device.serial().as_deref(), serial);
    }

    #[test]
    fn the_serial_is_udevs() {
        let udev = "run/udev/data/b254:0:\n| S:disk/by-id/x\n| E:ID_SERIAL=from-udev\n| E:ID_FS_TYPE=ext4\n";
        check(udev, 0, "/dev/vda", Some("from-udev"));
        check("run/udev/data/b254:1:\n| E:ID_SERIAL=of-the-partition\n", 1, "/dev/vda1", Some("of-the-partition"));
    }

    const SERIAL: &str = "sys/devices/pci0000:00/0000:00:04.0/virtio1/block/vda/serial:";

    #[test]
    fn without_udev_a_virtio_disk_and_its_partitions_have_the_kernels() {
        check(&format!("{SERIAL} my disk-1 \n"), 0, "/dev/vda", Some("my disk-1"));
        check(&format!("{SERIAL} my&disk\n"), 1, "/dev/vda1", Some("my_disk"));
        check(&format!("{SERIAL}\n"), 0, "/dev/vda", None);
        check("", 0, "/dev/vda", None);
    }

    #[test]
    fn udev_has_the_last_word() {
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
    fn a_device_without_any_file_has_its_name_and_nothing_else() {
        let (root, _directory) = Root::from_text("sys/dev/block/8:0 -> ../../devices/odd/sda\n");
        let device = BlockDevice::numbered(&root, Number { major: 8, minor: 0 }).unwrap();
        assert_eq!((device.name().as_str(), device.node(), device.serial()), ("sda", None, None));
        assert!(device.is_empty() && device.parts().is_none() && device.partitions().is_empty());
    }
}
