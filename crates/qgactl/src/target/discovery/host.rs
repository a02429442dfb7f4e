//! What discovery reads of the host: a directory that serves as `/`, so that a fake host is a directory of text.
//!
//! Whatever cannot be read is absent: processes end while they are looked at, and an unprivileged user sees only a
//! part. What is read is bounded, because any user of the host can start a process with a long command line.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Most bytes of a file: a command line with hundreds of disks takes tens of kilobytes, and a socket table with
/// ten thousand sockets a megabyte.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// A host.
#[derive(Debug)]
pub(crate) struct Host {
    root: PathBuf,
}

impl Host {
    /// The host that this runs on.
    pub(crate) fn this() -> Self {
        Self { root: "/".into() }
    }

    /// The whole file, if it can be read and is not too large. Paths are relative to the host's `/`.
    pub(crate) fn read(&self, path: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = File::open(self.root.join(path)).ok()?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).ok()?;
        (read as u64 <= MAX_FILE_BYTES).then_some(bytes)
    }

    /// Where a symbolic link leads.
    pub(crate) fn link(&self, path: &str) -> Option<PathBuf> {
        fs::read_link(self.root.join(path)).ok()
    }

    /// The user that a file belongs to; with `proc/<pid>`, the one that the process runs as.
    pub(crate) fn owner(&self, path: &str) -> Option<u32> {
        Some(fs::metadata(self.root.join(path)).ok()?.uid())
    }

    /// Where the symbolic links in a directory lead.
    pub(crate) fn links(&self, directory: &str) -> impl Iterator<Item = PathBuf> + use<> {
        let entries = fs::read_dir(self.root.join(directory)).into_iter().flatten().flatten();
        entries.filter_map(|entry| fs::read_link(entry.path()).ok())
    }

    /// The ids of all processes, in ascending order.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let entries = fs::read_dir(self.root.join("proc")).into_iter().flatten().flatten();
        let mut processes: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        processes.sort_unstable();
        processes
    }

    /// A path of a process, as we must write it: one in a container has a `/` of its own.
    pub(crate) fn path_of_process(&self, pid: u32, path: &Path) -> PathBuf {
        let directory = self.link(&format!("proc/{pid}/cwd")).unwrap_or_default();
        let path = directory.join(path);
        let namespace = self.link(&format!("proc/{pid}/ns/mnt"));
        match namespace.is_some() && namespace != self.link("proc/self/ns/mnt") {
            true => Path::new("/proc").join(pid.to_string()).join("root").join(path.strip_prefix("/").unwrap_or(&path)),
            false => path,
        }
    }
}

#[cfg(test)]
impl Host {
    /// A fake host from lines `PATH: TEXT`, where `|` in the text stands for the byte 0, and `PATH -> TARGET`.
    pub(crate) fn from_text(text: &str) -> (Self, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let create = |path: &str| {
                let path = directory.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                path
            };
            if let Some((path, target)) = line.split_once(" -> ") {
                std::os::unix::fs::symlink(target, create(path)).unwrap();
            } else {
                let (path, text) = line.split_once(": ").unwrap();
                let path = create(path);
                let before = fs::read_to_string(&path).unwrap_or_default();
                fs::write(path, before + &text.replace('|', "\0") + "\n").unwrap();
            }
        }
        (Self { root: directory.path().into() }, directory)
    }
}
