//! The mounted file systems on block devices.
//!
//! They are in the order of mounting. [`list`] has each file system once, with its first mount: bind mounts and further
//! subvolumes belong to the same file system. File systems without a block device are left out. btrfs has none in the
//! kernel's list; its device is the one that it was mounted from. Mount points are bytes, exactly as the kernel has
//! them.

use std::{
    collections::HashSet,
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use nix::{
    fcntl::OFlag,
    libc,
    sys::stat::{fstat, major, minor},
};
use qga::wire::message::Error;

use super::device::Number;
use crate::root::Root;

/// One mount of a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The id of the mount. 0 if it is unknown.
    pub(crate) id: u64,
    /// The id of the mount that it is mounted on. 0 if it is unknown.
    pub(crate) parent: u64,
    /// The device number of the file system: that of its device, or an anonymous one.
    pub(crate) file_system: Number,
    /// Its block device. 0:0 if it is unknown.
    pub(crate) device: Number,
    /// The mount point.
    pub(crate) mount_point: PathBuf,
    /// The type: `ext4`.
    pub(crate) kind: String,
}

/// The number of an unknown device.
const UNKNOWN: Number = Number { major: 0, minor: 0 };

/// What the path of a mount's source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Block(Number),
    Directory,
    Other,
}

/// Lists the mounted file systems in the order of mounting.
///
/// # Errors
/// When the kernel's lists cannot be read.
pub(crate) fn list(root: &Root) -> Result<Vec<Mount>, Error> {
    Ok(first_of_each(all(root)?))
}

/// Lists all mounts of these file systems in the order of mounting.
///
/// # Errors
/// When the kernel's lists cannot be read.
pub(crate) fn all(root: &Root) -> Result<Vec<Mount>, Error> {
    let source = |path: &Path| look_at(root, path);
    if let Ok(contents) = root.read("/proc/self/mountinfo") {
        return Ok(read_mountinfo(&contents, source));
    }
    match root.read("/proc/self/mounts") {
        Ok(contents) => Ok(read_mounts(&contents, source)),
        Err(_) => Err(Error::generic("failed to open mtab file: '/proc/self/mounts'")),
    }
}

/// A mount of any file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountPoint {
    /// The mount point.
    pub(crate) path: PathBuf,
    /// The device number of the file system: that of its device, or an anonymous one.
    pub(crate) file_system: Number,
    /// The type, as bytes: `fuse.sshfs`.
    pub(crate) kind: Vec<u8>,
}

/// Lists all mounts, also those without a block device, in the order of mounting. Empty if the kernel's list cannot be
/// read.
pub(crate) fn mount_points(root: &Root) -> Vec<MountPoint> {
    let contents = root.read("/proc/self/mountinfo").unwrap_or_default();
    let lines = contents.split(|&byte| byte == b'\n').filter_map(Line::parse);
    let mount_point = |line: Line<'_>| MountPoint {
        path: path(line.mount_point),
        file_system: line.file_system,
        kind: line.kind.into(),
    };
    lines.map(mount_point).collect()
}

/// File systems with unknown numbers all count as different.
fn first_of_each(mut mounts: Vec<Mount>) -> Vec<Mount> {
    let mut known = HashSet::new();
    mounts.retain(|mount| mount.file_system == UNKNOWN || known.insert(mount.file_system));
    mounts
}

fn look_at(root: &Root, path: &Path) -> Option<Source> {
    let status = fstat(root.open(path, OFlag::O_PATH).ok()?).ok()?;
    Some(match status.st_mode & libc::S_IFMT {
        libc::S_IFBLK => Source::Block(Number {
            major: major(status.st_rdev).try_into().ok()?,
            minor: minor(status.st_rdev).try_into().ok()?,
        }),
        libc::S_IFDIR => Source::Directory,
        _ => Source::Other,
    })
}

