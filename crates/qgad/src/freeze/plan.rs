//! Which file systems are frozen, and in which order.
//!
//! Each file system is frozen once, however often it is mounted. One that stands on another one is frozen before it,
//! such as a file system in a loop image before the one that holds the image, also through device mapper, RAID and
//! btrfs: otherwise writing back the upper one would wait for the lower one. Next, a file system that is mounted on
//! another one is frozen before it. Apart from that the last mounted is frozen first, as in qemu-ga. Thawing has the
//! reverse order. File systems that the configuration excludes, by mount point or type, are left out even if a host
//! names them.

use std::{
    collections::{BinaryHeap, HashMap, HashSet},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use qga::wire::message::Error;

use crate::{
    root::Root,
    storage::{
        device::{BlockDevice, Number},
        mounts::{self, Mount},
    },
    util::glob::Globs,
};

/// Deepest stack of devices that is looked through: more than anybody builds, and an end to what makes no sense.
const MAX_DEPTH: usize = 16;

/// A file system that can be frozen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Where it is mounted, in the order of mounting; the first place is the one it is known by.
    pub(crate) mounts: Vec<Mount>,
    /// Whether a host asked for this one, by name.
    pub(crate) is_named: bool,
}

/// File systems that are never frozen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exclude {
    mount_points: Globs,
    kinds: Globs,
}

impl Exclude {
    /// Takes patterns over: of mount points if they begin with a slash, of types otherwise.
    pub(crate) fn new(patterns: Vec<String>) -> Self {
        let (mount_points, kinds) = patterns.into_iter().partition(|pattern| pattern.starts_with('/'));
        Self { mount_points: Globs::new(mount_points), kinds: Globs::new(kinds) }
    }

    fn covers(&self, candidate: &Candidate) -> bool {
        let first = &candidate.mounts[0];
        self.mount_points.matches(first.mount_point.as_os_str().as_bytes()) || self.kinds.matches(first.kind.as_bytes())
    }
}

impl Candidate {
    /// The place it is known by.
    pub(crate) fn mount_point(&self) -> &Path {
        &self.mounts[0].mount_point
    }

    /// On the wire a place is text; bytes that are none became replacement characters when it was told.
    fn is_mounted_at(&self, name: &str) -> bool {
        self.mounts.iter().any(|mount| mount.mount_point.to_string_lossy() == name)
    }
}

/// The file systems to freeze, first to last: those mounted at one of the named places, or all.
///
/// `mount_of` tells the number of the mount on which a file is.
pub(crate) fn candidates(
    root: &Root,
    exclude: &Exclude,
    named: Option<&[String]>,
    mount_of: impl Fn(&Path) -> Option<u64>,
) -> Result<Vec<Candidate>, Error> {
    let mut candidates = gather(mounts::all(root)?);
    candidates.retain(|candidate| !exclude.covers(candidate));
    if let Some(named) = named {
        candidates.retain(|candidate| named.iter().any(|name| candidate.is_mounted_at(name)));
    }
    for candidate in &mut candidates {
        candidate.is_named = named.is_some();
    }
    let order = order(candidates.len(), &stacked(root, &candidates, mount_of), &nested(&candidates));
    let mut candidates: Vec<_> = candidates.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|index| candidates[index].take()).collect())
}

/// The mounts of each file system, in the order of their first ones.
fn gather(mounts: Vec<Mount>) -> Vec<Candidate> {
    let mut indices = HashMap::<_, usize>::new();
    let mut candidates: Vec<Candidate> = Vec::new();
    for mount in mounts {
        let is_known = mount.file_system != Number { major: 0, minor: 0 };
        match indices.get(&mount.file_system) {
            Some(&index) if is_known => candidates[index].mounts.push(mount),
            _ => {
                indices.insert(mount.file_system, candidates.len());
                candidates.push(Candidate { mounts: vec![mount], is_named: false });
            }
        }
    }
    candidates
}

/// Which candidate, by its index, stands on which other one, in a file of its own.
fn stacked(root: &Root, candidates: &[Candidate], mount_of: impl Fn(&Path) -> Option<u64>) -> Vec<(usize, usize)> {
    let by_mount = by_mount(candidates);
    let mut pairs = Vec::new();
    for (above, candidate) in candidates.iter().enumerate() {
        for file in images_below(root, &candidate.mounts[0]) {
            let below = mount_of(&file).and_then(|mount| by_mount.get(&mount).copied());
            pairs.extend(below.map(|below| (above, below)));
        }
    }
    pairs
}

/// Which candidate is mounted on which other one.
fn nested(candidates: &[Candidate]) -> Vec<(usize, usize)> {
    let by_mount = by_mount(candidates);
    let below = |mount: &Mount| by_mount.get(&mount.parent).copied();
    let pairs = candidates.iter().enumerate();
    pairs.flat_map(|(above, one)| one.mounts.iter().filter_map(below).map(move |below| (above, below))).collect()
}

