//! Where files may be opened.
//!
//! A list of places is absolute paths, of directories with all below them, or of single files. A path is judged by its
//! words: the longest place that it begins with decides, and none means no. From that place on the kernel makes sure that
//! the path stays below it (`RESOLVE_BENEATH`), whatever links, `..` or `/proc` do, also while somebody changes them; a
//! kernel without openat2(2) cannot, and then nothing is opened. A place itself may be reached over links: it is the
//! administrator's. A file opened for both reading and writing must be in a place of either kind. Hard links are the one
//! way to have a file in two places.

use std::{
    ffi::OsStr,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::{errno::Errno, fcntl::OFlag};

use super::{Policy, Rule, list};
use crate::root::{Beneath, Root};

/// Where a file is to be opened.
#[derive(Debug)]
pub(crate) enum Place<'a> {
    /// Wherever its path leads.
    Anywhere(&'a Root, &'a Path),
    /// At this path below a directory, and nowhere else.
    Below(Beneath, PathBuf, Rule<'a>),
}

impl Policy {
    /// Where a file may be opened that a host named.
    ///
    /// # Errors
    /// When it is in no place that is allowed, or that place cannot be opened.
    pub(crate) fn place<'a>(&'a self, root: &'a Root, path: &'a Path, flags: OFlag) -> io::Result<Place<'a>> {
        let access = flags & OFlag::O_ACCMODE;
        let reading = if access == OFlag::O_WRONLY { None } else { list("file-read-allow", self.reading.as_ref()) };
        let writing = if access == OFlag::O_RDONLY { None } else { list("file-write-allow", self.writing.as_ref()) };
        let mut places = Vec::new();
        for (rule, members) in [reading, writing].into_iter().flatten() {
            let containing = members.iter().map(Path::new).filter(|member| path.starts_with(member));
            match containing.max_by_key(|member| member.components().count()) {
                Some(place) => places.push((place, rule)),
                None => return Err(not_allowed(&rule)),
            }
        }
        let depth = |(place, _): &&(&Path, _)| place.components().count();
        let (Some((narrow, rule)), Some((wide, _))) =
            (places.iter().max_by_key(depth), places.iter().min_by_key(depth))
        else {
            return Ok(Place::Anywhere(root, path));
        };
        let (directory, rest) = match path.strip_prefix(narrow) {
            Ok(rest) if !rest.as_os_str().is_empty() => (*narrow, rest),
            _ => (narrow.parent().unwrap_or(Path::new("/")), Path::new(narrow.file_name().unwrap_or(OsStr::new(".")))),
        };
        let beneath = match directory.strip_prefix(wide) {
            Ok(inner) if !inner.as_os_str().is_empty() => root.beneath(wide)?.beneath(inner),
            _ => root.beneath(directory),
        };
        Ok(Place::Below(beneath.map_err(|error| escape(error, rule))?, rest.into(), rule.clone()))
    }
}

impl Place<'_> {
    /// Opens it; a file that this creates has no permissions.
    pub(crate) fn open(&self, flags: OFlag) -> io::Result<OwnedFd> {
        match self {
            Self::Anywhere(root, path) => root.open(path, flags),
            Self::Below(directory, path, rule) => directory.open(path, flags).map_err(|error| escape(error, rule)),
        }
    }

    /// Removes it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match self {
            Self::Anywhere(root, path) => root.remove_file(path),
            Self::Below(directory, path, _) => directory.remove_file(path),
        }
    }
}

/// What the kernel says of a path that leads out is hard to understand.
fn escape(error: io::Error, rule: &Rule<'_>) -> io::Error {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EXDEV | Errno::ELOOP) => not_allowed(rule),
        _ => error,
    }
}

fn not_allowed(rule: &Rule<'_>) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("it is not allowed ({rule})"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::config::settings::{Origin, Settings, Sourced};

    const READ: OFlag = OFlag::O_RDONLY;
    const CREATE: OFlag = OFlag::O_WRONLY.union(OFlag::O_CREAT);
    const BOTH: OFlag = OFlag::O_RDWR;

    /// Opens a path of a machine whose allowed places are below /logs, /both and /etc/one for reading, and below /both/in
    /// for writing.
    fn open(path: &str, flags: OFlag) -> Result<(), String> {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["logs/deep", "both/in", "etc"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        for name in ["logs/a", "logs/deep/b", "both/a", "both/in/a", "etc/one", "etc/two"] {
            fs::write(at(name), name).unwrap();
        }
        symlink("../etc/two", at("logs/out")).unwrap();
        symlink("/etc/two", at("logs/absolute")).unwrap();
        symlink("deep/b", at("logs/inside")).unwrap();
        symlink("../etc", at("logs/directory")).unwrap();
        symlink("two", at("etc/link")).unwrap();
        symlink("/proc/self/root", at("logs/magic")).unwrap();
        symlink("/logs", at("alias")).unwrap();
        symlink("../a", at("both/in/up")).unwrap();
        let places = |paths: &[&str]| {
            let value = paths.iter().map(ToString::to_string).collect();
            Some(Sourced { value, origin: Origin::File("/conf".into()) })
        };
        let policy = Policy::new(&Settings {
            file_read_allow: places(&["/logs", "/both", "/etc/one", "/etc/link", "/alias"]),
            file_write_allow: places(&["/both/in"]),
            ..Settings::default()
        });
        let root = Root::at(directory.path());
        let opened = policy.place(&root, Path::new(path), flags).and_then(|place| place.open(flags));
        opened.map(drop).map_err(crate::util::errno::describe)
    }

    fn check(flags: OFlag, allowed: &[&str], refused: &[&str]) {
        for path in allowed {
            assert_eq!(open(path, flags), Ok(()), "{path}");
        }
        for path in refused {
            let key = if flags == READ { "file-read-allow" } else { "file-write-allow" };
            assert_eq!(open(path, flags), Err(format!("it is not allowed ({key} in /conf)")), "{path}");
        }
    }

    #[test]
    fn what_is_below_a_place_or_is_one_can_be_read() {
        check(READ, &["/logs/a", "//logs/./deep/b", "/logs/inside", "/logs/deep/../a", "/etc/one", "/alias/a"], &[]);
    }

    #[test]
    fn what_is_elsewhere_cannot() {
        check(READ, &[], &["/etc/two", "/logsx", "logs/a", "etc/one", "/", "", "/proc/self/root/etc/two"]);
    }

    #[test]
    fn neither_links_nor_dots_lead_out_of_a_place() {
        check(
            READ,
            &[],
            &["/logs/out", "/logs/absolute", "/logs/directory/two", "/logs/../etc/two", "/logs/magic/etc/two"],
        );
        check(READ, &["/etc/link"], &[]);
    }

    #[test]
    fn a_file_is_made_only_where_writing_is_allowed() {
        check(CREATE, &["/both/in/new", "/both/in/a"], &["/both/new", "/logs/a", "/both/in/../new", "/both/in/up"]);
    }

    #[test]
    fn reading_and_writing_at_once_needs_both() {
        check(BOTH, &["/both/in/a"], &["/both/a", "/logs/a", "/both/in/up"]);
    }

    #[test]
    fn a_place_that_is_not_there_is_said() {
        let policy = Policy::new(&Settings {
            file_read_allow: Some(Sourced { value: vec!["/gone".into()], origin: Origin::Default }),
            ..Settings::default()
        });
        let (root, _directory) = Root::from_text("logs/\n");
        let error = policy.place(&root, Path::new("/gone/a"), READ).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
