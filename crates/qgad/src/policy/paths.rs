//! Which files may be opened.
//!
//! A list holds absolute paths of directories, with everything below them, and of single files. The longest member that
//! a path begins with applies; without one, the path is refused. From that member on, the kernel makes sure that the
//! path stays below it (`RESOLVE_BENEATH`), in spite of links, `..` and `/proc`, even if they change during the call.
//! On a kernel without openat2(2) nothing is opened. The member itself may lead through links: the administrator has
//! written it. A file opened for both reading and writing must be below members of both lists. A file with several hard
//! links is allowed under each path that is.

use std::{
    ffi::OsStr,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::{errno::Errno, fcntl::OFlag};

use super::{NotAllowed, Policy, Rule, rule_with_members};
use crate::root::{Beneath, Root};

/// A path that a host may use.
#[derive(Debug)]
pub(crate) enum AllowedPath<'a> {
    /// A path without restriction.
    Any(&'a Root, &'a Path),
    /// A path that must not leave this directory.
    Below(Beneath, PathBuf, Rule<'a>),
}

impl Policy {
    /// The path that a host named, if it may be opened with these flags.
    ///
    /// # Errors
    /// When the path is not allowed, or the directory that it must not leave cannot be opened.
    pub(crate) fn path<'a>(&'a self, root: &'a Root, path: &'a Path, flags: OFlag) -> io::Result<AllowedPath<'a>> {
        let access = flags & OFlag::O_ACCMODE;
        let reading = self.reading.as_ref().filter(|_| access != OFlag::O_WRONLY);
        let writing = self.writing.as_ref().filter(|_| access != OFlag::O_RDONLY);
        let lists = [rule_with_members("file-read-allow", reading), rule_with_members("file-write-allow", writing)];
        let mut applicable = Vec::new();
        for (rule, members) in lists.into_iter().flatten() {
            let containing = members.iter().filter(|member| path.starts_with(member));
            match containing.max_by_key(|member| Path::new(member).components().count()) {
                Some(member) => applicable.push((Path::new(member), Rule { value: Some(member), ..rule })),
                None => return Err(not_allowed(&rule)),
            }
        }
        let depth = |(member, _): &&(&Path, _)| member.components().count();
        let (Some((narrow, rule)), Some((wide, _))) =
            (applicable.iter().max_by_key(depth), applicable.iter().min_by_key(depth))
        else {
            return Ok(AllowedPath::Any(root, path));
        };
        let (directory, rest) = match path.strip_prefix(narrow) {
            Ok(rest) if !rest.as_os_str().is_empty() => (*narrow, rest),
            _ => (narrow.parent().unwrap_or(Path::new("/")), Path::new(narrow.file_name().unwrap_or(OsStr::new(".")))),
        };
        let beneath = match directory.strip_prefix(wide) {
            Ok(inner) if !inner.as_os_str().is_empty() => root.beneath(wide)?.beneath(inner),
            _ => root.beneath(directory),
        };
        Ok(AllowedPath::Below(beneath.map_err(|error| clarify(error, rule))?, rest.into(), rule.clone()))
    }
}

impl AllowedPath<'_> {
    /// Opens the file; one that this creates has mode 0.
    pub(crate) fn open(&self, flags: OFlag) -> io::Result<OwnedFd> {
        match self {
            Self::Any(root, path) => root.open(path, flags),
            Self::Below(directory, path, rule) => directory.open(path, flags).map_err(|error| clarify(error, rule)),
        }
    }

    /// Removes the file.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match self {
            Self::Any(root, path) => root.remove_file(path),
            Self::Below(directory, path, _) => directory.remove_file(path),
        }
    }
}

/// The kernel's errors about a path that leaves its directory are hard to understand.
fn clarify(error: io::Error, rule: &Rule<'_>) -> io::Error {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EXDEV | Errno::ELOOP) => not_allowed(rule),
        _ => error,
    }
}

fn not_allowed(rule: &Rule<'_>) -> io::Error {
    // The member of the list is for the administrator.
    let text = format!("it is not allowed ({})", Rule { value: None, ..rule.clone() });
    NotAllowed::by(rule, "the file is not allowed", text)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::config::{
        settings::Settings,
        values::{Origin, WithOrigin},
    };

    const READ: OFlag = OFlag::O_RDONLY;
    const CREATE: OFlag = OFlag::O_WRONLY.union(OFlag::O_CREAT);
    const BOTH: OFlag = OFlag::O_RDWR;

    /// Opens a path of a machine whose allowed paths are below /logs, /both and /etc/one for reading, and below
    /// /both/in for writing.
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
        let allowed = |paths: &[&str]| {
            let value = paths.iter().map(ToString::to_string).collect();
            Some(WithOrigin { value, origin: Origin::File("/conf".into()) })
        };
        let policy = Policy::new(&Settings {
            file_read_allow: allowed(&["/logs", "/both", "/etc/one", "/etc/link", "/alias"]),
            file_write_allow: allowed(&["/both/in"]),
            ..Settings::default()
        });
        let root = Root::at(directory.path());
        let opened = policy.path(&root, Path::new(path), flags).and_then(|path| path.open(flags));
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
    fn a_member_of_the_list_and_all_below_it_can_be_read() {
        check(READ, &["/logs/a", "//logs/./deep/b", "/logs/inside", "/logs/deep/../a", "/etc/one", "/alias/a"], &[]);
    }

    #[test]
    fn other_paths_cannot_be_read() {
        check(READ, &[], &["/etc/two", "/logsx", "logs/a", "etc/one", "/", "", "/proc/self/root/etc/two"]);
    }

    #[test]
    fn neither_links_nor_dots_lead_out_of_an_allowed_directory() {
        check(
            READ,
            &[],
            &["/logs/out", "/logs/absolute", "/logs/directory/two", "/logs/../etc/two", "/logs/magic/etc/two"],
        );
        check(READ, &["/etc/link"], &[]);
    }

    #[test]
    fn a_file_is_created_only_where_writing_is_allowed() {
        check(CREATE, &["/both/in/new", "/both/in/a"], &["/both/new", "/logs/a", "/both/in/../new", "/both/in/up"]);
    }

    #[test]
    fn opening_for_reading_and_writing_needs_both_lists() {
        check(BOTH, &["/both/in/a"], &["/both/a", "/logs/a", "/both/in/up"]);
    }

    #[test]
    fn a_missing_member_is_an_error_of_its_own() {
        let policy = Policy::new(&Settings {
            file_read_allow: Some(WithOrigin { value: vec!["/gone".into()], origin: Origin::Default }),
            ..Settings::default()
        });
        let (root, _directory) = Root::from_text("logs/\n");
        let error = policy.path(&root, Path::new("/gone/a"), READ).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