fn read_mountinfo(contents: &[u8], source_of: impl Fn(&Path) -> Option<Source>) -> Vec<Mount> {
    let mounts = contents.split(|&byte| byte == b'\n').filter_map(|line| {
        let line = Line::parse(line)?;
        let device = match line.file_system.major {
            0 if line.kind == b"btrfs" => match source_of(&path(line.source)) {
                Some(Source::Block(device)) => device,
                _ => return None,
            },
            0 => return None,
            _ => line.file_system,
        };
        let Line { id, parent, file_system, .. } = line;
        Some(Mount { id, parent, file_system, device, mount_point: path(line.mount_point), kind: text(line.kind) })
    });
    mounts.collect()
}

/// A line of mountinfo, see proc(5).
struct Line<'a> {
    id: u64,
    parent: u64,
    file_system: Number,
    mount_point: &'a [u8],
    kind: &'a [u8],
    source: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b' ');
        let id = number(fields.next()?)?;
        let parent = number(fields.next()?)?;
        let file_system = Number::parse(fields.next()?)?;
        let mount_point = fields.nth(1)?;
        // A dash ends the optional fields.
        let mut after_dash = fields.skip_while(|&field| field != b"-").skip(1);
        Some(Self { id, parent, file_system, mount_point, kind: after_dash.next()?, source: after_dash.next()? })
    }
}

/// The older list, where mountinfo cannot be read. It has the paths of sources instead of device numbers.
fn read_mounts(contents: &[u8], source_of: impl Fn(&Path) -> Option<Source>) -> Vec<Mount> {
    let mounts = contents.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let (source, mount_point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        if !source.starts_with(b"/") || kind == b"smbfs" || kind == b"cifs" {
            return None;
        }
        let device = match source_of(&path(source)) {
            Some(Source::Directory) => return None,
            Some(Source::Block(device)) => device,
            Some(Source::Other) | None => UNKNOWN,
        };
        Some(Mount { id: 0, parent: 0, file_system: device, device, mount_point: path(mount_point), kind: text(kind) })
    });
    mounts.collect()
}

fn number(field: &[u8]) -> Option<u64> {
    str::from_utf8(field).ok()?.parse().ok()
}

