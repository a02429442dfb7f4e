//! Accounts: finding a user by name, and accessing files with the rights of that user.
//!
//! Users are looked up by the C library, which also asks network directories. A fake machine has only `/etc/passwd`.
//! Files in a home directory are accessed with the rights of its user, because each may be a link that the user has
//! planted. [`Account::with_rights`] gives one thread the file system user and the groups of the user. The real and
//! effective user stay those of the agent, so that the user cannot signal or trace the thread. Where only root has
//! access, [`Account::open_home`] opens a home in which root's rights can be used.

pub(crate) mod crypt;
pub(crate) mod home;
pub(crate) mod shadow;

use std::{
    ffi::{CString, OsStr},
    io,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    thread,
};

use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist, setfsgid, setfsuid};

use crate::{root::Root, sys};

const PASSWD: &str = "/etc/passwd";

/// A user of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// The name.
    pub(crate) name: String,
    /// The user id.
    pub(crate) uid: Uid,
    /// The id of the primary group.
    pub(crate) gid: Gid,
    /// The home directory, which may not exist.
    pub(crate) home: PathBuf,
    /// The login shell; empty where the system's default counts.
    pub(crate) shell: PathBuf,
}

impl Account {
    /// The account with this name, if there is one.
    pub(crate) fn find(root: &Root, name: &str) -> io::Result<Option<Self>> {
        if !root.is_machine() {
            return Ok(find_in(&root.read(PASSWD)?, name));
        }
        Ok(User::from_name(name)?.map(Self::of))
    }

    /// The account of the agent itself, if it has a name.
    pub(crate) fn of_agent() -> io::Result<Option<Self>> {
        Ok(User::from_uid(geteuid())?.map(Self::of))
    }

    /// The ids of all groups of the user.
    pub(crate) fn groups(&self) -> io::Result<Vec<Gid>> {
        Ok(getgrouplist(&CString::new(self.name.as_str())?, self.gid)?)
    }

    fn of(user: User) -> Self {
        Self { name: user.name, uid: user.uid, gid: user.gid, home: user.dir, shell: user.shell }
    }

    /// Runs an action on files with the rights of this user.
    ///
    /// # Errors
    /// When the thread cannot get these rights. The action is not run then.
    pub(crate) fn with_rights<T: Send>(&self, action: impl FnOnce() -> T + Send) -> io::Result<T> {
        if self.uid == geteuid() {
            return Ok(action());
        }
        thread::scope(|scope| {
            let worker = thread::Builder::new().name(format!("as {}", self.uid)).spawn_scoped(scope, || {
                self.assume_rights()?;
                Ok(action())
            })?;
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// For a thread that ends afterwards: the rights of the agent cannot be restored.
    fn assume_rights(&self) -> io::Result<()> {
        let groups = self.groups()?;
        sys::groups::set_of_thread(&groups)?;
        setfsgid(self.gid);
        setfsuid(self.uid);
        // The calls report no errors. Both return the previous id.
        let has_rights = (setfsgid(self.gid), setfsuid(self.uid)) == (self.gid, self.uid);
        if has_rights { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

fn find_in(passwd: &[u8], name: &str) -> Option<Account> {
    let mut lines = passwd.split(|byte| *byte == b'\n');
    lines.find_map(|line| {
        let fields: Vec<_> = line.split(|byte| *byte == b':').collect();
        let [found, _, uid, gid, _, home, shell] = fields[..] else { return None };
        let number = |field| str::from_utf8(field).ok()?.parse().ok();
        (found == name.as_bytes()).then_some(())?;
        Some(Account {
            name: name.into(),
            uid: Uid::from_raw(number(uid)?),
            gid: Gid::from_raw(number(gid)?),
            home: OsStr::from_bytes(home).into(),
            shell: OsStr::from_bytes(shell).into(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\nbad\nann:x:1000:100:Ann,,:/home/ann:\nx:x:y:1::/:/bin/sh\n";

    fn check(name: &str, expected: Option<(u32, u32, &str)>) {
        let found = find_in(LINES, name).map(|found| (found.uid.as_raw(), found.gid.as_raw(), found.home));
        assert_eq!(found, expected.map(|(uid, gid, home)| (uid, gid, home.into())), "{name}");
    }

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        check("ann", Some((1000, 100, "/home/ann")));
        check("root", Some((0, 0, "/root")));
        for absent in ["an", "ann:x", "", "bad", "ANN"] {
            check(absent, None);
        }
    }

    #[test]
    fn an_invalid_line_is_no_account() {
        check("x", None);
    }

    #[test]
    fn the_machine_has_root() {
        let account = Account::find(&Root::machine(), "root").unwrap().unwrap();
        assert_eq!(account.uid, Uid::from_raw(0));
        assert_eq!(Account::find(&Root::machine(), "no such user").unwrap(), None);
    }

    #[test]
    fn the_rights_of_the_agent_need_no_other_thread() {
        let account = Account {
            name: String::new(),
            uid: geteuid(),
            gid: Gid::from_raw(0),
            home: PathBuf::new(),
            shell: PathBuf::new(),
        };
        let here = thread::current().id();
        assert_eq!(account.with_rights(|| thread::current().id()).unwrap(), here);
    }
}
