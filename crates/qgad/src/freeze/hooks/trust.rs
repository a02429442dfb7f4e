//! Whether a path leads to a program that only root, or the user that the agent runs as, can change or replace.
//!
//! The path is followed name by name. Each directory on it is checked, and each directory that contains a link: a user
//! who can write there can replace a name. In a sticky directory others can add names, but not replace one that root
//! owns, so such a name is trusted. It is not if something is mounted there, because a user's own file system may
//! report any owner.
//! The path is run, and not a descriptor of the file that was found: the interpreter of a script opens the path itself,
//! and scripts find their other files by their own path. Each component was checked, so no untrusted user can make the
//! path lead to another file.

use std::{
    collections::VecDeque,
    fmt, fs,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use nix::{libc, unistd::geteuid};

/// Most links on a path, as in path_resolution(7).
const MAX_LINKS: usize = 40;
const WRITABLE_BY_OTHERS: u32 = libc::S_IWGRP | libc::S_IWOTH;
const EXECUTABLE: u32 = libc::S_IXUSR | libc::S_IXGRP | libc::S_IXOTH;

/// Why a program is not run.
#[derive(Debug)]
pub(super) enum Distrust {
    /// The path leads to no file.
    Absent(io::Error),
    /// What is wrong, and the command that corrects it, if there is one.
    Because(String, Option<String>),
}

/// The attributes of a file, of a link itself and not its target.
#[derive(Clone, Debug)]
struct Status {
    owner: u32,
    /// With the type.
    mode: u32,
    device: u64,
    /// Where a link leads.
    target: Option<PathBuf>,
}

/// Refuses an absolute path that another user could make lead to another program, or that leads to no file.
pub(super) fn check(path: &Path) -> Result<(), Distrust> {
    let program = follow(path, look)?;
    let status = look(&program).map_err(Distrust::Absent)?;
    match status.mode & libc::S_IFMT {
        libc::S_IFREG if status.mode & EXECUTABLE == 0 => {
            Err(Distrust::Because("it is not executable".into(), Some(format!("chmod a+x '{}'", program.display()))))
        }
        libc::S_IFREG => {
            check_owner("it", &program, &status)?;
            check_mode("it", &program, &status)
        }
        _ => Err(Distrust::Because("it is not a regular file".into(), None)),
    }
}

/// Refuses a directory to which another user could add programs.
pub(super) fn check_directory(path: &Path) -> Result<(), Distrust> {
    let directory = follow(path, look)?;
    let status = look(&directory).map_err(Distrust::Absent)?;
    let name = format!("its directory '{}'", directory.display());
    check_owner(&name, &directory, &status)?;
    check_mode(&name, &directory, &status)
}

/// The path without links, once each step to it is trusted.
fn follow(path: &Path, look: impl Fn(&Path) -> io::Result<Status>) -> Result<PathBuf, Distrust> {
    let names = |path: &Path| -> VecDeque<PathBuf> {
        let is_name = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
        path.components().filter(is_name).map(|part| PathBuf::from(part.as_os_str())).collect()
    };
    let (mut here, mut ahead, mut links) = (PathBuf::from("/"), names(path), 0);
    while let Some(name) = ahead.pop_front() {
        if name == Path::new("..") {
            here.pop();
            continue;
        }
        let directory = look(&here).map_err(Distrust::Absent)?;
        let next = here.join(name);
        let status = look(&next).map_err(Distrust::Absent)?;
        check_step(&here, &directory, &next, &status)?;
        let Some(target) = status.target else {
            here = next;
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(Distrust::Absent(io::Error::from_raw_os_error(libc::ELOOP)));
        }
        if target.is_absolute() {
            here = "/".into();
        }
        let mut of_link = names(&target);
        of_link.append(&mut ahead);
        ahead = of_link;
    }
    Ok(here)
}

/// Refuses a name in a directory where another user could replace it.
fn check_step(path: &Path, directory: &Status, name: &Path, named: &Status) -> Result<(), Distrust> {
    let what = format!("its directory '{}'", path.display());
    check_owner(&what, path, directory)?;
    if directory.mode & libc::S_ISVTX == 0 {
        return check_mode(&what, path, directory);
    }
    if directory.mode & WRITABLE_BY_OTHERS == 0 {
        return Ok(());
    }
    if named.device != directory.device {
        let reason = format!("something is mounted at '{}', in a directory that others can write", name.display());
        return Err(Distrust::Because(reason, None));
    }
    check_owner(&format!("'{}', in a directory that others can write,", name.display()), name, named)
}

fn check_owner(what: &str, path: &Path, status: &Status) -> Result<(), Distrust> {
    if status.owner == 0 || status.owner == geteuid().as_raw() {
        return Ok(());
    }
    let command = format!("chown -h root '{}'", path.display());
    Err(Distrust::Because(format!("{what} is not owned by root"), Some(command)))
}

fn check_mode(what: &str, path: &Path, status: &Status) -> Result<(), Distrust> {
    if status.mode & WRITABLE_BY_OTHERS == 0 {
        return Ok(());
    }
    let command = format!("chmod go-w '{}'", path.display());
    Err(Distrust::Because(format!("{what} can be written by others than its owner"), Some(command)))
}

fn look(path: &Path) -> io::Result<Status> {
    let status = fs::symlink_metadata(path)?;
    let target = match fs::read_link(path) {
        Ok(target) => Some(target),
        Err(error) if error.kind() == ErrorKind::InvalidInput => None,
        Err(error) => return Err(error),
    };
    Ok(Status { owner: status.uid(), mode: status.mode(), device: status.dev(), target })
}

impl fmt::Display for Distrust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(error) => error.fmt(formatter),
            Self::Because(reason, None) => formatter.write_str(reason),
            Self::Because(reason, Some(command)) => write!(formatter, "{reason}; this mends it: {command}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORY: u32 = libc::S_IFDIR | 0o755;
    const STICKY: u32 = libc::S_IFDIR | 0o1775;

    /// A machine of root's, with these exceptions: path, owner, mode, device, and where a link leads.
    type Exception = (&'static str, u32, u32, u64, &'static str);

    fn user() -> u32 {
        geteuid().as_raw() + 1
    }

    fn follow_on(exceptions: &[Exception], path: &str) -> Result<String, String> {
        let look = |path: &Path| {
            let exception = exceptions.iter().find(|(of, ..)| Path::new(of) == path);
            let usual = Status { owner: 0, mode: DIRECTORY, device: 1, target: None };
            Ok(exception.map_or(usual, |(_, owner, mode, device, target)| Status {
                owner: *owner,
                mode: *mode,
                device: *device,
                target: Some(target).filter(|target| !target.is_empty()).map(PathBuf::from),
            }))
        };
        follow(Path::new(path), look).map(|path| path.display().to_string()).map_err(|distrust| distrust.to_string())
    }

    fn check(exceptions: &[Exception], path: &str, expected: Result<&str, &str>) {
        let found = follow_on(exceptions, path);
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{path} {exceptions:?}");
    }

    #[test]
    fn in_a_sticky_directory_of_roots_only_what_is_roots_is_trusted() {
        let store: Exception = ("/nix/store", 0, STICKY, 1, "");
        check(&[store], "/nix/store/a-hook", Ok("/nix/store/a-hook"));
        let users: Exception = ("/nix/store/a-hook", user(), 0o755, 1, "");
        let refusal = "'/nix/store/a-hook', in a directory that others can write, is not owned by root; this mends it: \
                       chown -h root '/nix/store/a-hook'";
        check(&[store, users], "/nix/store/a-hook", Err(refusal));
        let mount: Exception = ("/nix/store/a", 0, DIRECTORY, 2, "");
        let refusal = "something is mounted at '/nix/store/a', in a directory that others can write";
        check(&[store, mount], "/nix/store/a/hook", Err(refusal));
    }

    #[test]
    fn a_directory_that_others_can_write_or_own_is_refused_with_the_command_that_mends_it() {
        let refusal = "its directory '/opt' can be written by others than its owner; this mends it: chmod go-w '/opt'";
        check(&[("/opt", 0, libc::S_IFDIR | 0o777, 1, "")], "/opt/hook", Err(refusal));
        check(&[("/opt", 0, libc::S_IFDIR | 0o775, 1, "")], "/opt/deep/hook", Err(refusal));
        let refusal = "its directory '/opt' is not owned by root; this mends it: chown -h root '/opt'";
        check(&[("/opt", user(), DIRECTORY, 1, "")], "/opt/hook", Err(refusal));
        check(&[("/opt", user(), STICKY, 1, "")], "/opt/hook", Err(refusal));
    }

    #[test]
    fn the_directory_of_each_link_on_the_way_counts() {
        let first: Exception = ("/etc/hook", 0, 0o777, 1, "../var/link");
        let second: Exception = ("/var/link", 0, 0o777, 1, "/usr/lib/hook");
        check(&[first, second], "/etc/hook", Ok("/usr/lib/hook"));
        check(&[first, second, ("/usr/lib", 0, DIRECTORY, 1, "")], "/etc/../etc/hook", Ok("/usr/lib/hook"));
        let refusal = "its directory '/var' can be written by others than its owner; this mends it: chmod go-w '/var'";
        check(&[first, second, ("/var", 0, libc::S_IFDIR | 0o777, 1, "")], "/etc/hook", Err(refusal));
        let refusal = "its directory '/var' is not owned by root; this mends it: chown -h root '/var'";
        check(&[first, second, ("/var", user(), DIRECTORY, 1, "")], "/etc/hook", Err(refusal));
        let users: Exception = ("/var/link", user(), 0o777, 1, "/usr/lib/hook");
        let refusal = "'/var/link', in a directory that others can write, is not owned by root; this mends it: \
                       chown -h root '/var/link'";
        check(&[first, users, ("/var", 0, STICKY, 1, "")], "/etc/hook", Err(refusal));
    }

    #[test]
    fn links_in_a_circle_lead_nowhere() {
        let found = follow_on(&[("/a", 0, 0o777, 1, "b"), ("/b", 0, 0o777, 1, "a")], "/a").unwrap_err();
        assert!(found.contains("Too many levels of symbolic links"), "{found}");
    }
}
