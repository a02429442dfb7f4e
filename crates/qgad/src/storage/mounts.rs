//! The mounted file systems on block devices.
//!
//! They are in the order of mounting. [`list`] has each file system once, with its first mount: bind mounts and further
//! subvolumes belong to the same file system. File systems without a block device are left out. btrfs has none in the
//! kernel's list; the device of a [`Mount`] is the one that its source names, and [`super::btrfs`] knows all of them.
//! A mount is opened by its mount point only if that leads to it.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{errno::Errno, fcntl::OFlag, libc, sys::stat::fstat};
use qga::wire::message::Error;

use super::{
    Limits, Probes, btrfs,
    device::Number,
    mount_table::{Entry, MountTable, OF_PROCESS, path, text},
};
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
    /// Its block device. If that is unknown, the number of the file system, or 0:0.
    pub(crate) device: Number,
    /// The mount point.
    pub(crate) mount_point: PathBuf,
    /// The type: `ext4`.
    pub(crate) kind: String,
    /// Whether the mount point leads to another mount.
    pub(crate) is_hidden: bool,
}

const FOR_ATTRIBUTES: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW);
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
    read(root, |path| look_at(root, path), first_of_each)
}

/// As [`list`], without a look at the paths of the mounts' sources, which may be on a frozen file system. The device of
/// btrfs is unknown then.
///
/// # Errors
/// When the kernel's lists cannot be read.
pub(crate) fn list_without_asking(root: &Root) -> Result<Vec<Mount>, Error> {
    read(root, |_| None, first_of_each)
}

/// Lists all mounts of these file systems in the order of mounting.
///
/// # Errors
/// When the kernel's lists cannot be read.
pub(crate) fn all(root: &Root) -> Result<Vec<Mount>, Error> {
    read(root, |path| look_at(root, path), |mounts| mounts)
}

fn read(
    root: &Root,
    source: impl Fn(&Path) -> Option<Source>,
    select: impl FnOnce(Vec<Mount>) -> Vec<Mount>,
) -> Result<Vec<Mount>, Error> {
    if let Ok(table) = MountTable::read(root, OF_PROCESS) {
        let mut mounts = select(on_block_devices(&table, source));
        for mount in &mut mounts {
            mount.is_hidden = table.is_hidden(mount.id);
        }
        return Ok(mounts);
    }
    match root.read("/proc/self/mounts") {
        Ok(contents) => Ok(select(read_mounts(&contents, source))),
        Err(_) => Err(Error::generic("failed to open mtab file: '/proc/self/mounts'")),
    }
}

/// Asks for a fact of each mount that is not hidden and is wanted. The answers have the order of the mounts. Limits are
/// those of the probes unless given.
pub(crate) fn ask_visible<T: Send + 'static>(
    probes: &Probes,
    limits: Option<Limits>,
    mounts: &[Mount],
    is_wanted: impl Fn(&Mount) -> bool,
    ask: impl Fn(&Mount) -> Option<T> + Send + Sync + 'static,
) -> Vec<Option<T>> {
    let asked: Vec<_> = (0..).zip(mounts).filter(|(_, mount)| !mount.is_hidden && is_wanted(mount)).collect();
    let paths = asked.iter().map(|(_, mount)| mount.mount_point.clone()).collect();
    // No two mounts that are not hidden have the same mount point.
    let by_path: HashMap<_, _> = asked.iter().map(|(_, mount)| (mount.mount_point.clone(), (*mount).clone())).collect();
    let ask_one = move |path: &Path| ask(by_path.get(path)?);
    let answers = match limits {
        Some(limits) => probes.ask_within(limits, paths, ask_one),
        None => probes.ask(paths, ask_one),
    };
    let mut in_order: Vec<_> = mounts.iter().map(|_| None).collect();
    for ((index, _), answer) in asked.iter().zip(answers) {
        in_order[*index] = answer;
    }
    in_order
}