fn by_mount(candidates: &[Candidate]) -> HashMap<u64, usize> {
    let pairs = candidates.iter().enumerate();
    pairs.flat_map(|(index, one)| one.mounts.iter().map(move |mount| (mount.id, index))).collect()
}

/// The files that hold a part of a file system, behind any number of devices made of devices.
fn images_below(root: &Root, mount: &Mount) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut seen = HashSet::new();
    let mut level: Vec<_> = BlockDevice::by_number(root, mount.device).into_iter().collect();
    if mount.kind == "btrfs" {
        level =
            level.iter().flat_map(|device| btrfs_devices(root, &device.name())).chain(level.iter().cloned()).collect();
    }
    for _ in 0..MAX_DEPTH {
        level.retain(|device| seen.insert(device.path().to_owned()));
        files.extend(level.iter().filter_map(BlockDevice::image));
        level = level.iter().filter_map(BlockDevice::underlying).flatten().collect();
    }
    files
}

/// All devices of the btrfs that has the named one.
fn btrfs_devices<'a>(root: &'a Root, name: &str) -> Vec<BlockDevice<'a>> {
    let directories = root.names("/sys/fs/btrfs").unwrap_or_default();
    for directory in directories.iter().map(|id| Path::new("/sys/fs/btrfs").join(id).join("devices")) {
        let names = root.names(&directory).unwrap_or_default();
        if names.iter().any(|one| one == name) {
            return names.iter().filter_map(|name| BlockDevice::by_link(root, &directory.join(name))).collect();
        }
    }
    Vec::new()
}

/// Indices in an order in which the first of each pair comes before the second, and the last of all first where no pair
/// says otherwise. A pair that contradicts earlier ones is passed over; those of `stacked` are the earlier ones.
fn order(count: usize, stacked: &[(usize, usize)], nested: &[(usize, usize)]) -> Vec<usize> {
    let mut behind = vec![Vec::new(); count];
    let mut in_front = vec![0_usize; count];
    for &(above, below) in stacked.iter().chain(nested) {
        if !leads(&behind, below, above) {
            behind[above].push(below);
            in_front[below] += 1;
        }
    }
    let mut ready: BinaryHeap<_> = (0..count).filter(|&index| in_front[index] == 0).collect();
    let mut order = Vec::new();
    while let Some(index) = ready.pop() {
        order.push(index);
        for &below in &behind[index] {
            in_front[below] -= 1;
            if in_front[below] == 0 {
                ready.push(below);
            }
        }
    }
    order
}

