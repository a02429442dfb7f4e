//! The keys file of a user where root keeps the home, the directory or the file from the user.
//!
//! Chrooted users, hardened images and a `sudo mkdir ~/.ssh` have such files. The way to the home must be root's
//! ([`crate::accounts::Account::open_home`]), and home and directory must be directories, not links, that nobody but
//! root and the user can change. Then everything happens in the directory that was opened, with the rights of its
//! owner:
//!
//! - A directory that only root can change is used with root's rights. In a home of the user's own, the user may have
//!   put it there, but only as a whole, from the same home. A file of root's stays root's, because the user must not
//!   gain the right to change it, but sshd can read it, as it reads with the user's rights. Any other file becomes the
//!   user's.
//! - A directory of the user's is used with the user's rights. A file of root's in it can be read if
//!   [`is_for_the_user`] says so.
//!
//! Before keys are added, the user must have access to the directory, or sshd would not find them. Access to root's
//! directory is given if that reveals nothing else.

use std::{
    fs::{File, Metadata, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    unistd::{Gid, Uid, fchown, geteuid},
};

use super::{
    Change,
    keys_file::{DIRECTORY_MODE, FILE_MODE, Failure, KeysFile, READ_FLAGS, check_size, if_exists, read_regular},
    lines,
};
use crate::{accounts::home::is_roots, root::Directory};

/// A file of root's that sshd can read for the user.
const ROOTS_FILE_MODE: u32 = 0o644;
/// Permission to use the names in a directory, for all.
const SEARCH: u32 = 0o011;
/// Any permission of group and others.
const ACCESS_OF_OTHERS: u32 = 0o077;

/// How the types of keys begin that sshd(8) knows.
const KEY_TYPES: [&[u8]; 3] = [b"ssh-", b"ecdsa-sha2-", b"sk-"];

/// A keys file to which the user has no access.
pub(super) struct RootKept<'a> {
    keys: &'a KeysFile<'a>,
    home: Directory,
    home_is_roots: bool,
    /// The directory with the file, if it exists.
    directory: Option<KeysDirectory>,
}

struct KeysDirectory {
    directory: Directory,
    is_roots: bool,
}

impl<'a> RootKept<'a> {
    /// Opens the directories.
    ///
    /// # Errors
    /// `EACCES` when somebody else can change them, `ENOTDIR` when one of them is a link.
    pub(super) fn open(keys: &'a KeysFile<'a>) -> io::Result<Self> {
        let home = keys.account.open_home(keys.root)?;
        let home_is_roots = is_roots(&home.metadata()?);
        let directory = if_exists(home.directory(KeysFile::directory_name()))?;
        let directory = directory.map(|directory| KeysDirectory::checked(keys, directory)).transpose()?;
        Ok(Self { keys, home, home_is_roots, directory })
    }

    /// The contents, if the file exists.
    pub(super) fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let Some(KeysDirectory { directory, is_roots }) = &self.directory else { return Ok(None) };
        let open = || directory.open(KeysFile::file_name(), READ_FLAGS).map_err(link_is_denied);
        match self.keys.account.with_rights(open)? {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            opened => return if_exists(opened.and_then(|file| read_regular(&file))),
        }
        let Some(file) = if_exists(open())? else { return Ok(None) };
        let contents = read_regular(&file)?;
        let metadata = file.metadata()?;
        let was_put_there_by_root = self.home_is_roots && *is_roots;
        let is_users = metadata.uid() == self.keys.account.uid.as_raw();
        match was_put_there_by_root || is_users || is_for_the_user(&metadata, &contents) {
            true => Ok(Some(contents)),
            false => Err(Errno::EACCES.into()),
        }
    }

    /// Makes a change. New keys are written even if the file has them, so that sshd can read it afterwards.
    pub(super) fn change(mut self, change: &Change<'_>) -> Result<(), Failure> {
        let existing = if change.keeps_existing() { self.read().map_err(Failure::Read)? } else { None };
        let Some(contents) = change.applied_to(existing.as_deref()) else { return Ok(()) };
        if change.adds() {
            self.give_access()?;
        } else if existing.as_ref() == Some(&contents) {
            return Ok(());
        }
        check_size(&contents)?;
        self.write(&contents).map_err(Failure::Write)
    }

    fn write(&self, contents: &[u8]) -> io::Result<()> {
        let KeysDirectory { directory, is_roots } = self.directory.as_ref().ok_or(Errno::ENOENT)?;
        let account = &self.keys.account;
        let as_users = |file: &File| {
            fchown(file, Some(account.uid), Some(account.gid))?;
            file.set_permissions(Permissions::from_mode(FILE_MODE.bits()))
        };
        if !is_roots {
            return account.with_rights(|| directory.replace(KeysFile::file_name(), contents, as_users))?;
        }
        let existing = if_exists(directory.open(KeysFile::file_name(), OFlag::O_PATH))?;
        let roots = existing.map(|file| file.metadata()).transpose()?.filter(|old| old.uid() == geteuid().as_raw());
        directory.replace(KeysFile::file_name(), contents, |file| match roots {
            None => as_users(file),
            Some(old) => {
                fchown(file, Some(Uid::from_raw(old.uid())), Some(Gid::from_raw(old.gid())))?;
                file.set_permissions(Permissions::from_mode(ROOTS_FILE_MODE))
            }
        })?;
        log::info!("changed {} with the rights of root", self.keys.name());
        Ok(())
    }

    /// Makes sure that the user, and thus sshd, can reach the file.
    fn give_access(&mut self) -> Result<(), Failure> {
        let home = &self.keys.account.home;
        let denied = |path: &Path| {
            let (user, path) = (&self.keys.account.name, path.display());
            Failure::Write(io::Error::other(format!("user '{user}' has no access to '{path}', and so sshd has none")))
        };
        if !self.user_can_search(home).map_err(Failure::Write)? {
            return Err(denied(home));
        }
        let directory = self.keys.directory();
        let Some(found) = &self.directory else {
            self.directory = Some(self.make_directory().map_err(Failure::MakeDirectory)?);
            log::info!("created {}", directory.display());
            return Ok(());
        };
        if self.user_can_search(&directory).map_err(Failure::Write)? {
            return Ok(());
        }
        if !found.is_roots || !(self.home_is_roots || found.holds_nothing_else().map_err(Failure::Write)?) {
            return Err(denied(&directory));
        }
        log::info!("allowed users to use names in {}", directory.display());
        found.allow_search().map_err(Failure::Write)
    }

    fn user_can_search(&self, directory: &Path) -> io::Result<bool> {
        // The lookup of a name needs the permission, even of this one.
        let opened = self.keys.account.with_rights(|| self.keys.root.open(directory.join("."), OFlag::O_PATH))?;
        match opened {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            result => result.map(|_| true),
        }
    }

    /// Makes a directory for the user, who can do the rest.
    fn make_directory(&self) -> io::Result<KeysDirectory> {
        if !self.home_is_roots {
            return Err(Errno::EACCES.into());
        }
        self.home.make_directory(KeysFile::directory_name(), DIRECTORY_MODE)?;
        let directory = self.home.directory(KeysFile::directory_name())?;
        fchown(directory.itself()?, Some(self.keys.account.uid), Some(self.keys.account.gid))?;
        Ok(KeysDirectory { directory, is_roots: false })
    }
}

