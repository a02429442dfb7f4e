//! The kernel's table of mounts: where each is mounted, on which other one, and which of them are hidden.
//!
//! A mount is hidden when a path to its mount point leads to another mount: one at the mount point itself, or at a
//! directory above it. The table shows that without following the path, which may lead to a file system that never
//! answers. Mount points are bytes, exactly as in the kernel's table.

use std::{
    collections::HashMap,
    ffi::OsString,
    io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use super::device::Number;
use crate::root::Root;

/// The table of the mount namespace of this process.
pub(crate) const OF_PROCESS: &str = "/proc/self/mountinfo";
/// The table of the mount namespace of this thread, which may have left that of its process.
pub(crate) const OF_THREAD: &str = "/proc/thread-self/mountinfo";

/// One mount, of any file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its id, which no other mount has while it is mounted.
    pub(crate) id: u64,
    /// The id of the mount that it is mounted on, which need not be in the table.
    pub(crate) parent: u64,
    /// The device number of the file system: that of its device, or an anonymous one with major number 0.
    pub(crate) file_system: Number,
    /// The mount point.
    pub(crate) mount_point: PathBuf,
    /// The type: `ext4`.
    pub(crate) kind: String,
    /// What was mounted, as it was given to mount(2).
    pub(crate) source: PathBuf,
}

/// All mounts of a mount namespace that are below the root directory of this process.
#[derive(Debug)]
pub(crate) struct MountTable {
    entries: Vec<Entry>,
    by_id: HashMap<u64, usize>,
    /// Indices in the order of mount points; those of the same one in the order of mounting.
    by_mount_point: Vec<usize>,
}

impl MountTable {
    /// Reads one of the kernel's lists.
    pub(crate) fn read(root: &Root, list: &str) -> io::Result<Self> {
        Ok(Self::parse(&root.read(list)?))
    }

    /// Parses a list. Incomplete lines are ignored.
    pub(crate) fn parse(contents: &[u8]) -> Self {
        let entries: Vec<_> = contents.split(|&byte| byte == b'\n').filter_map(Entry::parse).collect();
        let by_id = entries.iter().enumerate().map(|(index, entry)| (entry.id, index)).collect();
        let mut by_mount_point: Vec<_> = (0..entries.len()).collect();
        by_mount_point.sort_by_key(|&index| entries[index].mount_point.as_os_str());
        Self { entries, by_id, by_mount_point }
    }

    /// The mounts in the order of mounting.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The mounts to whose mount points paths lead, in the order of mounting.
    pub(crate) fn into_visible(mut self) -> Vec<Entry> {
        let mut are_visible =
            self.entries.iter().map(|entry| self.hiding(entry).is_none()).collect::<Vec<_>>().into_iter();
        self.entries.retain(|_| are_visible.next().unwrap_or(true));
        self.entries
    }

    /// Whether a path to the mount point of the mount with this id leads to another one.
    pub(crate) fn is_hidden(&self, id: u64) -> bool {
        self.by_id.get(&id).is_some_and(|&index| self.hiding(&self.entries[index]).is_some())
    }

    /// The mount that a path to a mount point leads to first, of those that hide it.
    pub(crate) fn hiding(&self, entry: &Entry) -> Option<&Entry> {
        let below = self.ids_below(entry);
        let mut on_the_way: Vec<_> = entry.mount_point.ancestors().collect();
        // A path begins at the root directory itself, whatever is mounted over it.
        on_the_way.retain(|path| *path != Path::new("/"));
        let mut others = on_the_way.iter().rev().flat_map(|path| self.at(path));
        others.find(|other| !below.contains(&other.id) && below.contains(&other.parent))
    }

    /// The mounts at a mount point.
    fn at(&self, path: &Path) -> impl Iterator<Item = &Entry> {
        let begin = self
            .by_mount_point
            .partition_point(|&index| self.entries[index].mount_point.as_os_str() < path.as_os_str());
        let behind = self.by_mount_point[begin..].iter().map(|&index| &self.entries[index]);
        behind.take_while(move |entry| entry.mount_point.as_os_str() == path.as_os_str())
    }

