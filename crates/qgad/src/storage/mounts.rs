//! The mounted file systems that stand on block devices.
//!
//! The order is that of mounting. [`list`] has each file system once, with its first mount: bind mounts and further
//! subvolumes are the same one. File systems without a device of their own are left out, save btrfs, which is known by
//! the device it was mounted from. Mount points are bytes as the kernel has them, whatever they contain.

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
    /// The kernel's number of the mount, and of that below it; 0 where that cannot be told.
    pub(crate) id: u64,
    /// That of the mount on which it was mounted.
    pub(crate) parent: u64,
    /// By what the kernel knows the file system: its device, or a number of its own.
    pub(crate) file_system: Number,
    /// Its device. 0:0 where that cannot be told.
    pub(crate) device: Number,
    /// Where it is mounted.
    pub(crate) place: PathBuf,
    /// Which type it has: `ext4`.
    pub(crate) kind: String,
}

/// The number of what has none.
const UNKNOWN: Number = Number { major: 0, minor: 0 };

/// What a path to a device leads to.
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

/// Lists all their mounts in the order of mounting.
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

/// File systems whose number cannot be told are all taken for different ones.
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
        Some(Mount { id, parent, file_system, device, place: path(line.place), kind: text(line.kind) })
    });
    mounts.collect()
}

/// The fields of a line of mountinfo, see proc(5).
struct Line<'a> {
    id: u64,
    parent: u64,
    file_system: Number,
    place: &'a [u8],
    kind: &'a [u8],
    source: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b' ');
        let id = number(fields.next()?)?;
        let parent = number(fields.next()?)?;
        let file_system = Number::parse(fields.next()?)?;
        let place = fields.nth(1)?;
        // Optional fields end with a dash.
        let mut behind_dash = fields.skip_while(|&field| field != b"-").skip(1);
        Some(Self { id, parent, file_system, place, kind: behind_dash.next()?, source: behind_dash.next()? })
    }
}

/// The older list, for a kernel that keeps the other one from us: it names sources instead of devices.
fn read_mounts(contents: &[u8], source_of: impl Fn(&Path) -> Option<Source>) -> Vec<Mount> {
    let mounts = contents.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let (source, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        if !source.starts_with(b"/") || kind == b"smbfs" || kind == b"cifs" {
            return None;
        }
        let device = match source_of(&path(source)) {
            Some(Source::Directory) => return None,
            Some(Source::Block(device)) => device,
            Some(Source::Other) | None => UNKNOWN,
        };
        Some(Mount { id: 0, parent: 0, file_system: device, device, place: path(place), kind: text(kind) })
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

/// Undoes the kernel's escapes: a backslash and three octal digits, or another backslash.
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

    /// `/dev/sda` is 8:0, `/dev/loop1` 7:1, `/srv` a directory, `/file` a file; nothing else is there.
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
                let place = mount.place.as_os_str().as_bytes();
                (mount.device.major, mount.device.minor, place, mount.kind.as_str())
            })
            .collect();
        assert_eq!(mounts, expected);
    }

    #[test]
    fn what_stands_on_a_block_device_is_listed_in_the_order_of_mounting() {
        check(
            "22 27 0:21 / /proc rw - proc proc rw\n27 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw\n\
             30 27 0:40 / /merged rw - overlay overlay rw\n31 27 8:16 / /data rw - xfs /dev/sdb rw\n",
            &[(254, 1, b"/", "ext4"), (8, 16, b"/data", "xfs")],
        );
    }

    #[test]
    fn there_may_be_any_number_of_optional_fields() {
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
    fn btrfs_is_known_by_the_device_it_was_mounted_from() {
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
    fn what_begins_like_an_escape_and_is_none_stays() {
        assert_eq!(unescape(br"\04"), br"\04");
        assert_eq!(unescape(br"\0a8\\\777\"), br"\0a8\\777\");
        assert_eq!(unescape(br"\377"), b"\xFF");
    }

    #[test]
    fn a_line_that_makes_no_sense_costs_nothing_else() {
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