impl KeysDirectory {
    fn checked(keys: &KeysFile<'_>, directory: Directory) -> io::Result<Self> {
        let metadata = directory.metadata()?;
        match keys.account.can_trust(&metadata) {
            true => Ok(Self { directory, is_roots: is_roots(&metadata) }),
            false => Err(Errno::EACCES.into()),
        }
    }

    /// Whether only the keys file becomes accessible together with the directory.
    fn holds_nothing_else(&self) -> io::Result<bool> {
        for name in self.directory.names()? {
            let mode = self.directory.open(&name, OFlag::O_PATH)?.metadata()?.mode();
            if name != KeysFile::file_name() && mode & ACCESS_OF_OTHERS != 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn allow_search(&self) -> io::Result<()> {
        let directory = self.directory.itself()?;
        directory.set_permissions(Permissions::from_mode(directory.metadata()?.mode() & 0o7777 | SEARCH))
    }
}

/// Whether the contents of a file of root's, which the user cannot read, may be given to the user.
///
/// The user may have put the file there: by renaming it, or as the last name of a file of the system's that was
/// replaced. So it must have no other name and hold nothing but public keys, which are no secret.
fn is_for_the_user(metadata: &Metadata, contents: &[u8]) -> bool {
    metadata.uid() == geteuid().as_raw() && metadata.nlink() == 1 && are_public_keys(contents)
}

/// Whether each line is a public key or a comment, and at least one is a key unless the file is empty.
fn are_public_keys(contents: &[u8]) -> bool {
    let mut lines = lines(contents).map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).peekable();
    let mut has_key = lines.peek().is_none();
    lines.all(|line| {
        let is_key = is_public_key(line);
        has_key |= is_key;
        is_key || line.starts_with(b"#")
    }) && has_key
}

/// Whether a line has the form of sshd(8): options, the type, the key as base64, a comment. Each key begins with the
/// length of a short text in four bytes (RFC 4253, 6.6), that is with `AAAA`.
fn is_public_key(line: &[u8]) -> bool {
    let words: Vec<_> = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
    let is_type = |word: &[u8]| KEY_TYPES.iter().any(|prefix| word.starts_with(prefix));
    let is_key = |word: &[u8]| {
        word.starts_with(b"AAAA") && word.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte))
    };
    words.windows(2).any(|pair| is_type(pair[0]) && is_key(pair[1]))
}

/// A link is never followed.
fn link_is_denied(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(Errno::ELOOP as i32) { Errno::EACCES.into() } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

    fn check(contents: &str, expected: bool) {
        assert_eq!(are_public_keys(contents.as_bytes()), expected, "{contents}");
    }

    #[test]
    fn lines_of_keys_and_comments_are_public() {
        for contents in [
            KEY.to_owned(),
            format!("{KEY} ann@example.org\n"),
            format!("# mine\n\n  {KEY}\r\n{KEY} two words\n"),
            format!("no-pty,command=\"echo a b\" {KEY}\n"),
            "ecdsa-sha2-nistp256 AAAAE2Vj\nsk-ssh-ed25519@openssh.com AAAAGnNr\n".to_owned(),
            format!("@cert-authority *.example.org {KEY}\n"),
            String::new(),
            "\n \n".to_owned(),
        ] {
            check(&contents, true);
        }
    }

    #[test]
    fn files_with_anything_else_are_not() {
        for contents in [
            "root:$6$salt$hash:19000:0:99999:7:::\n".to_owned(),
            format!("{KEY}\nroot:$6$salt$hash:19000:0:99999:7:::\n"),
            "# only a comment\n".to_owned(),
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU=\n".to_owned(),
            "ssh-ed25519\n".to_owned(),
            "ssh-ed25519 secret\n".to_owned(),
            "password AAAAC3Nz\n".to_owned(),
            "ssh-rsa AAAAB3Nz:secret\n".to_owned(),
        ] {
            check(&contents, false);
        }
    }
}
