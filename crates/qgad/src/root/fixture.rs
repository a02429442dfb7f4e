//! Fake machines for tests: a tree of files, described by text.
//!
//! Each line describes one file, by its path below the root; missing directories are made. What is captured from a
//! machine stands in `tests/roots/*.root`, and is laid out with `Root::from_text(include_str!(…))`.
//!
//! ```text
//! # a comment
//! sys/devices/system/cpu/online: 0-3     a file of one line; without text behind the colon, an empty file
//! proc/stat:                             a file of the following lines that begin with `|` and a blank
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
    /// Lays a described tree out in a directory that lives as long as the second value.
    pub(crate) fn from_text(text: &str) -> (Self, TempDir) {
        let directory = tempfile::tempdir().unwrap();
        lay_out(directory.path(), text);
        (Self::at(directory.path()), directory)
    }
}

fn lay_out(root: &Path, text: &str) {
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
            symlink(target, place(root, path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        } else if let Some((path, content)) = line.split_once(": ") {
            fs::write(place(root, path), format!("{content}\n")).unwrap_or_else(|error| panic!("{path}: {error}"));
        } else if let Some(path) = line.strip_suffix(':') {
            file = Some(File::create(place(root, path)).unwrap_or_else(|error| panic!("{path}: {error}")));
        } else if let Some(path) = line.strip_suffix('/') {
            fs::create_dir_all(place(root, path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        } else {
            panic!("{line:?} describes no file");
        }
    }
}

/// Where a path is, its directory made.
fn place(root: &Path, path: &str) -> PathBuf {
    let place = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(place.parent().unwrap()).unwrap_or_else(|error| panic!("{path}: {error}"));
    place
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
        check("# two ways\nsys/pci0000:00/x: 1\n\nlink -> /sys/pci0000:00\n", "/link/x", b"1\n");
        check("sys/a/x: 1\nsys/b/link -> ../a\n", "/sys/b/link/x", b"1\n");
    }

    #[test]
    fn a_directory_may_be_empty() {
        let (root, _directory) = Root::from_text("sys/empty/\n");
        assert_eq!(root.names("/sys/empty").unwrap(), Vec::<std::ffi::OsString>::new());
    }
}
