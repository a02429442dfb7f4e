//! File systems by the thousand, each on a device of its own, which needs `losetup`, `mke2fs` and `perl`.
//!
//! These are loop devices, all backed by one file. Mounts of one device compare something else: Debian's agent lists
//! each of them, ours the file system once. The kernel releases a device with its last mount, and so with the
//! namespace. Only the device nodes are visible outside; they are removed in the end.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use nix::sched::CloneFlags;

use super::{
    agent::Binary,
    namespace::{List, time_list},
};

/// Its arguments are a directory, how many devices there are to be, and how many further mounts of the first.
const MOUNT: &str = "\
set -e
PATH=$PATH:/usr/sbin:/sbin
mount -t tmpfs none \"$1\"
cd \"$1\"
truncate -s 64K image
mke2fs -q -F -b 1024 -N 16 image
for number in $(seq \"$2\"); do
    mkdir \"$number\"
    device=$(losetup --find --show --read-only image)
    mount -t ext2 -o ro \"$device\" \"$number\" || { losetup --detach \"$device\"; exit 1; }
    losetup --detach \"$device\"
done
for number in $(seq \"$3\"); do
    mkdir \"again$number\"
    mount --bind 1 \"again$number\"
done";
/// Removes the devices with these numbers (`LOOP_CTL_REMOVE` of `<linux/loop.h>`).
const REMOVE: &str = "open(my $control, '+<', '/dev/loop-control') or die; ioctl($control, 0x4C81, $_ + 0) for @ARGV";
/// How long the kernel may take to release devices after their last mount.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Between two attempts to remove devices.
const ATTEMPT: Duration = Duration::from_millis(100);

/// The seconds that each agent takes to list so many file systems on devices of their own, and further mounts of one.
pub(crate) fn list_file_systems(
    ours: &Binary,
    theirs: &Binary,
    devices: usize,
    mounts: usize,
) -> anyhow::Result<[f64; 2]> {
    let before = loop_devices()?;
    let directory = tempfile::tempdir()?;
    let list = List { command: "guest-get-fsinfo", count: devices, samples: 20 };
    let times =
        time_list(ours, theirs, &list, CloneFlags::CLONE_NEWNS, || make_mounts(directory.path(), devices, mounts));
    remove_devices(&before)?;
    times
}

fn make_mounts(directory: &Path, devices: usize, mounts: usize) -> anyhow::Result<()> {
    let mut script = Command::new("sh");
    script.args(["-c", MOUNT, "sh"]).arg(directory).args([devices, mounts].map(|count| count.to_string()));
    ensure!(script.status()?.success(), "{devices} loop devices cannot be mounted, with {mounts} further mounts");
    Ok(())
}

/// Removes all loop devices but these.
fn remove_devices(keep: &BTreeSet<String>) -> anyhow::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let devices = loop_devices()?;
        let surplus: Vec<_> = devices.difference(keep).collect();
        if surplus.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "loop devices are left: {surplus:?}");
        // The kernel refuses what is still in use, and what somebody else has begun to use it keeps.
        Command::new("perl").args(["-e", REMOVE]).args(surplus).status().context("perl is needed")?;
        thread::sleep(ATTEMPT);
    }
}

/// The numbers of the loop devices there are.
fn loop_devices() -> anyhow::Result<BTreeSet<String>> {
    let mut numbers = BTreeSet::new();
    for name in fs::read_dir("/sys/block").context("the kernel lists no disks")? {
        numbers.extend(name?.file_name().to_str().and_then(|name| Some(name.strip_prefix("loop")?.to_owned())));
    }
    Ok(numbers)
}
