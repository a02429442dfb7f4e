//! Which file systems are frozen, and in which order.
//!
//! Each file system is frozen once, however often it is mounted. The order follows these rules, most important first:
//!
//! 1. A file system that is stored on another one, for instance in a loop image, is frozen before it, also through
//!    device mapper, RAID and btrfs. Otherwise writing back the upper one would wait for the lower one. If the lower
//!    one is unknown, as for an image on a btrfs subvolume that is not mounted, the upper one is frozen before all
//!    others.
//! 2. A file system that is mounted on another one is frozen before it.
//! 3. The last mounted is frozen first, as in qemu-ga.
//!
//! Thawing has the reverse order. File systems that the configuration excludes, by mount point or type, are left out
//! even if a host names them. A name is any path to a mount point: with extra slashes and dots, or through symbolic
//! links. The log has the names that lead to no such file system, and the file systems that no kernel can freeze.

use std::{
    collections::{BinaryHeap, HashMap, HashSet},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use qga::wire::message::Error;

use crate::{
    root::Root,
    storage::{
        backing::Backing,
        btrfs,
        device::{BlockDevice, Number},
        mount_table::{Entry, MountTable, OF_PROCESS},
        mounts::{self, Mount},
    },
    util::glob::Globs,
};

/// Deepest stack of devices that is followed: more than anybody builds. It also ends a cycle.
const MAX_DEPTH: usize = 16;

/// Types of file systems on disks or flash that have no block device in the kernel's lists, and that no kernel can
/// freeze: their drivers lack the operation.
const UNFREEZABLE: [&str; 3] = ["zfs", "ubifs", "jffs2"];

/// A file system that can be frozen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Where it is mounted, in the order of mounting; it is known by the first mount point.
    pub(crate) mounts: Vec<Mount>,
}

/// Questions about devices and paths, which may hang. Tests answer them themselves.
pub(crate) struct Questions<'a> {
    /// The file or device below a loop device.
    pub(crate) backing: &'a dyn Fn(&BlockDevice<'_>) -> Option<Backing>,
    /// The id of a btrfs.
    pub(crate) btrfs_id: &'a dyn Fn(&Mount) -> Option<String>,
    /// The absolute path without symbolic links.
    pub(crate) resolve: &'a dyn Fn(&Path) -> Option<PathBuf>,
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
    /// The mount point that it is known by.
    pub(crate) fn mount_point(&self) -> &Path {
        &self.mounts[0].mount_point
    }

    /// The number of the file system.
    pub(crate) fn file_system(&self) -> Number {
        self.mounts[0].file_system
    }

    /// Whether the kernel has removed its last device, although it is still mounted. In doubt it has not.
    pub(crate) fn has_lost_its_devices(&self, root: &Root, questions: &Questions<'_>) -> bool {
        match self.is_btrfs() {
            true => self.btrfs_id(questions).is_some_and(|id| btrfs::is_gone(root, &id)),
            false => BlockDevice::is_gone(root, self.mounts[0].device),
        }
    }

    /// All of its devices.
    fn devices<'a>(&self, root: &'a Root, questions: &Questions<'_>) -> Vec<BlockDevice<'a>> {
        let device = self.mounts[0].device;
        match self.is_btrfs() {
            true => btrfs::devices(root, self.btrfs_id(questions).as_deref(), device),
            false => BlockDevice::by_number(root, device).into_iter().collect(),
        }
    }

    fn is_btrfs(&self) -> bool {
        self.mounts[0].kind == btrfs::KIND
    }

    fn btrfs_id(&self, questions: &Questions<'_>) -> Option<String> {
        self.mounts.iter().filter(|mount| !mount.is_hidden).find_map(questions.btrfs_id)
    }

    /// Paths are compared by their components. On the wire they are text, in which replacement characters stand for
    /// bytes that are not UTF-8.
    fn is_mounted_at(&self, path: &Path) -> bool {
        self.mounts
            .iter()
            .any(|mount| mount.mount_point == path || Path::new(&*mount.mount_point.to_string_lossy()) == path)
    }
}

