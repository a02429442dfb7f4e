//! File access for all commands.
//!
//! A [`Root`] is the `/` of a machine: the real one in production, a directory of files in a test. Links are resolved
//! inside it, so that commands see the same paths in both. Files that are read whole are limited to [`MAX_FILE_BYTES`].

mod directory;
#[cfg(test)]
mod fixture;

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2, readlink, readlinkat},
    sys::{
        stat::Mode,
        statvfs::{Statvfs, fstatvfs, statvfs},
    },
};

pub(crate) use self::directory::Directory;

/// Largest file that is read whole. Files of the kernel with tens of thousands of lines have a few mebibytes.
pub(crate) const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// A directory that serves as `/`.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    directory: PathBuf,
    /// How many files were opened: tests check the cost of a command.
    #[cfg(test)]
    opened: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Root {
    /// The root of the real machine.
    pub(crate) fn machine() -> Self {
        Self {
            directory: "/".into(),
            #[cfg(test)]
            opened: std::sync::Arc::default(),
        }
    }

    /// A directory as the root of a fake machine.
    #[cfg(test)]
    pub(crate) fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), opened: std::sync::Arc::default() }
    }

    /// Whether this is the real machine, which also has users, programs and devices.
    pub(crate) fn is_machine(&self) -> bool {
        self.directory == Path::new("/")
    }

    /// How many files were opened so far.
    #[cfg(test)]
    pub(crate) fn opened(&self) -> usize {
        self.opened.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Opens a file by its path. A file that this creates has mode 0.
    pub(crate) fn open(&self, path: impl AsRef<Path>, flags: OFlag) -> io::Result<OwnedFd> {
        #[cfg(test)]
        self.opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let flags = flags | OFlag::O_CLOEXEC;
        if self.is_machine() {
            return Ok(open(path.as_ref(), flags, Mode::empty())?);
        }
        let directory = open(&self.directory, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        Ok(openat2(directory, path.as_ref(), how)?)
    }

    /// Opens a directory, to be used by the names in it.
    pub(crate) fn directory(&self, path: impl AsRef<Path>) -> io::Result<Directory> {
        Ok(Directory::from_opened(self.open(path, OFlag::O_PATH | OFlag::O_DIRECTORY)?))
    }

    /// A directory from which no path leads outside.
    pub(crate) fn beneath(&self, directory: impl AsRef<Path>) -> io::Result<Beneath> {
        Ok(Beneath(self.open(directory, OFlag::O_PATH | OFlag::O_DIRECTORY)?))
    }

    /// The absolute path, with all links resolved.
    pub(crate) fn resolve(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        if self.is_machine() {
            return fs::canonicalize(path.as_ref());
        }
        let found = self.open(path, OFlag::O_PATH)?;
        let real = PathBuf::from(readlink(&*format!("/proc/self/fd/{}", found.as_raw_fd()))?);
        let inside = real.strip_prefix(fs::canonicalize(&self.directory)?).map_err(io::Error::other)?;
        Ok(Path::new("/").join(inside))
    }

    /// Removes a file by its path.
    pub(crate) fn remove_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let (parent, name) = split(path.as_ref())?;
        self.directory(parent)?.remove_file(name)
    }

    /// Reads a whole file.
    pub(crate) fn read(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let mut contents = Vec::new();
        File::from(self.open(path, OFlag::O_RDONLY)?).take(MAX_FILE_BYTES + 1).read_to_end(&mut contents)?;
        if contents.len() as u64 > MAX_FILE_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {MAX_FILE_BYTES} bytes")));
        }
        Ok(contents)
    }

    /// The target of a link, which may not exist.
    pub(crate) fn read_link(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        if self.is_machine() {
            return Ok(readlink(path.as_ref())?.into());
        }
        // An empty path means the descriptor itself. It is an error if that is no link.
        Ok(readlinkat(self.open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?, "")?.into())
    }

    /// Size and usage of the file system that a path is on.
    pub(crate) fn file_system_of(&self, path: impl AsRef<Path>) -> io::Result<Statvfs> {
        if self.is_machine() {
            return Ok(statvfs(path.as_ref())?);
        }
        Ok(fstatvfs(self.open(path, OFlag::O_PATH)?)?)
    }

    /// Writes to an existing file in one piece, as files in sysfs require.
    pub(crate) fn write(&self, path: impl AsRef<Path>, contents: &[u8]) -> io::Result<()> {
        File::from(self.open(path, OFlag::O_WRONLY)?).write_all(contents)
    }

    /// Makes a directory. Its parent must exist.
    pub(crate) fn make_directory(&self, path: impl AsRef<Path>, mode: Mode) -> io::Result<()> {
        let (parent, name) = split(path.as_ref())?;
        self.directory(parent)?.make_directory(name, mode)
    }

    /// Replaces or creates a file, as [`Directory::replace`] does.
    pub(crate) fn replace(
        &self,
        path: impl AsRef<Path>,
        contents: &[u8],
        prepare: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<()> {
        let (parent, name) = split(path.as_ref())?;
        self.directory(parent)?.replace(name, contents, prepare)
    }

    /// The names in a directory, in the order of the kernel.
    pub(crate) fn names(&self, path: impl AsRef<Path>) -> io::Result<Vec<OsString>> {
        directory::names_in(self.open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?)
    }
}

