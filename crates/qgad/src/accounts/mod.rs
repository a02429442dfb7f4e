//! Accounts: who a name is, and doing something with that user's rights.
//!
//! Users are asked for where the system keeps them, network directories included; a fake machine has `/etc/passwd`.
//! What is done in a user's home is done with the rights of that user, because everything there may be a link that the
//! user has planted: [`Account::act`] gives them to one thread for as long as that takes, files only. That thread has
//! the user's groups, and its real and effective user stay the agent's, so that the user cannot signal or trace it.

pub(crate) mod crypt;
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
    /// The user's number.
    pub(crate) uid: Uid,
    /// The number of the user's own group.
    pub(crate) gid: Gid,
    /// The home directory, which may be absent.
    pub(crate) home: PathBuf,
}

impl Account {
    /// The account of this name, if there is one.
    pub(crate) fn find(root: &Root, name: &str) -> io::Result<Option<Self>> {
        if !root.is_machine() {
            return Ok(find_in(&root.read(PASSWD)?, name));
        }
        let user = User::from_name(name)?;
        Ok(user.map(|user| Self { name: user.name, uid: user.uid, gid: user.gid, home: user.dir }))
    }

    /// Does something to files with this user's rights.
    ///
    /// # Errors
    /// When the rights cannot be had. Nothing is done then.
    pub(crate) fn act<T: Send>(&self, action: impl FnOnce() -> T + Send) -> io::Result<T> {
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

    /// For a thread that ends afterwards: there is no way back.
    fn assume_rights(&self) -> io::Result<()> {
        let groups = getgrouplist(&CString::new(self.name.as_str())?, self.gid)?;
        sys::groups::set_of_thread(&groups)?;
        setfsgid(self.gid);
        setfsuid(self.uid);
        // Neither call says whether it has worked, but both tell what was before.
        let has_rights = (setfsgid(self.gid), setfsuid(self.uid)) == (self.gid, self.uid);
        if has_rights { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

fn find_in(passwd: &[u8], name: &str) -> Option<Account> {
    let mut lines = passwd.split(|byte| *byte == b'\n');
    lines.find_map(|line| {
        let fields: Vec<_> = line.split(|byte| *byte == b':').collect();
        let [found, _, uid, gid, _, home, _] = fields[..] else { return None };
        let number = |field| str::from_utf8(field).ok()?.parse().ok();
        (found == name.as_bytes()).then_some(())?;
        Some(Account {
            name: name.into(),
            uid: Uid::from_raw(number(uid)?),
            gid: Gid::from_raw(number(gid)?),
            home: OsStr::from_bytes(home).into(),
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
    fn a_line_that_makes_no_sense_is_nobody() {
        check("x", None);
    }

    #[test]
    fn the_machine_knows_its_first_user() {
        let account = Account::find(&Root::machine(), "root").unwrap().unwrap();
        assert_eq!(account.uid, Uid::from_raw(0));
        assert_eq!(Account::find(&Root::machine(), "no such user").unwrap(), None);
    }

    #[test]
    fn one_own_rights_need_no_other_thread() {
        let account = Account { name: String::new(), uid: geteuid(), gid: Gid::from_raw(0), home: PathBuf::new() };
        let here = thread::current().id();
        assert_eq!(account.act(|| thread::current().id()).unwrap(), here);
    }
}
