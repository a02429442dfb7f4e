//! A file system that was opened, to be frozen and thawed by its descriptor.
//!
//! The descriptor stays valid whatever happens to the mount point, and prevents unmounting. A file system that cannot
//! be opened, because its mount points are hidden, gone or forbidden, is left out. If a host named it, that is an
//! error. A mounted directory is preferred to a mounted file. Nothing else is opened: opening a device or a pipe has
//! effects.

use std::{
    fmt::Debug,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    libc,
    sys::stat::{SFlag, fstat},
};
use qga::wire::message::Error;

use super::plan::Candidate;
use crate::{
    root::Root,
    storage::{device::Number, mounts::Mount},
    sys,
    util::errno,
};

/// An opened file system.
#[derive(Debug)]
pub(crate) struct Target {
    /// The place it is known by.
    pub(crate) mount_point: PathBuf,
    /// A directory or a file on it.
    pub(crate) descriptor: OwnedFd,
    /// The kernel's number of it. 0:0 if it is unknown.
    pub(crate) file_system: Number,
}

/// What is done to a file system: by the kernel, or in a test.
pub(crate) trait Operations: Debug + Send + Sync {
    /// Writes back what is dirty, and keeps writers waiting.
    fn freeze(&self, target: &Target) -> nix::Result<()>;

    /// Lets writers go on; an error where nothing is frozen.
    fn thaw(&self, target: &Target) -> nix::Result<()>;
}

/// The kernel's operations.
#[derive(Debug)]
pub(crate) struct Kernel;

impl Operations for Kernel {
    fn freeze(&self, target: &Target) -> nix::Result<()> {
        sys::freeze::freeze(target.descriptor.as_fd())
    }

    fn thaw(&self, target: &Target) -> nix::Result<()> {
        sys::freeze::thaw(target.descriptor.as_fd())
    }
}

impl Target {
    /// Whether both are the same file system.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        let is_known = self.file_system != Number { major: 0, minor: 0 };
        self.file_system == other.file_system && (is_known || self.mount_point == other.mount_point)
    }

    /// Opens a file system; nothing if it is to be left out.
    pub(crate) fn open(root: &Root, candidate: &Candidate) -> Result<Option<Self>, Error> {
        let mut failure = None;
        for open in [open_directory, open_file] {
            for mount in &candidate.mounts {
                match open(root, mount) {
                    Ok(descriptor) => {
                        let (mount_point, file_system) = (candidate.mount_point().into(), mount.file_system);
                        return Ok(Some(Self { mount_point, descriptor, file_system }));
                    }
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
        }
        let failure = failure.unwrap_or_else(|| Errno::ENOENT.into());
        let text =
            format!("failed to open {}: {}", candidate.mount_point().display(), errno::describe(clone(&failure)));
        if candidate.is_named || is_want_of_resources(&failure) {
            return Err(Error::generic(text));
        }
        log::warn!("{text}; it is not frozen");
        Ok(None)
    }
}

fn open_directory(root: &Root, mount: &Mount) -> io::Result<OwnedFd> {
    open(root, mount, SFlag::S_IFDIR)
}

fn open_file(root: &Root, mount: &Mount) -> io::Result<OwnedFd> {
    open(root, mount, SFlag::S_IFREG)
}

/// Opens what a mount shows, if it is of the wanted kind and not hidden below another mount.
fn open(root: &Root, mount: &Mount, kind: SFlag) -> io::Result<OwnedFd> {
    let found = root.open(&mount.mount_point, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
    if mount.id != 0 && mount_of_descriptor(root, &found).is_some_and(|id| id != mount.id) {
        return Err(Errno::ENOENT.into());
    }
    if fstat(&found)?.st_mode & libc::S_IFMT != kind.bits() {
        return Err(Errno::ENOTDIR.into());
    }
    // The very same file, whatever is at the path by now.
    root.open(format!("/proc/self/fd/{}", found.as_raw_fd()), OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
}

/// The number of the mount on which a file is, as proc(5) has it.
pub(crate) fn mount_of(root: &Root, path: &Path) -> Option<u64> {
    mount_of_descriptor(root, &root.open(path, OFlag::O_PATH).ok()?)
}

/// The number of the mount on which an open file is.
pub(crate) fn mount_of_descriptor(root: &Root, descriptor: impl AsFd) -> Option<u64> {
    let information = root.read(format!("/proc/self/fdinfo/{}", descriptor.as_fd().as_raw_fd())).ok()?;
    let mut lines = str::from_utf8(&information).ok()?.lines();
    lines.find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

/// It is no fault of the file system, and the next one would not be opened either.
fn is_want_of_resources(error: &io::Error) -> bool {
    [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM].iter().any(|one| error.raw_os_error() == Some(*one as i32))
}

fn clone(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use super::*;

    fn candidate(mount_points: &[&Path], is_named: bool) -> Candidate {
        let mount = |mount_point: &&Path| Mount {
            id: 0,
            parent: 0,
            file_system: Number { major: 8, minor: 1 },
            device: Number { major: 8, minor: 1 },
            mount_point: mount_point.into(),
            kind: "ext4".into(),
        };
        Candidate { mounts: mount_points.iter().map(mount).collect(), is_named }
    }

    #[test]
    fn a_directory_is_preferred_and_a_file_will_do() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let opened = Target::open(&Root::machine(), &candidate(&[&file, directory.path()], false)).unwrap().unwrap();
        assert_eq!(opened.mount_point, file);
        assert_eq!(fstat(&opened.descriptor).unwrap().st_mode & libc::S_IFMT, libc::S_IFDIR);
        let opened = Target::open(&Root::machine(), &candidate(&[&file], false)).unwrap().unwrap();
        assert_eq!(fstat(&opened.descriptor).unwrap().st_mode & libc::S_IFMT, libc::S_IFREG);
    }

    #[test]
    fn what_cannot_be_opened_is_left_out_unless_it_was_named() {
        for mount_point in ["/nonexistent", "/dev/null"] {
            assert!(Target::open(&Root::machine(), &candidate(&[Path::new(mount_point)], false)).unwrap().is_none());
        }
        let error = Target::open(&Root::machine(), &candidate(&[Path::new("/nonexistent")], true)).unwrap_err();
        assert_eq!(error.desc, "failed to open /nonexistent: No such file or directory");
    }

    #[test]
    fn a_mount_that_is_hidden_by_another_is_not_mistaken_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut hidden = candidate(&[directory.path()], false);
        let root = Root::machine();
        hidden.mounts[0].id = mount_of(&root, directory.path()).unwrap();
        assert!(Target::open(&root, &hidden).unwrap().is_some());
        hidden.mounts[0].id += 1;
        assert!(Target::open(&root, &hidden).unwrap().is_none());
    }
}
