//! Opening a mounted file system whose mount point leads to another mount.
//!
//! A user who mounts FUSE over a directory hides what root has mounted below it. To freeze that all the same, a thread
//! enters a copy of the mount namespace, unmounts there what hides the mount, and opens it. The copy is made private
//! first, so that no mount of the machine changes, and ends with the thread. The hiding file system receives no
//! request: no path through it is followed, and its last mount stays.
//!
//! The opened descriptor belongs to a mount of the copy, which is detached when the copy ends. The descriptor keeps the
//! file system alive, but does not keep its mount points from being unmounted.

use std::{
    io,
    os::fd::OwnedFd,
    path::Path,
    thread::{self, ScopedJoinHandle},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use crate::{
    root::Root,
    storage::{
        mount_table::{Entry, MountTable, OF_THREAD},
        mounts::{self, Mount},
    },
};

/// Stack of the thread.
const STACK_BYTES: usize = 256 * 1024;
/// Most mounts that are unmounted to uncover one: more than users may make. fusermount(1) allows 1000. The table is
/// read again after each, so the timeout of the freeze ends it sooner.
const MAX_HIDING: usize = 4096;

/// Opens the root of a hidden mount, with `O_PATH` and then as given. The caller's mount namespace does not change.
///
/// # Errors
/// `ENOENT` when it is not mounted there any more; otherwise what kept it from being reached.
pub(super) fn open(
    root: &Root,
    hidden: &Mount,
    open: impl FnOnce(&OwnedFd) -> io::Result<OwnedFd> + Send,
) -> io::Result<OwnedFd> {
    // It unmounts by path, and all paths of a fake machine are inside the real one.
    if !root.is_machine() {
        return Err(Errno::ENOENT.into());
    }
    thread::scope(|scope| {
        let work = || open(&uncover(root, hidden)?);
        let thread = thread::Builder::new().name("hidden_mount".into()).stack_size(STACK_BYTES);
        let joined = thread.spawn_scoped(scope, work).map(ScopedJoinHandle::join)?;
        joined.unwrap_or_else(|_| Err(io::Error::other("a bug in the agent")))
    })
}

/// To be called by a thread that ends soon.
fn uncover(root: &Root, hidden: &Mount) -> io::Result<OwnedFd> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Until this has succeeded, unmounting here would unmount elsewhere.
    mount(None::<&Path>, "/", None::<&Path>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&Path>)?;
    for _ in 0..MAX_HIDING {
        let table = MountTable::read(root, OF_THREAD)?;
        let is_it = |entry: &&Entry| entry.file_system == hidden.file_system && entry.mount_point == hidden.mount_point;
        let entry = table.entries().iter().find(is_it).ok_or(Errno::ENOENT)?;
        match table.hiding(entry) {
            // The copy of a mount has an id of its own.
            None => return mounts::open_path(root, &Mount { id: entry.id, is_hidden: false, ..hidden.clone() }),
            // A lazy unmount sends no request to the file system, which may be dead.
            Some(hiding) => umount2(&hiding.mount_point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?,
        }
    }
    Err(io::Error::other(format!("more than {MAX_HIDING} other mounts hide it")))
}
