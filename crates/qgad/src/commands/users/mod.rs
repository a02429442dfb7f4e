//! Users who are logged in, and passwords.
//!
//! Logins come from utmp, except for records whose process is gone. Some distributions do not write utmp any more: if
//! it has no login, they come from logind's sessions, except for sessions that are closing. Each user is reported once,
//! with the earliest login, in the order of utmp or of the login times. Invalid records are skipped. A guest that has
//! neither source has no logins.
//! The guest's chpasswd(8) sets a password, because it knows the guest's own rules and directories. In a guest without
//! it, the agent writes the password files itself. A password never appears in a log, an error or a program's
//! arguments.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
};

use nix::fcntl::OFlag;
use qga::{
    Command,
    commands::{
        session::Nothing,
        users::{GetUsers, LoggedInUser, SetUserPassword},
    },
    wire::message::Error,
};

use super::{Result, Run};
use crate::{
    accounts::{crypt, shadow},
    guest::Guest,
    root::Root,
    util::{errno, in_use::Resource},
};

const UTMP: &str = "/var/run/utmp";
/// The process that every guest has whose `/proc` is mounted.
const INIT_PROCESS: i32 = 1;
/// One file a session, with lines such as `USER=ann`. Other files there have a dot in their names.
const SESSIONS: &str = "/run/systemd/sessions";
/// Classes of sessions in which a user works, rather than a greeter or a service manager.
const USER_CLASSES: [&str; 4] = ["user", "user-early", "user-light", "user-early-light"];

/// The program that sets passwords.
const CHPASSWD: &str = "chpasswd";
/// The purpose of running it, for error messages; hosts match the words.
const PASSWORD_ACTION: &str = "set user password";
/// The source of random bytes.
const RANDOM: &str = "/dev/urandom";

impl Run for SetUserPassword {
    fn run(self, guest: &Guest) -> Result<Nothing> {
        let Self { username, password, crypted } = self;
        let password = password.into_bytes()?;
        check_password(&username, &password, crypted)?;
        let command = guest.begin_use(&Self::SPEC);
        command
            .turn_to(Resource::User(username.clone()))
            .map_err(|error| Error::generic(format!("failed to {PASSWORD_ACTION}: {error}")))?;
        if let Some(program) = guest.helpers().find(CHPASSWD) {
            let options: &[&str] = if crypted { &["-e"] } else { &[] };
            let input = [username.as_bytes(), b":", &password, b"\n"].concat();
            guest.helpers().run(&program, options, &input, PASSWORD_ACTION, guest.timeout(&Self::SPEC))?;
            return Ok(Nothing {});
        }
        let hash = if crypted {
            String::from_utf8(password).map_err(|_| "it is no text".into())
        } else {
            hash(guest, &password)
        };
        hash.and_then(|hash| shadow::set_password(&guest.root, &username, &hash))
            .map_err(|cause| Error::generic(format!("child process has failed to {PASSWORD_ACTION}: {cause}")))?;
        Ok(Nothing {})
    }

    fn audit_subject(&self) -> Option<String> {
        Some(self.username.clone())
    }
}

/// Refuses characters that would add fields or lines to the password files.
fn check_password(username: &str, password: &[u8], crypted: bool) -> Result<()> {
    let forbidden = |what| Err(Error::generic(format!("forbidden characters in {what}")));
    if password.iter().any(|byte| matches!(byte, b'\n' | 0)) {
        return forbidden("raw password");
    }
    if username.bytes().any(|byte| matches!(byte, b'\n' | b':' | 0)) {
        return forbidden("username");
    }
    if crypted && password.contains(&b':') {
        return forbidden("crypted password");
    }
    Ok(())
}

fn hash(guest: &Guest, password: &[u8]) -> std::result::Result<String, String> {
    let mut random = [0; crypt::SALT_BYTES];
    let source = guest.root.open(RANDOM, OFlag::O_RDONLY).map(File::from);
    source
        .and_then(|mut source| source.read_exact(&mut random))
        .map_err(|error| format!("failed to read {RANDOM}: {}", errno::describe(error)))?;
    Ok(crypt::hash(password, random))
}

impl Run for GetUsers {
    fn run(self, guest: &Guest) -> Result<Vec<LoggedInUser>> {
        let logins = match guest.root.read(UTMP) {
            Ok(contents) => utmp_logins(&contents, &Layout::OF_THIS_MACHINE, |pid| has_process(&guest.root, pid)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::generic(format!("failed to read {UTMP}: {}", errno::describe(error)))),
        };
        Ok(earliest_of_each(if logins.is_empty() { session_logins(&guest.root) } else { logins }))
    }
}

