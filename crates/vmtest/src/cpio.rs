//! Archives that the kernel unpacks as its initramfs: the `newc` format of cpio.
//!
//! Directories above an entry are made when they are missing. Everything belongs to root and has no date, so that the
//! same content gives the same bytes.

use std::{
    collections::BTreeSet,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const SYMLINK: u32 = 0o120_000;

/// An archive that is being written.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<PathBuf>,
    entries: u32,
}

/// What the header of an entry says, beyond its name and size.
struct Header {
    mode: u32,
    device: (u32, u32),
}

impl Archive {
    /// Adds a directory, and those above it.
    ///
    /// # Errors
    /// When the archive cannot hold it. The same applies to the other kinds of entry.
    pub fn directory(&mut self, path: &Path) -> Result<()> {
        if path.parent().is_none() || self.directories.contains(path) {
            return Ok(());
        }
        self.directories.insert(path.into());
        self.entry(path, &Header { mode: DIRECTORY | 0o755, device: (0, 0) }, &[])
    }

    /// Adds a file with its permissions.
    ///
    /// # Errors
    /// When the file is larger than 4 GiB.
    pub fn file(&mut self, path: &Path, permissions: u32, content: &[u8]) -> Result<()> {
        self.entry(path, &Header { mode: REGULAR | permissions, device: (0, 0) }, content)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// As [`Self::directory`].
    pub fn symlink(&mut self, path: &Path, target: &Path) -> Result<()> {
        self.entry(path, &Header { mode: SYMLINK | 0o777, device: (0, 0) }, target.as_os_str().as_bytes())
    }

    /// Adds a character device.
    ///
    /// # Errors
    /// As [`Self::directory`].
    pub fn character_device(&mut self, path: &Path, device: (u32, u32)) -> Result<()> {
        self.entry(path, &Header { mode: CHARACTER_DEVICE | 0o600, device }, &[])
    }

    /// The finished archive.
    ///
    /// # Errors
    /// As [`Self::directory`].
    pub fn finish(mut self) -> Result<Vec<u8>> {
        self.write_entry(b"TRAILER!!!", &Header { mode: 0, device: (0, 0) }, &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, path: &Path, header: &Header, content: &[u8]) -> Result<()> {
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        let name = path.strip_prefix("/").unwrap_or(path);
        self.write_entry(name.as_os_str().as_bytes(), header, content)
            .with_context(|| format!("failed to put {} into an archive", path.display()))
    }

    fn write_entry(&mut self, name: &[u8], header: &Header, content: &[u8]) -> Result<()> {
        self.entries += 1;
        let (major, minor) = header.device;
        let name_size = u32::try_from(name.len())? + 1;
        let size = u32::try_from(content.len())?;
        // In order: inode, mode, owner, group, links, date, size, device of the file system, own device, size of
        // name, checksum.
        let fields = [self.entries, header.mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names, modes and contents of an archive, read by the rules of the format.
    fn entries(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(at % 4, 0);
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |index: usize| {
                let start = at + 6 + index * 8;
                u32::from_str_radix(std::str::from_utf8(&bytes[start..start + 8]).unwrap(), 16).unwrap()
            };
            let name_end = at + 110 + field(11) as usize;
            let name = String::from_utf8(bytes[at + 110..name_end - 1].to_vec()).unwrap();
            assert_eq!(bytes[name_end - 1], 0);
            let content = name_end.next_multiple_of(4);
            let end = content + field(6) as usize;
            if name == "TRAILER!!!" {
                assert_eq!(bytes.len(), end.next_multiple_of(4));
                return entries;
            }
            entries.push((name, field(1), bytes[content..end].to_vec()));
            at = end.next_multiple_of(4);
        }
    }

    #[test]
    fn directories_above_an_entry_come_once_and_before_it() {
        let mut archive = Archive::default();
        archive.file(Path::new("/usr/bin/one"), 0o755, b"1").unwrap();
        archive.file(Path::new("/usr/bin/other"), 0o644, b"").unwrap();
        let names: Vec<_> = entries(&archive.finish().unwrap()).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["usr", "usr/bin", "usr/bin/one", "usr/bin/other"]);
    }

    #[test]
    fn each_kind_of_entry_keeps_its_mode_and_content() {
        let mut archive = Archive::default();
        archive.directory(Path::new("/d")).unwrap();
        archive.file(Path::new("/f"), 0o755, b"12345").unwrap();
        archive.symlink(Path::new("/l"), Path::new("d/f")).unwrap();
        archive.character_device(Path::new("/c"), (5, 1)).unwrap();
        let expected = [
            ("d".into(), 0o040_755, vec![]),
            ("f".into(), 0o100_755, b"12345".to_vec()),
            ("l".into(), 0o120_777, b"d/f".to_vec()),
            ("c".into(), 0o020_600, vec![]),
        ];
        assert_eq!(entries(&archive.finish().unwrap()), expected);
    }

    #[test]
    fn busybox_unpacks_what_was_written() {
        // The kernel's own reader judges every VM test; this says sooner what is wrong.
        let mut archive = Archive::default();
        archive.file(Path::new("/a/file"), 0o644, b"content").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let packed = folder.path().join("archive");
        std::fs::write(&packed, archive.finish().unwrap()).unwrap();
        let unpacked = std::process::Command::new("busybox")
            .args(["cpio", "-id"])
            .current_dir(folder.path())
            .stdin(std::fs::File::open(packed).unwrap())
            .output();
        let Ok(unpacked) = unpacked else { return };
        assert!(unpacked.status.success());
        assert_eq!(std::fs::read(folder.path().join("a/file")).unwrap(), b"content");
    }
}