fn path(field: &[u8]) -> PathBuf {
    OsString::from_vec(unescape(field)).into()
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

/// Resolves the escapes of the kernel: a backslash and three octal digits, or two backslashes.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = match (byte, behind) {
            (b'\\', [high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', behind @ ..]) => {
                bytes.push((high - b'0') << 6 | (middle - b'0') << 3 | (low - b'0'));
                behind
            }
            (b'\\', [b'\\', behind @ ..]) => {
                bytes.push(b'\\');
                behind
            }
            _ => {
                bytes.push(byte);
                behind
            }
        };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    /// `/dev/sda` is 8:0, `/dev/loop1` 7:1, `/srv` a directory, `/file` a file. Nothing else exists.
    fn source_of(path: &Path) -> Option<Source> {
        match path.to_str()? {
            "/dev/sda" => Some(Source::Block(Number { major: 8, minor: 0 })),
            "/dev/loop1" => Some(Source::Block(Number { major: 7, minor: 1 })),
            "/srv" => Some(Source::Directory),
            "/file" => Some(Source::Other),
            _ => None,
        }
    }

    fn check(mountinfo: &str, expected: &[(u32, u32, &[u8], &str)]) {
        compare(&first_of_each(read_mountinfo(mountinfo.as_bytes(), source_of)), expected);
    }

    fn compare(mounts: &[Mount], expected: &[(u32, u32, &[u8], &str)]) {
        let mounts: Vec<_> = mounts
            .iter()
            .map(|mount| {
                let mount_point = mount.mount_point.as_os_str().as_bytes();
                (mount.device.major, mount.device.minor, mount_point, mount.kind.as_str())
            })
            .collect();
        assert_eq!(mounts, expected);
    }

    #[test]
    fn file_systems_on_block_devices_are_listed_in_the_order_of_mounting() {
        check(
            "22 27 0:21 / /proc rw - proc proc rw\n27 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw\n\
             30 27 0:40 / /merged rw - overlay overlay rw\n31 27 8:16 / /data rw - xfs /dev/sdb rw\n",
            &[(254, 1, b"/", "ext4"), (8, 16, b"/data", "xfs")],
        );
    }

    #[test]
    fn a_line_may_have_any_number_of_optional_fields() {
        check("27 1 8:1 / /a rw shared:1 master:2 - ext4 /dev/sda1 rw\n", &[(8, 1, b"/a", "ext4")]);
        check("27 1 8:1 / /a rw - ext4 /dev/sda1 rw\n", &[(8, 1, b"/a", "ext4")]);
    }

    #[test]
    fn of_several_mounts_of_a_device_the_first_is_listed() {
        check(
            "27 1 8:1 / / rw - ext4 /dev/sda1 rw\n28 27 8:1 /home /bind rw - ext4 /dev/sda1 rw\n\
             29 27 8:2 / /b rw - ext4 /dev/sda2 rw\n",
            &[(8, 1, b"/", "ext4"), (8, 2, b"/b", "ext4")],
        );
    }

    #[test]
    fn the_device_of_btrfs_is_the_one_it_was_mounted_from() {
        check(
            "27 1 0:30 / / rw - btrfs /dev/sda rw\n28 27 0:30 /home /home rw - btrfs /dev/sda rw\n\
             29 27 0:31 / /x rw - btrfs /dev/absent rw\n30 27 0:32 / /y rw - btrfs /srv rw\n",
            &[(8, 0, b"/", "btrfs")],
        );
    }

    #[test]
    fn mount_points_are_bytes() {
        check(
            r"27 1 8:1 / /with\040blank\011and\134backslash rw - ext4 /dev/sda1 rw",
            &[(8, 1, b"/with blank\tand\\backslash", "ext4")],
        );
        let line = b"27 1 8:1 / /caf\xE9 rw - ext4 /dev/sda1 rw\n";
        compare(&read_mountinfo(line, source_of), &[(8, 1, b"/caf\xE9", "ext4")]);
    }

    #[test]
    fn what_only_looks_like_an_escape_is_unchanged() {
        assert_eq!(unescape(br"\04"), br"\04");
        assert_eq!(unescape(br"\0a8\\\777\"), br"\0a8\\777\");
        assert_eq!(unescape(br"\377"), b"\xFF");
    }

    #[test]
    fn an_invalid_line_affects_no_other() {
        check(
            "\ngarbage\n27 1 8:x / /a rw - ext4 x rw\n28 1 8:1 / /b rw ext4 x rw\n29 1 8:1 / /c rw - ext4\n\
             30 1 8:3 / /d rw - ext4 x rw\n",
            &[(8, 3, b"/d", "ext4")],
        );
    }

    #[test]
    fn the_older_list_names_sources() {
        let mounts = first_of_each(read_mounts(
            b"proc /proc proc rw 0 0\n/dev/sda / ext4 rw 0 0\n/dev/sda /bind ext4 rw 0 0\n/dev/gone /gone ext4 rw 0 0\n\
              /srv /bound none rw 0 0\n//host/share /smb cifs rw 0 0\n/dev/loop1 /a\\040b squashfs ro 0 0\n\
              /file /f fuse.x rw 0 0\n",
            source_of,
        ));
        compare(
            &mounts,
            &[(8, 0, b"/", "ext4"), (0, 0, b"/gone", "ext4"), (7, 1, b"/a b", "squashfs"), (0, 0, b"/f", "fuse.x")],
        );
    }

    #[test]
    fn without_either_list_there_is_an_error() {
        let (root, _directory) = Root::from_text("proc/self/\n");
        assert_eq!(list(&root).unwrap_err().desc, "failed to open mtab file: '/proc/self/mounts'");
        let (root, _directory) = Root::from_text("proc/self/mounts: /dev/gone /gone ext4 rw 0 0\n");
        compare(&list(&root).unwrap(), &[(0, 0, b"/gone", "ext4")]);
    }
}