/// The file systems to freeze, first to last: those mounted at one of the named mount points, or all.
pub(crate) fn candidates(
    root: &Root,
    exclude: &Exclude,
    named: Option<&[String]>,
    questions: &Questions<'_>,
) -> Result<Vec<Candidate>, Error> {
    let mut candidates = gather(mounts::all(root)?);
    match named {
        Some(named) => keep_named(&mut candidates, named, questions),
        None => warn_of_unfreezable(root),
    }
    candidates.retain(|candidate| !exclude.covers(candidate));
    let order = order(candidates.len(), &stacked(root, &candidates, questions), &nested(&candidates));
    let mut candidates: Vec<_> = candidates.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|index| candidates[index].take()).collect())
}

fn keep_named(candidates: &mut Vec<Candidate>, named: &[String], questions: &Questions<'_>) {
    let mut is_wanted = vec![false; candidates.len()];
    let mut unknown = Vec::new();
    for name in named {
        let at = |path: &Path| candidates.iter().position(|candidate| candidate.is_mounted_at(path));
        let path = Path::new(name);
        let found = at(path).or_else(|| {
            // A relative path would begin at the agent's working directory.
            let absolute = path.is_absolute().then_some(path)?;
            at(&(questions.resolve)(absolute)?)
        });
        match found {
            Some(index) => is_wanted[index] = true,
            None => unknown.push(name),
        }
    }
    if let [first, others @ ..] = &unknown[..] {
        // A host's text may contain anything.
        log::warn!("no file system that can be frozen is mounted at {first:?}{}", and_more(others.len()));
    }
    let mut is_wanted = is_wanted.into_iter();
    candidates.retain(|_| is_wanted.next().unwrap_or(false));
}

fn warn_of_unfreezable(root: &Root) {
    let Ok(table) = MountTable::read(root, OF_PROCESS) else { return };
    for kind in UNFREEZABLE {
        let of_kind: Vec<&Entry> = table.entries().iter().filter(|entry| entry.kind == kind).collect();
        if let [first, others @ ..] = &of_kind[..] {
            let (mount_point, more) = (first.mount_point.display(), and_more(others.len()));
            log::warn!("{kind} is not frozen, at {mount_point}{more}: the kernel cannot freeze it");
        }
    }
}

fn and_more(count: usize) -> String {
    if count == 0 { String::new() } else { format!(" and {count} more") }
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
                candidates.push(Candidate { mounts: vec![mount] });
            }
        }
    }
    candidates
}

/// Which candidates, by index, are stored in files of which others.
#[derive(Debug, Default)]
struct Stacks {
    /// The upper one, and the lower one.
    pairs: Vec<(usize, usize)>,
    /// Those that may be stored on any other one.
    on_unknown: Vec<usize>,
}