/// A login: the user, and the time in microseconds since the epoch.
#[derive(Debug, PartialEq, Eq)]
struct Login {
    user: String,
    time: i64,
}

/// Each user once, in the order of the first login in the list, with the earliest time.
fn earliest_of_each(logins: Vec<Login>) -> Vec<LoggedInUser> {
    let mut users: Vec<Login> = Vec::new();
    for login in logins {
        match users.iter_mut().find(|known| known.user == login.user) {
            Some(known) => known.time = known.time.min(login.time),
            None => users.push(login),
        }
    }
    users
        .into_iter()
        .map(|Login { user, time }| LoggedInUser { user, login_time: seconds(time), domain: None })
        .collect()
}

/// The time in seconds, computed as by qemu-ga, so that it is rounded in the same way.
#[expect(clippy::cast_precision_loss, reason = "seconds stay exact for longer than there will be logins")]
fn seconds(microseconds: i64) -> f64 {
    microseconds.div_euclid(1_000_000) as f64 + microseconds.rem_euclid(1_000_000) as f64 / 1e6
}

/// The layout of a record of utmp(5), as the GNU C library writes it. Offsets and sizes are in bytes.
struct Layout {
    bytes: usize,
    time: usize,
    /// The size of the seconds, and of the microseconds behind them.
    time_bytes: usize,
}

impl Layout {
    /// The layout of 32-bit machines and, for compatibility, of most 64-bit machines.
    const NARROW: Self = Self { bytes: 384, time: 340, time_bytes: 4 };
    const WIDE: Self = Self { bytes: 400, time: 344, time_bytes: 8 };
    const OF_THIS_MACHINE: Self = if cfg!(target_arch = "aarch64") { Self::WIDE } else { Self::NARROW };
    const PID: usize = 4;
    const USER: std::ops::Range<usize> = 44..76;
    /// The type of a record of a login, in its first two bytes.
    const USER_PROCESS: i16 = 7;
}

/// Whether a process exists, as far as `/proc` tells.
fn has_process(root: &Root, pid: i32) -> bool {
    let exists = |pid: i32| root.open(format!("/proc/{pid}"), OFlag::O_PATH).is_ok();
    pid <= 0 || exists(pid) || !exists(INIT_PROCESS)
}

/// The logins in the contents of utmp whose processes exist.
fn utmp_logins(contents: &[u8], layout: &Layout, has_process: impl Fn(i32) -> bool) -> Vec<Login> {
    let number = |bytes: &[u8]| match bytes {
        [a, b, c, d] => i32::from_ne_bytes([*a, *b, *c, *d]).into(),
        _ => bytes.try_into().map_or(0, i64::from_ne_bytes),
    };
    let login = |record: &[u8]| {
        let [a, b, c, d, ..] = record[Layout::PID..] else { return None };
        has_process(i32::from_ne_bytes([a, b, c, d])).then_some(())?;
        let user = record[Layout::USER].split(|byte| *byte == 0).next().filter(|user| !user.is_empty())?;
        let (seconds, rest) = record[layout.time..].split_at(layout.time_bytes);
        let time = number(seconds).saturating_mul(1_000_000).saturating_add(number(&rest[..layout.time_bytes]));
        Some(Login { user: String::from_utf8_lossy(user).into_owned(), time })
    };
    let records = contents.chunks_exact(layout.bytes);
    records
        .filter(|record| i16::from_ne_bytes([record[0], record[1]]) == Layout::USER_PROCESS)
        .filter_map(login)
        .collect()
}

/// The logins of logind's sessions, in the order of time.
fn session_logins(root: &Root) -> Vec<Login> {
    let names = root.names(SESSIONS).unwrap_or_default();
    let is_session = |name: &&OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_alphanumeric);
    let sessions = names.iter().map(AsRef::as_ref).filter(is_session);
    let mut logins: Vec<_> = sessions
        .filter_map(|name: &OsStr| session_login(&root.read(std::path::Path::new(SESSIONS).join(name)).ok()?))
        .collect();
    logins.sort_by(|one, other| (one.time, &one.user).cmp(&(other.time, &other.user)));
    logins
}

/// The login of a session, if it is a user's.
fn session_login(contents: &[u8]) -> Option<Login> {
    let contents = String::from_utf8_lossy(contents);
    let value = |name: &str| {
        let mut lines = contents.lines().filter_map(|line| line.split_once('='));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let is_of_a_user = value("CLASS").is_some_and(|class| USER_CLASSES.contains(&class));
    if !is_of_a_user || value("STATE") == Some("closing") {
        return None;
    }
    Some(Login { user: value("USER")?.into(), time: value("REALTIME")?.parse().ok()? })
}

#[cfg(test)]
mod tests;
