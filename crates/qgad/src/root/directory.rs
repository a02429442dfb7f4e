//! An open directory, and what is in it by name.
//!
//! No name leads elsewhere: it has one component, and a link is never followed. What was learned about a directory
//! stays true for it, even if somebody renames it or puts a link in its place. A directory that was opened with some
//! rights can be used with others afterwards.

use std::{
    ffi::{OsStr, OsString},
    fs::{File, Metadata},
    io::{self, Write},
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use nix::{
    dir::Dir,
    fcntl::{OFlag, openat, readlinkat, renameat},
    sys::stat::{Mode, mkdirat},
    unistd::{UnlinkatFlags, unlinkat},
};

/// An open directory.
#[derive(Debug)]
pub(crate) struct Directory(OwnedFd);

impl Directory {
    /// A directory that was opened, with `O_PATH` at least.
    pub(super) fn from_opened(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// Opens a file in it. A file that this creates has mode 0.
    ///
    /// # Errors
    /// `ELOOP` for a link, unless `flags` contains `O_PATH`, which opens the link itself.
    pub(crate) fn open(&self, name: &OsStr, flags: OFlag) -> io::Result<File> {
        if name.as_encoded_bytes().contains(&b'/') {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(openat(&self.0, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?.into())
    }

    /// Opens a directory in it.
    ///
    /// # Errors
    /// `ENOTDIR` for a link or a file.
    pub(crate) fn directory(&self, name: &OsStr) -> io::Result<Self> {
        Ok(Self(self.open(name, OFlag::O_PATH | OFlag::O_DIRECTORY)?.into()))
    }

    /// Owner and mode of the directory itself.
    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        File::from(self.0.try_clone()?).metadata()
    }

    /// The directory as a file, whose owner and mode can be changed.
    pub(crate) fn itself(&self) -> io::Result<File> {
        self.open(OsStr::new("."), OFlag::O_RDONLY | OFlag::O_DIRECTORY)
    }

    /// The target of a link in it, which may not exist.
    pub(crate) fn read_link(&self, name: &OsStr) -> io::Result<PathBuf> {
        Ok(readlinkat(&self.0, name)?.into())
    }

    /// The names in it, in the order of the kernel.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        names_in(self.itself()?.into())
    }

    /// Makes a directory in it.
    pub(crate) fn make_directory(&self, name: &OsStr, mode: Mode) -> io::Result<()> {
        Ok(mkdirat(&self.0, name, mode)?)
    }

    /// Removes a file from it.
    pub(crate) fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Replaces or creates a file atomically: readers see the old contents or the new ones, even after a crash.
    ///
    /// `prepare` sets owner and mode of the new file while it is empty and has mode 0. A link is replaced, not
    /// followed.
    pub(crate) fn replace(
        &self,
        name: &OsStr,
        contents: &[u8],
        prepare: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<()> {
        static COUNTER: AtomicUsize = AtomicUsize::new(0);
        let mut new = OsString::from(".");
        new.push(name);
        new.push(format!(".{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
        let mut file = self.open(&new, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)?;
        let replaced = prepare(&file)
            .and_then(|()| file.write_all(contents))
            .and_then(|()| file.sync_all())
            .and_then(|()| Ok(renameat(&self.0, &*new, &self.0, name)?));
        if replaced.is_err() {
            let _ = self.remove_file(&new);
        }
        replaced
    }
}

/// The names in a directory that is opened for reading.
pub(super) fn names_in(directory: OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::from_fd(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use nix::errno::Errno;

    use super::*;
    use crate::root::Root;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    #[test]
    fn no_name_leads_out_of_a_directory() {
        let (root, machine) = Root::from_text("etc/secret: x\nhome/file: y\n");
        symlink("../etc", machine.path().join("home/link")).unwrap();
        symlink("../etc/secret", machine.path().join("home/file-link")).unwrap();
        let home = root.directory("/home").unwrap();
        let error = |result: io::Result<File>| result.unwrap_err().raw_os_error().map(Errno::from_raw);
        assert_eq!(error(home.open(name("file-link"), OFlag::O_RDONLY)), Some(Errno::ELOOP));
        assert_eq!(error(home.open(name("../etc/secret"), OFlag::O_RDONLY)), None);
        assert_eq!(home.directory(name("link")).unwrap_err().raw_os_error(), Some(Errno::ENOTDIR as i32));
        assert_eq!(home.read_link(name("link")).unwrap(), PathBuf::from("../etc"));
    }

    #[test]
    fn a_directory_stays_the_same_when_a_link_takes_its_place() {
        let (root, machine) = Root::from_text("etc/\nhome/ann/\n");
        let home = root.directory("/home/ann").unwrap();
        fs::rename(machine.path().join("home/ann"), machine.path().join("home/moved")).unwrap();
        symlink("../etc", machine.path().join("home/ann")).unwrap();
        home.replace(name("file"), b"x", |_| Ok(())).unwrap();
        assert_eq!(root.directory("/home/moved").unwrap().names().unwrap(), ["file"]);
        assert_eq!(home.names().unwrap(), ["file"]);
        assert!(root.names("/etc").unwrap().is_empty());
    }
}
