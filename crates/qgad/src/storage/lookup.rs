//! Which file systems take part in looking up a path, named before each of them is accessed.
//!
//! A command looks its path up here first, name by name, links included, and records each file system before it is
//! accessed. If one does not answer, the record names the right one: the file system that a link leads to, not the one
//! that the link is on. Mount points are taken from the kernel's list, so that a dead network file system is not
//! accessed unless the path leads into it.
//!
//! The result is no check: the command opens the path again afterwards. If the path changes in between, only the record
//! is wrong.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    path::{Component, Path, PathBuf},
};

use super::mount_table::{Entry, MountTable, OF_PROCESS};
use crate::{
    root::Root,
    util::in_use::{Resource, Use},
};

/// Most links on a path, as in path_resolution(7).
const MAX_LINKS: usize = 40;
/// Types of file systems whose files are independent of each other: devices, settings, processes.
const KERNEL_TYPES: [&str; 6] = ["devtmpfs", "proc", "sysfs", "devpts", "debugfs", "tracefs"];

/// The mounts at one moment.
#[derive(Debug)]
pub(crate) struct Lookup<'a> {
    root: &'a Root,
    mounts: Vec<Entry>,
}

impl<'a> Lookup<'a> {
    /// If the mounts are unknown, the whole machine counts as one file system.
    pub(crate) fn new(root: &'a Root) -> Self {
        let mounts = MountTable::read(root, OF_PROCESS).map(MountTable::into_visible).unwrap_or_default();
        Self { root, mounts }
    }

    /// Looks up a path. The command then uses the file system that the path leads to, or on which its first missing
    /// name would be.
    ///
    /// # Errors
    /// When an earlier command is stuck on one of the file systems.
    pub(crate) fn follow(&self, path: &Path, command: &Use<'_>) -> io::Result<Resource> {
        self.follow_with(path, |resource| command.turn_to(resource.clone()))
    }

    fn follow_with(&self, path: &Path, mut ask: impl FnMut(&Resource) -> io::Result<()>) -> io::Result<Resource> {
        let mut here = self.start();
        let mut ahead: VecDeque<_> = names(path).collect();
        if path.is_absolute() {
            here = "/".into();
        }
        let mut links = 0;
        let mut asked = None;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                here.pop();
                continue;
            }
            here.push(name);
            // The root of a mount is no link, and hides what is below it.
            if self.mounts.iter().any(|mount| mount.mount_point == here) {
                continue;
            }
            let next = self.file_system_of(&here);
            if asked.as_ref() != Some(&next) {
                ask(&next)?;
                asked = Some(next);
            }
            let Ok(target) = self.root.read_link(&here) else { continue };
            links += 1;
            if links > MAX_LINKS {
                break;
            }
            here.pop();
            if target.is_absolute() {
                here = "/".into();
            }
            ahead = names(&target).chain(ahead).collect();
        }
        let last = self.what_is_at(here);
        ask(&last)?;
        Ok(last)
    }

    /// Where a relative path begins.
    fn start(&self) -> PathBuf {
        match self.root.is_machine() {
            true => std::env::current_dir().unwrap_or_else(|_| "/".into()),
            false => "/".into(),
        }
    }

    fn what_is_at(&self, path: PathBuf) -> Resource {
        match self.mount_of(&path) {
            Some(mount) if KERNEL_TYPES.contains(&mount.kind.as_str()) => Resource::File(path),
            _ => self.file_system_of(&path),
        }
    }

    fn file_system_of(&self, path: &Path) -> Resource {
        let mount = self.mount_of(path);
        let first = mount.and_then(|mount| self.mounts.iter().find(|one| one.file_system == mount.file_system));
        Resource::FileSystem(first.map_or_else(|| "/".into(), |mount| mount.mount_point.clone()))
    }

    /// Of several mounts at one point, the last one hides the others.
    fn mount_of(&self, path: &Path) -> Option<&Entry> {
        let containing = self.mounts.iter().filter(|mount| path.starts_with(&mount.mount_point));
        containing.max_by_key(|mount| mount.mount_point.as_os_str().len())
    }
}

/// The names of a path, and `..`.
fn names(path: &Path) -> impl Iterator<Item = OsString> {
    let is_name = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().filter(is_name).map(|part| part.as_os_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "\
proc/self/mountinfo:
| 1 0 254:1 / / rw - ext4 /dev/vda1 rw
| 2 1 0:5 / /dev rw - devtmpfs devtmpfs rw
| 3 1 254:2 / /home rw - xfs /dev/vda2 rw
| 4 3 0:50 / /home/ann/mnt rw - fuse.sshfs x rw
| 5 1 0:50 / /srv/same rw - fuse.sshfs x rw
| 6 1 0:60 / /srv/net\\040work rw - nfs4 x rw
| 7 6 0:61 / /srv/net\\040work rw - nfs4 y rw
dev/
home/ann/.ssh -> mnt/.ssh
home/ann/file: x
home/ann/up -> ../../etc/passwd
home/loop -> loop
srv/link -> /home/ann/link
home/ann/link -> /srv/net work/deep
";

    /// All that is asked for a path, in order.
    fn asked(path: &str) -> Vec<String> {
        let (root, _directory) = Root::from_text(MACHINE);
        let mut asked = Vec::new();
        let ask = |resource: &Resource| {
            asked.push(match resource {
                Resource::File(path) => format!("file {}", path.display()),
                Resource::FileSystem(path) => path.display().to_string(),
                other => panic!("{other}"),
            });
            Ok(())
        };
        Lookup::new(&root).follow_with(Path::new(path), ask).unwrap();
        asked.dedup();
        asked
    }

    #[test]
    fn each_file_system_on_the_way_is_named_before_it_is_asked() {
        assert_eq!(asked("/etc/passwd"), ["/"]);
        assert_eq!(asked("/home/ann/file"), ["/home"]);
        assert_eq!(asked("/home/ann/file/below/file"), ["/home"]);
        assert_eq!(asked("/home/ann/mnt"), ["/home", "/home/ann/mnt"]);
        assert_eq!(asked("/"), ["/"]);
        assert_eq!(asked(""), ["/"]);
    }

    #[test]
    fn a_link_is_followed_to_the_file_system_that_it_leads_to() {
        assert_eq!(asked("/home/ann/.ssh/authorized_keys"), ["/home", "/home/ann/mnt"]);
        assert_eq!(asked("/home/ann/up"), ["/home", "/"]);
        assert_eq!(asked("/srv/link/x"), ["/", "/home", "/", "/srv/net work"]);
        assert_eq!(asked("home/../home/ann/./up"), ["/home", "/"]);
        assert_eq!(asked("/home/loop"), ["/home"]);
    }

    #[test]
    fn a_file_system_with_several_mounts_has_one_name() {
        assert_eq!(asked("/srv/same/x"), ["/", "/home/ann/mnt"]);
    }

    #[test]
    fn a_file_of_the_kernel_stands_for_itself() {
        assert_eq!(asked("/dev/sda"), ["/dev", "file /dev/sda"]);
    }

    #[test]
    fn what_does_not_answer_is_not_asked_again() {
        let (root, _directory) = Root::from_text(MACHINE);
        let lookup = Lookup::new(&root);
        let dead = Resource::FileSystem("/home/ann/mnt".into());
        let ask = |resource: &Resource| match *resource == dead {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(()),
        };
        assert!(lookup.follow_with(Path::new("/home/ann/.ssh/authorized_keys"), ask).is_err());
        assert!(lookup.follow_with(Path::new("/home/ann/file"), ask).is_ok());
    }
}
