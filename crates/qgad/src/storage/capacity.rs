//! Sizes of file systems, and how much is used: bytes and inodes.

use nix::sys::statvfs::{Statvfs, fstatvfs};

use super::{
    Probes,
    mounts::{self, Mount},
};
use crate::root::Root;

/// A file system's size: bytes, and inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// In use.
    pub(crate) used: u64,
    /// In use, or free for all users. df(1) computes percentages from it.
    pub(crate) total: u64,
    /// In all, what is kept for the administrator included.
    pub(crate) privileged: u64,
    /// Its inodes, if it has a limit of them.
    pub(crate) inodes: Option<Inodes>,
}

/// How many files a file system can hold, and does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inodes {
    /// In use.
    pub(crate) used: u64,
    /// In all.
    pub(crate) total: u64,
}

/// Measures each file system; nothing for one that is hidden, cannot be reached or does not answer.
pub(crate) fn measure(probes: &Probes, root: &Root, mounts: &[Mount]) -> Vec<Option<Capacity>> {
    let root = root.clone();
    mounts::ask_visible(probes, None, mounts, |_| true, move |mount| measure_one(&root, mount))
}

fn measure_one(root: &Root, mount: &Mount) -> Option<Capacity> {
    Some(Capacity::of(&fstatvfs(mounts::open_path(root, mount).ok()?).ok()?))
}

impl Capacity {
    fn of(status: &Statvfs) -> Self {
        let bytes = |blocks: u64| blocks.saturating_mul(status.fragment_size());
        let used = status.blocks().saturating_sub(status.blocks_free());
        Self {
            used: bytes(used),
            total: bytes(used.saturating_add(status.blocks_available())),
            privileged: bytes(status.blocks()),
            inodes: Some(status.files())
                .filter(|total| *total > 0)
                .map(|total| Inodes { used: total.saturating_sub(status.files_free()), total }),
        }
    }
}
