//! Home directories on a way that only root can change.
//!
//! What is found there was put there by root, or, in a home of the user's own, by the user. So root's rights can be
//! used in a directory of root's without an attacker choosing the directory. Only root can change a directory that
//! belongs to root and that neither group nor others can write; an access control list of further users shows as
//! group there. Nobody can change the way after it was checked, because each directory is opened in the one before.

use std::{
    ffi::{OsStr, OsString},
    fs::Metadata,
    io,
    os::unix::fs::MetadataExt,
    path::{Component, Path},
};

use nix::{
    errno::Errno,
    unistd::{Uid, geteuid},
};

use super::Account;
use crate::root::{Directory, Root};

/// Most links on the way: as many as the kernel follows.
const MAX_LINKS: usize = 40;
/// Permission to write for group and others.
const OTHERS_WRITE: u32 = 0o022;

impl Account {
    /// Opens the home directory, which is root's or the user's, and which nobody else can change.
    ///
    /// Links on the way are root's own and are followed, as `/home` is a link in some systems. The home itself may be
    /// one, too, if its parent is root's.
    ///
    /// # Errors
    /// `EACCES` when somebody else can change the way or the home.
    pub(crate) fn open_home(&self, root: &Root) -> io::Result<Directory> {
        let home = open_on_roots_way(root, &self.home)?;
        match self.can_trust(&home.metadata()?) {
            true => Ok(home),
            false => Err(Errno::EACCES.into()),
        }
    }

    /// Whether only root and the user can change a directory or a file, which is what sshd requires of both.
    pub(crate) fn can_trust(&self, metadata: &Metadata) -> bool {
        is_only_changed_by(geteuid(), metadata) || is_only_changed_by(self.uid, metadata)
    }
}

/// Whether only root can change a directory or a file.
pub(crate) fn is_roots(metadata: &Metadata) -> bool {
    is_only_changed_by(geteuid(), metadata)
}

fn is_only_changed_by(user: Uid, metadata: &Metadata) -> bool {
    metadata.uid() == user.as_raw() && metadata.mode() & OTHERS_WRITE == 0
}

fn open_on_roots_way(root: &Root, path: &Path) -> io::Result<Directory> {
    let mut way = vec![root.directory("/")?];
    let mut remaining = reversed_names(path);
    let mut links = 0;
    while let Some(name) = remaining.pop() {
        if name == ".." {
            way.truncate(way.len().saturating_sub(1).max(1));
            continue;
        }
        let parent = &way[way.len() - 1];
        if !is_roots(&parent.metadata()?) {
            return Err(Errno::EACCES.into());
        }
        match parent.directory(&name) {
            Ok(directory) => way.push(directory),
            Err(error) => {
                let target = parent.read_link(&name).map_err(|_| error)?;
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::ELOOP.into());
                }
                if target.is_absolute() {
                    way.truncate(1);
                }
                remaining.extend(reversed_names(&target));
            }
        }
    }
    way.pop().ok_or_else(|| Errno::ENOENT.into())
}

fn reversed_names(path: &Path) -> Vec<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsStr::new("..").to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name).rev().collect()
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{PermissionsExt, symlink},
    };

    use nix::unistd::getegid;

    use super::*;

    const TREE: &str = "home/ann/here:\nvar/home/bob/here:\netc/\n";

    /// Opens a home in a machine after `change`, and whether it holds the file `here`.
    fn check(home: &str, change: impl Fn(&Path), expected: Result<(), Errno>) {
        let (root, machine) = Root::from_text(TREE);
        change(machine.path());
        let account =
            Account { name: "ann".into(), uid: geteuid(), gid: getegid(), home: home.into(), shell: "/bin/sh".into() };
        let opened = account.open_home(&root).map(|home| assert_eq!(home.names().unwrap(), ["here"]));
        let error = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap());
        assert_eq!(opened.map_err(error), expected, "{home}");
    }

    fn make_writable(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_home_is_opened_whatever_its_path_looks_like() {
        for home in ["/home/ann", "/home//ann/", "/home/./ann", "/home/../home/ann", "/../home/ann"] {
            check(home, |_| {}, Ok(()));
        }
        check("/home/eve", |_| {}, Err(Errno::ENOENT));
        check("/home/ann/here", |_| {}, Err(Errno::ENOTDIR));
    }

    #[test]
    fn links_of_roots_lead_to_a_home() {
        check("/home/bob", |root| symlink("../var/home/bob", root.join("home/bob")).unwrap(), Ok(()));
        check("/people/bob", |root| symlink("/var/home", root.join("people")).unwrap(), Ok(()));
        check("/home/loop", |root| symlink("loop", root.join("home/loop")).unwrap(), Err(Errno::ELOOP));
    }

    #[test]
    fn a_way_that_others_can_change_leads_nowhere() {
        for (path, mode) in [("home", 0o777), ("home", 0o1777), ("home", 0o775), ("home/ann", 0o775), ("", 0o757)] {
            check("/home/ann", |root| make_writable(&root.join(path), mode), Err(Errno::EACCES));
        }
        let through_link = |root: &Path| {
            symlink("/var/home/bob", root.join("home/bob")).unwrap();
            make_writable(&root.join("var/home"), 0o777);
        };
        check("/home/bob", through_link, Err(Errno::EACCES));
    }
}