fn stacked(root: &Root, candidates: &[Candidate], questions: &Questions<'_>) -> Stacks {
    let by_mount = by_mount(candidates);
    let by_number: HashMap<_, _> =
        candidates.iter().enumerate().map(|(index, one)| (one.file_system(), index)).collect();
    let mut stacks = Stacks::default();
    for (above, candidate) in candidates.iter().enumerate() {
        for backing in files_below(root, candidate, questions) {
            let by_number = backing.file_system.and_then(|number| by_number.get(&number));
            match by_number.or_else(|| by_mount.get(&backing.mount?)) {
                Some(&below) => stacks.pairs.push((above, below)),
                // A known mount without a block device, such as an overlay, may be stored on any other one.
                None => stacks.on_unknown.push(above),
            }
        }
    }
    stacks
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

/// A file that holds a part of a file system.
struct FileBelow {
    file_system: Option<Number>,
    mount: Option<u64>,
}

/// The files that hold a part of a file system, through any number of stacked devices.
fn files_below(root: &Root, candidate: &Candidate, questions: &Questions<'_>) -> Vec<FileBelow> {
    let mut files = Vec::new();
    let mut seen = HashSet::new();
    let mut level = candidate.devices(root, questions);
    for _ in 0..MAX_DEPTH {
        level.retain(|device| seen.insert(device.path().to_owned()));
        let mut next: Vec<_> = level.iter().filter_map(BlockDevice::underlying).flatten().collect();
        for device in &level {
            match (questions.backing)(device) {
                Some(Backing::Device(number)) => next.extend(BlockDevice::by_number(root, number)),
                Some(Backing::File { file_system, mount }) => files.push(FileBelow { file_system, mount }),
                None => {}
            }
        }
        level = next;
    }
    files
}

/// Indices in an order in which the first of each pair comes before the second. Where no pair says otherwise, what may
/// be stored on any other one comes first, and then the last of all. A pair that contradicts earlier ones is ignored;
/// those of `stacks` are the earlier ones.
fn order(count: usize, stacks: &Stacks, nested: &[(usize, usize)]) -> Vec<usize> {
    let mut behind = vec![Vec::new(); count];
    for &(above, below) in stacks.pairs.iter().chain(nested) {
        if !leads(&behind, below, above) {
            behind[above].push(below);
        }
    }
    let mut is_urgent = vec![false; count];
    for &index in &stacks.on_unknown {
        is_urgent[index] = true;
    }
    // What comes before something urgent is urgent as well.
    for index in topological(&behind, &is_urgent).into_iter().rev() {
        is_urgent[index] |= behind[index].iter().any(|&below| is_urgent[below]);
    }
    topological(&behind, &is_urgent)
}

/// Indices in an order in which each comes before those behind it; of those that may come next, the urgent ones and
/// then the last one.
fn topological(behind: &[Vec<usize>], is_urgent: &[bool]) -> Vec<usize> {
    let mut in_front = vec![0_usize; behind.len()];
    for &below in behind.iter().flatten() {
        in_front[below] += 1;
    }
    let key = |index: usize| (is_urgent[index], index);
    let mut ready: BinaryHeap<_> = (0..behind.len()).filter(|&index| in_front[index] == 0).map(key).collect();
    let mut order = Vec::new();
    while let Some((_, index)) = ready.pop() {
        order.push(index);
        for &below in &behind[index] {
            in_front[below] -= 1;
            if in_front[below] == 0 {
                ready.push(key(below));
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
sys/dev/block/7:1 -> ../../devices/virtual/block/loop1
";

    /// A file on this mount, of which the driver says nothing.
    fn on_mount(id: u64) -> Backing {
        Backing::File { file_system: None, mount: Some(id) }
    }

    /// A file on the file system with this number.
    fn on_file_system(major: u32, minor: u32) -> Backing {
        Backing::File { file_system: Some(Number { major, minor }), mount: None }
    }

    /// In the order of freezing, the mount point that each file system is known by. Loop devices stand on what
    /// `backings` says.
    fn check(tree: &str, exclude: &[&str], named: Option<&[&str]>, backings: &[(&str, Backing)], expected: &[&str]) {
        let (root, _directory) = Root::from_text(tree);
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let named = named.map(owned);
        let backing = |device: &BlockDevice<'_>| {
            let name = device.disk().name();
            backings.iter().find(|(device, _)| *device == name).map(|(_, backing)| *backing)
        };
        let questions = Questions {
            backing: &backing,
            btrfs_id: &|_| Some("1234".into()),
            resolve: &|path| root.resolve(path).ok(),
        };
        let found = candidates(&root, &Exclude::new(owned(exclude)), named.as_deref(), &questions).unwrap();
        let mount_points: Vec<_> = found.iter().map(|one| one.mount_point().to_string_lossy()).collect();
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
        let expected = ["/outer/inner", "/outer", "/"];
        check(LOOPS, &[], None, &[("loop0", on_mount(20)), ("loop1", on_mount(21))], &expected);
        check(LOOPS, &[], None, &[("loop0", on_file_system(8, 1)), ("loop1", on_file_system(7, 0))], &expected);
    }

    #[test]
    fn stacking_counts_more_than_the_order_of_mounting_and_than_nesting() {
        let tree = "\
proc/self/mountinfo:
| 21 20 7:0 / /mnt rw - ext4 /dev/loop0 rw
| 23 21 8:2 / /mnt/data rw - ext4 /dev/sda2 rw
sys/dev/block/7:0 -> ../../devices/virtual/block/loop0
sys/dev/block/8:2 -> ../../devices/pci0000:00/block/sda/sda2
sys/devices/pci0000:00/block/sda/sda2/uevent: DEVTYPE=partition
";
        check(tree, &[], None, &[("loop0", on_mount(23))], &["/mnt", "/mnt/data"]);
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
";
        check(tree, &[], None, &[("loop3", on_mount(31))], &["/top", "/below"]);
    }

    #[test]
    fn a_loop_device_may_stand_on_another_one() {
        let tree = "\
proc/self/mountinfo:
| 30 1 7:1 / /top rw - ext4 /dev/loop1 rw
| 31 1 8:2 / /below rw - ext4 /dev/sda2 rw
sys/dev/block/7:1 -> ../../devices/virtual/block/loop1
sys/dev/block/7:0 -> ../../devices/virtual/block/loop0
";
        let loop0 = Backing::Device(Number { major: 7, minor: 0 });
        check(tree, &[], None, &[("loop1", loop0), ("loop0", on_file_system(8, 2))], &["/top", "/below"]);
        check(tree, &[], None, &[], &["/below", "/top"]);
    }

    #[test]
    fn what_stands_on_an_unknown_file_system_is_frozen_first() {
        let unknown = Backing::File { file_system: Some(Number { major: 0, minor: 77 }), mount: None };
        let tree = "\
proc/self/mountinfo:
| 29 1 7:2 / /over rw - ext4 /dev/loop2 rw
| 30 1 7:1 / /top rw - ext4 /dev/loop1 rw
| 31 1 0:44 / /pool rw - btrfs /dev/sda2 rw
| 32 1 8:3 / /other rw - ext4 /dev/sda3 rw
sys/dev/block/7:1 -> ../../devices/virtual/block/loop1
sys/dev/block/7:2 -> ../../devices/virtual/block/loop2
";
        check(tree, &[], None, &[("loop1", unknown)], &["/top", "/other", "/pool", "/over"]);
        // What stands on that one comes before it all the same.
        let backings = [("loop1", unknown), ("loop2", on_file_system(7, 1))];
        check(tree, &[], None, &backings, &["/over", "/top", "/other", "/pool"]);
        let on_overlay = Backing::File { file_system: Some(Number { major: 0, minor: 50 }), mount: Some(99) };
        check(tree, &[], None, &[("loop1", on_overlay)], &["/top", "/other", "/pool", "/over"]);
    }

    #[test]
    fn a_btrfs_stands_on_all_of_its_devices() {
        let tree = "\
proc/self/mountinfo:
| 30 1 0:44 / /pool rw - btrfs /dev/root rw
| 31 1 8:2 / /a rw - ext4 /dev/sda2 rw
sys/fs/btrfs/1234/devices/loop0 -> ../../../../devices/virtual/block/loop0
sys/fs/btrfs/1234/devices/loop1 -> ../../../../devices/virtual/block/loop1
sys/devices/virtual/block/loop0/uevent: DEVTYPE=disk
sys/devices/virtual/block/loop1/uevent: DEVTYPE=disk
";
        check(tree, &[], None, &[("loop1", on_mount(31))], &["/pool", "/a"]);
        check(tree, &[], None, &[], &["/a", "/pool"]);
    }

    #[test]
    fn names_are_read_as_people_write_them() {
        let tree = mounts(&[
            "20 1 8:1 / / rw - ext4 /dev/sda1 rw",
            "21 20 8:2 / /mnt/s rw - xfs /dev/sda2 rw",
            "22 20 8:3 / /mnt/odd\\377 rw - xfs /dev/sda3 rw",
        ]) + "mnt/s/file: on it\nlink -> mnt/s\n";
        for name in ["/mnt/s", "/mnt/s/", "//mnt/s", "/mnt/s/.", "/mnt/./s", "/link", "/mnt/../link/"] {
            check(&tree, &[], Some(&[name]), &[], &["/mnt/s"]);
        }
        for name in ["", "mnt/s", "/mnt", "/mnt/s/file", "/absent", "/mnt/S", "."] {
            check(&tree, &[], Some(&[name]), &[], &[]);
        }
        check(&tree, &[], Some(&["/mnt/odd\u{FFFD}", "//"]), &[], &["/mnt/odd\u{FFFD}", "/"]);
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
        let check = |count, pairs: &[(usize, usize)], nested: &[(usize, usize)], expected: &[usize]| {
            let stacks = Stacks { pairs: pairs.to_vec(), on_unknown: Vec::new() };
            assert_eq!(order(count, &stacks, nested), expected);
        };
        check(3, &[(0, 1), (1, 2), (2, 0)], &[(1, 0)], &[0, 1, 2]);
        check(3, &[], &[], &[2, 1, 0]);
        check(2, &[(0, 0)], &[], &[1, 0]);
    }
}
