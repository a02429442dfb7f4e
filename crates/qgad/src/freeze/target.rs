//! A file system that was opened, to be frozen and thawed by its descriptor.
//!
//! The descriptor stays valid whatever happens to the mount point, and prevents unmounting. A mounted directory is
//! preferred to a mounted file, and a visible mount to one that another mount hides ([`hidden`]). Nothing else is
//! opened: opening a device or a pipe has effects. If no mount of a file system can be opened, that is an error, unless
//! it was unmounted meanwhile: hiding a file system does not take it out of a freeze.

use std::{
    fmt::Debug,
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use nix::{
    errno::Errno,
    libc,
    sys::stat::{SFlag, fstat},
};
use qga::wire::message::Error;

use super::{hidden, plan::Candidate};
use crate::{
    root::Root,
    storage::{
        device::Number,
        mounts::{self, Mount},
    },
    sys,
    util::errno,
};

const DIRECTORY: &[SFlag] = &[SFlag::S_IFDIR];
const DIRECTORY_OR_FILE: &[SFlag] = &[SFlag::S_IFDIR, SFlag::S_IFREG];
/// Most hidden mounts of a file system that are tried: each try copies the mount namespace, which may have thousands of
/// mounts. Usually the first one succeeds.
const MAX_HIDDEN: usize = 16;

/// An opened file system.
#[derive(Debug)]
pub(crate) struct Target {
    /// The mount point that it is known by.
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

/// Why a file system cannot be opened.
#[derive(Debug)]
pub(crate) struct OpenFailure {
    mount_point: PathBuf,
    cause: io::Error,
}

impl Target {
    /// Whether both are the same file system.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        let is_known = self.file_system != Number { major: 0, minor: 0 };
        self.file_system == other.file_system && (is_known || self.mount_point == other.mount_point)
    }

    /// Opens a file system; nothing if it is not mounted any more.
    pub(crate) fn open(root: &Root, candidate: &Candidate) -> Result<Option<Self>, OpenFailure> {
        let mount_point = candidate.mount_point().to_owned();
        match open_any(root, &candidate.mounts) {
            Ok(descriptor) => Ok(Some(Self { mount_point, descriptor, file_system: candidate.file_system() })),
            Err(cause) => match is_mounted(root, candidate) {
                true => Err(OpenFailure { mount_point, cause }),
                false => Ok(None),
            },
        }
    }
}

impl OpenFailure {
    /// Whether it is no fault of the file system: the next one would not be opened either.
    pub(crate) fn is_want_of_resources(&self) -> bool {
        is_want_of_resources(&self.cause)
    }
}

impl From<OpenFailure> for Error {
    fn from(OpenFailure { mount_point, cause }: OpenFailure) -> Self {
        Self::generic(format!("failed to open {}: {}", mount_point.display(), errno::describe(cause)))
    }
}

/// Opens the first mount that can be opened, or fails with the most telling error.
fn open_any(root: &Root, mounts: &[Mount]) -> io::Result<OwnedFd> {
    let visible =
        |kinds| mounts.iter().filter(|mount| !mount.is_hidden).map(move |mount| open_visible(root, mount, kinds));
    // A user may just have mounted something over it, or over a directory on its path. In the copy of the mount
    // namespace, nobody mounts anything.
    let hidden = mounts
        .iter()
        .take(MAX_HIDDEN)
        .map(|mount| hidden::open(root, mount, |found| open_as(root, found, DIRECTORY_OR_FILE)));
    // Where no namespace may be made, the last possibility is a path, even if a file system on it may not answer.
    let by_asking = mounts
        .iter()
        .filter(|mount| !mount.is_hidden)
        .map(|mount| open_as(root, &mounts::open_path(root, mount)?, DIRECTORY_OR_FILE));
    let mut failure = None;
    for opened in visible(DIRECTORY).chain(visible(DIRECTORY_OR_FILE)).chain(hidden).chain(by_asking) {
        match opened {
            Ok(descriptor) => return Ok(descriptor),
            Err(error) if is_want_of_resources(&error) => return Err(error),
            Err(error) => failure = Some(more_telling(failure, error)),
        }
    }
    Err(failure.unwrap_or_else(|| Errno::ENOENT.into()))
}

fn open_visible(root: &Root, mount: &Mount, kinds: &[SFlag]) -> io::Result<OwnedFd> {
    open_as(root, &mounts::open_path_cached(root, mount)?, kinds)
}

/// Opens what was found, if it is of a wanted kind.
fn open_as(root: &Root, found: &OwnedFd, kinds: &[SFlag]) -> io::Result<OwnedFd> {
    let kind = fstat(found)?.st_mode & libc::S_IFMT;
    let is_one = |wanted: &[SFlag]| wanted.iter().any(|wanted| wanted.bits() == kind);
    match is_one(kinds) {
        true => mounts::open_found(root, found),
        false if is_one(DIRECTORY_OR_FILE) => Err(Errno::ENOENT.into()),
        false => Err(io::Error::other("neither a directory nor a file")),
    }
}

/// An error that only says that a mount was not found, or could not be uncovered, explains less than another one.
fn more_telling(earlier: Option<io::Error>, later: io::Error) -> io::Error {
    let tells_little = |error: &io::Error| [io::ErrorKind::NotFound, io::ErrorKind::WouldBlock].contains(&error.kind());
    earlier.filter(|earlier| !tells_little(earlier)).unwrap_or(later)
}

/// Whether a file system is mounted. In doubt it is.
fn is_mounted(root: &Root, candidate: &Candidate) -> bool {
    let is_it = |mount: &Mount| mount.file_system == candidate.file_system();
    mounts::all(root).map_or(true, |mounts| mounts.iter().any(is_it))
}

fn is_want_of_resources(error: &io::Error) -> bool {
    [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM].iter().any(|one| error.raw_os_error() == Some(*one as i32))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{fs, path::Path};

    use nix::fcntl::OFlag;

    use super::*;

    const NUMBER: Number = Number { major: 8, minor: 1 };

    fn candidate(mount_points: &[&Path]) -> Candidate {
        let mount = |mount_point: &&Path| Mount {
            id: 0,
            parent: 0,
            file_system: NUMBER,
            device: NUMBER,
            mount_point: mount_point.into(),
            kind: "ext4".into(),
            is_hidden: false,
        };
        Candidate { mounts: mount_points.iter().map(mount).collect() }
    }

    /// A machine on which the file system of the candidates is mounted.
    const MOUNTED: &str = "proc/self/mountinfo: 20 1 8:1 / / rw - ext4 /dev/sda1 rw\n";

    fn check_failure(tree: &str, candidate: &Candidate, expected: Option<&str>) {
        let (root, _directory) = Root::from_text(tree);
        let opened = Target::open(&root, candidate).map(|target| target.is_some());
        let error = opened.map_err(|failure| Error::from(failure).desc);
        assert_eq!(error, expected.map_or(Ok(false), |text| Err(text.into())));
    }

    #[test]
    fn a_directory_is_preferred_and_a_file_will_do() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let opened = Target::open(&Root::machine(), &candidate(&[&file, directory.path()])).unwrap().unwrap();
        assert_eq!(opened.mount_point, file);
        assert_eq!(fstat(&opened.descriptor).unwrap().st_mode & libc::S_IFMT, libc::S_IFDIR);
        let opened = Target::open(&Root::machine(), &candidate(&[&file])).unwrap().unwrap();
        assert_eq!(fstat(&opened.descriptor).unwrap().st_mode & libc::S_IFMT, libc::S_IFREG);
    }

    #[test]
    fn what_is_mounted_and_cannot_be_opened_is_an_error_and_what_is_gone_is_nothing() {
        let gone = candidate(&[Path::new("/absent")]);
        check_failure(MOUNTED, &gone, Some("failed to open /absent: No such file or directory"));
        check_failure("proc/self/mountinfo: 20 1 8:2 / / rw - ext4 /dev/sda2 rw\n", &gone, None);
        // A machine that cannot tell.
        check_failure("proc/\n", &gone, Some("failed to open /absent: No such file or directory"));
    }

    #[test]
    fn what_is_neither_a_directory_nor_a_file_is_not_opened() {
        let (root, directory) = Root::from_text(MOUNTED);
        nix::unistd::mkfifo(&directory.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let failure = Target::open(&root, &candidate(&[Path::new("/absent"), Path::new("/pipe")])).unwrap_err();
        assert_eq!(Error::from(failure).desc, "failed to open /absent: neither a directory nor a file");
    }

    #[test]
    fn a_mount_that_is_hidden_by_another_is_not_mistaken_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::machine();
        let found = root.open(directory.path(), OFlag::O_PATH).unwrap();
        let mut mount = candidate(&[directory.path()]).mounts.remove(0);
        mount.id = mounts::id_of_mount(&root, &found).unwrap();
        assert!(mounts::open_path(&root, &mount).is_ok());
        mount.id += 1;
        assert!(mounts::open_path(&root, &mount).is_err());
        mount.id -= 1;
        mount.is_hidden = true;
        assert!(mounts::open_path(&root, &mount).is_err());
    }
}