/// Opens what a mount shows, for its attributes only.
///
/// # Errors
/// `ENOENT` when the mount point leads to another mount.
pub(crate) fn open_path(root: &Root, mount: &Mount) -> io::Result<OwnedFd> {
    if mount.is_hidden {
        return Err(Errno::ENOENT.into());
    }
    check_found(root, mount, root.open(&mount.mount_point, FOR_ATTRIBUTES)?)
}

/// As [`open_path`], without waiting for any file system, not even for one that was mounted over the path just now.
///
/// # Errors
/// Those of [`open_path`] and of [`Root::open_cached`].
pub(crate) fn open_path_cached(root: &Root, mount: &Mount) -> io::Result<OwnedFd> {
    if mount.is_hidden {
        return Err(Errno::ENOENT.into());
    }
    check_found(root, mount, root.open_cached(&mount.mount_point, FOR_ATTRIBUTES)?)
}

fn check_found(root: &Root, mount: &Mount, found: OwnedFd) -> io::Result<OwnedFd> {
    // Not by the number of the file system: one that does not answer may be in front, and would be asked for it.
    let is_it = mount.id == 0 || id_of_mount(root, &found).is_none_or(|found| found == mount.id);
    if is_it { Ok(found) } else { Err(Errno::ENOENT.into()) }
}

/// Opens the file of an `O_PATH` descriptor again, whatever is at its path meanwhile.
pub(crate) fn open_found(root: &Root, found: &OwnedFd) -> io::Result<OwnedFd> {
    root.reopen(found, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
}

/// The id of the mount on which an open file is, as proc(5) has it.
pub(crate) fn id_of_mount(root: &Root, descriptor: impl AsFd) -> Option<u64> {
    let information = root.read(format!("/proc/self/fdinfo/{}", descriptor.as_fd().as_raw_fd())).ok()?;
    let mut lines = str::from_utf8(&information).ok()?.lines();
    lines.find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
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
        libc::S_IFBLK => Source::Block(Number::of_device(status.st_rdev)?),
        libc::S_IFDIR => Source::Directory,
        _ => Source::Other,
    })
}

fn on_block_devices(table: &MountTable, source_of: impl Fn(&Path) -> Option<Source>) -> Vec<Mount> {
    let mounts = table.entries().iter().filter_map(|entry| {
        let Entry { id, parent, file_system, .. } = *entry;
        let device = match file_system.major {
            0 if entry.kind == btrfs::KIND => match source_of(&entry.source) {
                Some(Source::Block(device)) => device,
                _ => file_system,
            },
            0 => return None,
            _ => file_system,
        };
        let (mount_point, kind) = (entry.mount_point.clone(), entry.kind.clone());
        Some(Mount { id, parent, file_system, device, mount_point, kind, is_hidden: false })
    });
    mounts.collect()
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
        let (mount_point, kind) = (path(mount_point), text(kind));
        Some(Mount { id: 0, parent: 0, file_system: device, device, mount_point, kind, is_hidden: false })
    });
    mounts.collect()
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
        compare(&first_of_each(on_block_devices(&MountTable::parse(mountinfo.as_bytes()), source_of)), expected);
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
    fn btrfs_is_listed_whatever_its_source_is() {
        check(
            "27 1 0:30 / / rw - btrfs /dev/sda rw\n28 27 0:30 /home /home rw - btrfs /dev/sda rw\n\
             29 27 0:31 / /x rw - btrfs /dev/absent rw\n30 27 0:32 / /y rw - btrfs /srv rw\n",
            &[(8, 0, b"/", "btrfs"), (0, 31, b"/x", "btrfs"), (0, 32, b"/y", "btrfs")],
        );
    }

    #[test]
    fn mount_points_are_bytes() {
        check(
            r"27 1 8:1 / /with\040blank\011and\134backslash rw - ext4 /dev/sda1 rw",
            &[(8, 1, b"/with blank\tand\\backslash", "ext4")],
        );
        let line = b"27 1 8:1 / /caf\xE9 rw - ext4 /dev/sda1 rw\n";
        compare(&on_block_devices(&MountTable::parse(line), source_of), &[(8, 1, b"/caf\xE9", "ext4")]);
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