/// A directory from which no path leads outside, whatever links there are: the kernel checks it.
#[derive(Debug)]
pub(crate) struct Beneath(OwnedFd);

impl Beneath {
    /// Opens a file by its relative path. A file that this creates has mode 0.
    ///
    /// # Errors
    /// `EXDEV` or `ELOOP` when the path leads outside, `ENOSYS` when the kernel cannot check it.
    pub(crate) fn open(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        Ok(openat2(&self.0, path, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve))?)
    }

    /// A directory inside.
    pub(crate) fn beneath(&self, path: &Path) -> io::Result<Self> {
        self.open(path, OFlag::O_PATH | OFlag::O_DIRECTORY).map(Self)
    }

    /// Removes a file by its relative path.
    pub(crate) fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = split(path)?;
        Directory::from_opened(self.open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY)?).remove_file(name)
    }
}

/// The parent directory of a path, and the last name.
fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((parent, path.file_name().ok_or(io::ErrorKind::InvalidInput)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_with_an_absolute_target_stays_inside() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("etc")).unwrap();
        fs::write(directory.path().join("etc/qgad-target"), "inside").unwrap();
        symlink("/etc/qgad-target", directory.path().join("etc/link")).unwrap();
        assert_eq!(Root::at(directory.path()).read("/etc/link").unwrap(), b"inside");
    }

    #[test]
    fn a_file_is_removed_inside() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        Root::at(directory.path()).remove_file("/file").unwrap();
        assert!(!directory.path().join("file").exists());
    }

    #[test]
    fn a_path_with_dots_stays_inside() {
        let directory = tempfile::tempdir().unwrap();
        let error = Root::at(directory.path()).read("/../../../../etc/passwd").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn only_an_existing_file_is_written() {
        let (root, _directory) = Root::from_text("sys/online: 1\n");
        root.write("/sys/online", b"0").unwrap();
        assert_eq!(root.read("/sys/online").unwrap(), b"0\n");
        assert_eq!(root.write("/sys/absent", b"0").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_replacement_that_fails_leaves_the_old_file_and_nothing_else() {
        let (root, _directory) = Root::from_text("etc/file: old\n");
        let refusal = root.replace("/etc/file", b"new\n", |_| Err(io::ErrorKind::PermissionDenied.into())).unwrap_err();
        assert_eq!(refusal.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!((root.read("/etc/file").unwrap(), root.names("/etc").unwrap().len()), (b"old\n".to_vec(), 1));
    }

    #[test]
    fn a_directory_lists_its_names_without_dot_entries() {
        let (root, _directory) = Root::from_text("sys/cpu/cpu0/\nsys/cpu/online: 0\n");
        let mut names = root.names("/sys/cpu").unwrap();
        names.sort();
        assert_eq!(names, ["cpu0", "online"]);
    }
}