    /// The id of a mount, and of all that it is mounted on.
    fn ids_below(&self, entry: &Entry) -> Vec<u64> {
        let mut ids = vec![entry.id];
        let mut parent = entry.parent;
        while let Some(&index) = self.by_id.get(&parent) {
            if ids.contains(&parent) {
                break;
            }
            ids.push(parent);
            parent = self.entries[index].parent;
        }
        ids
    }
}

impl Entry {
    /// Reads a line, see proc(5).
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b' ');
        let id = number(fields.next()?)?;
        let parent = number(fields.next()?)?;
        let file_system = Number::parse(fields.next()?)?;
        let mount_point = path(fields.nth(1)?);
        // A dash ends the optional fields.
        let mut after_dash = fields.skip_while(|&field| field != b"-").skip(1);
        let (kind, source) = (text(after_dash.next()?), path(after_dash.next()?));
        Some(Self { id, parent, file_system, mount_point, kind, source })
    }
}

fn number(field: &[u8]) -> Option<u64> {
    str::from_utf8(field).ok()?.parse().ok()
}

/// The path in a field of a list of mounts.
pub(super) fn path(field: &[u8]) -> PathBuf {
    OsString::from_vec(unescape(field)).into()
}

/// The text in a field of a list of mounts.
pub(super) fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

/// Resolves the escapes of the kernel: a backslash and three octal digits, or two backslashes.
fn unescape(field: &[u8]) -> Vec<u8> {
    if !field.contains(&b'\\') {
        return field.to_vec();
    }
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
    use super::*;

    /// Of each mount, by its id, the one that hides it.
    fn check(lines: &[&str], expected: &[(u64, Option<u64>)]) {
        let table = MountTable::parse(lines.join("\n").as_bytes());
        let found: Vec<_> =
            table.entries().iter().map(|entry| (entry.id, table.hiding(entry).map(|one| one.id))).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_mount_is_hidden_by_one_on_it_and_by_one_above_its_mount_point() {
        check(
            &[
                "20 1 8:1 / / rw - ext4 /dev/sda1 rw",
                "21 20 8:2 / /home/u/disk rw - ext4 /dev/sda2 rw",
                "22 20 0:40 / /home/u rw - fuse fuse rw",
                "23 20 8:3 / /data rw - ext4 /dev/sda3 rw",
                "24 23 0:41 / /data rw - tmpfs none rw",
                "25 20 8:4 / /data2 rw - ext4 /dev/sda4 rw",
            ],
            &[(20, None), (21, Some(22)), (22, None), (23, Some(24)), (24, None), (25, None)],
        );
    }

    #[test]
    fn of_several_mounts_that_hide_one_the_first_on_the_way_is_told() {
        check(
            &[
                "20 1 8:1 / / rw - ext4 /dev/sda1 rw",
                "21 20 8:2 / /a/b/c rw - ext4 /dev/sda2 rw",
                "22 21 0:40 / /a/b/c rw - tmpfs none rw",
                "23 20 0:41 / /a/b rw - tmpfs none rw",
                // On what hides the first one, at the same path.
                "24 23 0:42 / /a/b/c rw - tmpfs none rw",
                "25 20 0:43 / /a rw - tmpfs none rw",
            ],
            &[(20, None), (21, Some(25)), (22, Some(25)), (23, Some(25)), (24, Some(25)), (25, None)],
        );
    }

    #[test]
    fn what_a_mount_is_mounted_on_does_not_hide_it() {
        check(
            &[
                "20 1 8:1 / / rw - ext4 /dev/sda1 rw",
                "21 20 8:2 / /mnt rw - ext4 /dev/sda2 rw",
                "22 21 8:3 / /mnt rw - ext4 /dev/sda3 rw",
                "23 22 8:4 / /mnt/x rw - ext4 /dev/sda4 rw",
                "24 20 8:5 / / rw - ext4 /dev/sda5 rw",
                "25 25 8:6 / /odd rw - ext4 /dev/sda6 rw",
            ],
            &[(20, None), (21, Some(22)), (22, None), (23, None), (24, None), (25, None)],
        );
    }

    #[test]
    fn what_only_looks_like_an_escape_is_unchanged() {
        assert_eq!(unescape(br"\04"), br"\04");
        assert_eq!(unescape(br"\0a8\\\777\"), br"\0a8\\777\");
        assert_eq!(unescape(br"\377"), b"\xFF");
    }
}