/// Whether one index comes before another already, or is the same.
fn leads(behind: &[Vec<usize>], from: usize, to: usize) -> bool {
    let mut seen = vec![false; behind.len()];
    let mut queue = vec![from];
    while let Some(index) = queue.pop() {
        if index == to {
            return true;
        }
        if !std::mem::replace(&mut seen[index], true) {
            queue.extend(&behind[index]);
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root on a disk, a loop image on it at `/image`, and in that one a further image.
    const LOOPS: &str = "\
proc/self/mountinfo:
| 20 1 8:1 / / rw - ext4 /dev/sda1 rw
| 21 20 7:0 / /outer rw - ext4 /dev/loop0 rw
| 22 21 7:1 / /outer/inner rw - xfs /dev/loop1 rw
sys/dev/block/8:1 -> ../../devices/pci0000:00/block/sda/sda1
sys/devices/pci0000:00/block/sda/sda1/uevent: DEVTYPE=partition
sys/dev/block/7:0 -> ../../devices/virtual/block/loop0
sys/devices/virtual/block/loop0/loop/backing_file: /image
sys/dev/block/7:1 -> ../../devices/virtual/block/loop1
sys/devices/virtual/block/loop1/loop/backing_file: /outer/image
";

    /// In the order of freezing, the place that each file system is known by. A file is on the mount that `files` says.
    fn check(tree: &str, exclude: &[&str], named: Option<&[&str]>, files: &[(&str, u64)], expected: &[&str]) {
        let (root, _directory) = Root::from_text(tree);
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let named = named.map(owned);
        let mount_of = |path: &Path| files.iter().find(|(file, _)| Path::new(file) == path).map(|(_, mount)| *mount);
        let found = candidates(&root, &Exclude::new(owned(exclude)), named.as_deref(), mount_of).unwrap();
        let mount_points: Vec<_> = found.iter().map(|one| one.mount_point().to_str().unwrap()).collect();
        assert_eq!(mount_points, expected);
    }

    fn mounts(lines: &[&str]) -> String {
        format!(
            "proc/self/mountinfo:\n{}\n",
            lines.iter().map(|line| format!("| {line}")).collect::<Vec<_>>().join("\n")
        )
    }

    #[test]
    fn the_last_mounted_is_frozen_first_and_virtual_file_systems_are_left_alone() {
        let tree = mounts(&[
            "20 1 8:1 / / rw - ext4 /dev/sda1 rw",
            "21 20 0:5 / /proc rw - proc proc rw",
            "22 20 0:40 / /net rw - nfs4 host:/x rw",
            "23 20 8:2 / /home rw - xfs /dev/sda2 rw",
        ]);
        check(&tree, &[], None, &[], &["/home", "/"]);
    }

    #[test]
    fn a_file_system_is_frozen_once_and_known_by_any_of_its_mounts() {
        let tree = mounts(&[
            "20 1 8:1 / / rw - ext4 /dev/sda1 rw",
            "21 20 8:2 / /home rw - xfs /dev/sda2 rw",
            "22 20 8:1 /srv /bind rw - ext4 /dev/sda1 rw",
        ]);
        check(&tree, &[], None, &[], &["/home", "/"]);
        check(&tree, &[], Some(&["/bind", "/", "/bind", "/nowhere"]), &[], &["/"]);
        check(&tree, &[], Some(&[]), &[], &[]);
    }

    #[test]
    fn an_image_is_frozen_before_the_file_system_that_holds_it() {
        let files = [("/image", 20), ("/outer/image", 21)];
        check(LOOPS, &[], None, &files, &["/outer/inner", "/outer", "/"]);
    }

    #[test]
    fn stacking_counts_more_than_the_order_of_mounting_and_than_nesting() {
        let tree = "\
proc/self/mountinfo:
| 21 20 7:0 / /mnt rw - ext4 /dev/loop0 rw
| 23 21 8:2 / /mnt/data rw - ext4 /dev/sda2 rw
sys/dev/block/7:0 -> ../../devices/virtual/block/loop0
sys/devices/virtual/block/loop0/loop/backing_file: /mnt/data/image
sys/dev/block/8:2 -> ../../devices/pci0000:00/block/sda/sda2
sys/devices/pci0000:00/block/sda/sda2/uevent: DEVTYPE=partition
";
        check(tree, &[], None, &[("/mnt/data/image", 23)], &["/mnt", "/mnt/data"]);
        check(tree, &[], None, &[], &["/mnt/data", "/mnt"]);
    }

    #[test]
    fn images_are_found_behind_mapped_devices_and_partitions_of_loops() {
        let tree = "\
proc/self/mountinfo:
| 30 1 253:1 / /top rw - ext4 /dev/dm-1 rw
| 31 1 8:2 / /below rw - ext4 /dev/sda2 rw
sys/dev/block/253:1 -> ../../devices/virtual/block/dm-1
sys/devices/virtual/block/dm-1/slaves/md0 -> ../../md0
sys/devices/virtual/block/md0/slaves/loop3p1 -> ../../loop3/loop3p1
sys/devices/virtual/block/loop3/loop3p1/uevent: DEVTYPE=partition
sys/devices/virtual/block/loop3/loop/backing_file: /below/image
";
        check(tree, &[], None, &[("/below/image", 31)], &["/top", "/below"]);
    }

    #[test]
    fn a_btrfs_stands_on_all_of_its_devices() {
        let tree = "\
proc/self/mountinfo:
| 30 1 0:44 / /pool rw - btrfs /dev/loop0 rw
| 31 1 8:2 / /a rw - ext4 /dev/sda2 rw
dev/loop0: stands for the node
sys/fs/btrfs/1234/devices/loop0 -> ../../../../devices/virtual/block/loop0
sys/fs/btrfs/1234/devices/loop1 -> ../../../../devices/virtual/block/loop1
sys/devices/virtual/block/loop0/uevent: DEVTYPE=disk
sys/devices/virtual/block/loop1/loop/backing_file: /a/second
";
        let (root, _directory) = Root::from_text(tree);
        let devices = btrfs_devices(&root, "loop0");
        let images: Vec<_> = devices.iter().filter_map(BlockDevice::image).collect();
        assert_eq!(images, [Path::new("/a/second")]);
    }

    #[test]
    fn what_is_excluded_is_left_out_even_if_a_host_names_it() {
        let tree = mounts(&[
            "20 1 8:1 / / rw - ext4 /dev/sda1 rw",
            "21 20 8:2 / /scratch/a rw - ext4 /dev/sda2 rw",
            "22 20 8:3 / /cd ro - iso9660 /dev/sr0 ro",
            "23 20 8:1 /x /scratch/bound rw - ext4 /dev/sda1 rw",
        ]);
        check(&tree, &["/scratch/*", "iso*"], None, &[], &["/"]);
        check(&tree, &["/scratch/*"], Some(&["/scratch/a", "/cd"]), &[], &["/cd"]);
    }

    #[test]
    fn pairs_that_contradict_each_other_do_not_lose_anybody() {
        assert_eq!(order(3, &[(0, 1), (1, 2), (2, 0)], &[(1, 0)]), [0, 1, 2]);
        assert_eq!(order(3, &[], &[]), [2, 1, 0]);
        assert_eq!(order(2, &[(0, 0)], &[]), [1, 0]);
    }
}
