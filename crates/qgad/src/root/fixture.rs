//! Fake machines for tests: a tree of files, described by text.
//!
//! Each line describes one file, by its path below the root. Missing directories are made. Captures of real machines
//! are in `tests/roots/*.root`. `Root::from_text(include_str!(…))` builds them.
//!
//! ```text
//! # a comment
//! sys/devices/system/cpu/online: 0-3     a file of one line
//! proc/stat:                             a file of the following lines that begin with `| `
//! | cpu0 1 2 3
//! sys/class/net/eth0 -> ../../eth0       a link
//! sys/devices/system/cpu/cpu7/           a directory
//! ```

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::Root;

impl Root {
    /// Builds a described tree in a directory that exists as long as the second value.
    pub(crate) fn from_text(text: &str) -> (Self, TempDir) {
        let directory = tempfile::tempdir().unwrap();
        build(directory.path(), text);
        (Self::at(directory.path()), directory)
    }
}

fn build(root: &Path, text: &str) {
    let mut file: Option<File> = None;
    for line in text.lines() {
        if let Some(content) = line.strip_prefix('|') {
            let file = file.as_mut().unwrap_or_else(|| panic!("no file has begun before {line:?}"));
            writeln!(file, "{}", content.strip_prefix(' ').unwrap_or(content)).unwrap();
            continue;
        }
        file = None;
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let link = line.split_once(" -> ").filter(|(path, _)| !path.contains(": "));
        if let Some((path, target)) = link {
            symlink(target, prepare(root, path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        } else if let Some((path, content)) = line.split_once(": ") {
            fs::write(prepare(root, path), format!("{content}\n")).unwrap_or_else(|error| panic!("{path}: {error}"));
        } else if let Some(path) = line.strip_suffix(':') {
            file = Some(File::create(prepare(root, path)).unwrap_or_else(|error| panic!("{path}: {error}")));
        } else if let Some(path) = line.strip_suffix('/') {
            fs::create_dir_all(prepare(root, path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        } else {
            panic!("{line:?} describes no file");
        }
    }
}

/// The real path of a file, whose parent directory is made.
fn prepare(root: &Path, path: &str) -> PathBuf {
    let real = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(real.parent().unwrap()).unwrap_or_else(|error| panic!("{path}: {error}"));
    real
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, path: &str, expected: &[u8]) {
        let (root, _directory) = Root::from_text(text);
        assert_eq!(root.read(path).unwrap(), expected, "{text}");
    }

    #[test]
    fn a_file_has_one_line_several_or_none() {
        check("a/b: 1: 2 -> 3\n", "/a/b", b"1: 2 -> 3\n");
        check("a/b:\n| 1\n|\n|  2\nc: 3\n", "/a/b", b"1\n\n 2\n");
        check("a/b:\n", "/a/b", b"");
    }

    #[test]
    fn a_link_leads_to_its_target_inside() {
        check("# absolute\nsys/pci0000:00/x: 1\n\nlink -> /sys/pci0000:00\n", "/link/x", b"1\n");
        check("sys/a/x: 1\nsys/b/link -> ../a\n", "/sys/b/link/x", b"1\n");
    }

    #[test]
    fn a_directory_may_be_empty() {
        let (root, _directory) = Root::from_text("sys/empty/\n");
        assert_eq!(root.names("/sys/empty").unwrap(), Vec::<std::ffi::OsString>::new());
    }
}
