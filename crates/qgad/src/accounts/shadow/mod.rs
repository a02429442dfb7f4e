//! Changing passwords in `/etc/passwd` and `/etc/shadow`, for a guest without chpasswd(8).
//!
//! Each user has a line in `/etc/passwd`. If the password there is `x`, it is in `/etc/shadow`, otherwise in the line
//! itself. The lock is that of lckpwdf(3), which other programs that change these files take, too. A file is replaced
//! as a whole and keeps its owner and mode. Other lines stay unchanged, byte for byte.

use std::{
    fs::{File, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::stat::{Mode, fchmod},
    unistd::{Gid, Uid, fchown},
};

use crate::{
    root::Root,
    util::{errno, file_lock::exclusive},
};

const PASSWD: &str = "/etc/passwd";
const SHADOW: &str = "/etc/shadow";
const LOCK: &str = "/etc/.pwd.lock";
/// The timeout of lckpwdf(3).
const LOCK_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the lock is tried.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);
/// Only root can read password hashes.
const SHADOW_MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);
/// Most links that are followed to the file that is replaced.
const MAX_LINKS: usize = 8;
/// Fields of a line: the password in both files, and the day of its last change in shadow(5).
const PASSWORD_FIELD: usize = 1;
const CHANGE_FIELD: usize = 2;

/// Stores a password hash for a user.
///
/// # Errors
/// With the reason, for the host.
pub(crate) fn set_password(root: &Root, user: &str, hash: &str) -> Result<(), String> {
    let _lock = lock(root).map_err(|error| format!("failed to lock {LOCK}: {}", errno::describe(error)))?;
    let passwd = read(root, PASSWD)?;
    let line = lines(&passwd).find(|line| field(line, 0) == user.as_bytes());
    let line = line.ok_or_else(|| format!("user '{user}' is not in {PASSWD}"))?;
    if field(line, PASSWORD_FIELD) != b"x" {
        return replace(root, PASSWD, &with_fields(&passwd, user, &[(PASSWORD_FIELD, hash)]));
    }
    let shadow = match root.read(SHADOW) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        contents => contents.map_err(|error| cannot_read(SHADOW, error))?,
    };
    let today = today().to_string();
    let mut contents = with_fields(&shadow, user, &[(PASSWORD_FIELD, hash), (CHANGE_FIELD, &today)]);
    if !lines(&shadow).any(|line| field(line, 0) == user.as_bytes()) {
        if !contents.is_empty() && !contents.ends_with(b"\n") {
            contents.push(b'\n');
        }
        contents.extend(format!("{user}:{hash}:{today}:0:99999:7:::\n").into_bytes());
    }
    replace(root, SHADOW, &contents)
}

/// Takes the lock. Dropping the file releases it.
fn lock(root: &Root) -> io::Result<File> {
    let file = File::from(root.open(LOCK, OFlag::O_WRONLY | OFlag::O_CREAT)?);
    fchmod(&file, SHADOW_MODE)?;
    let exclusive = exclusive();
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        // The lock belongs to the descriptor. A lock of the process would not exclude its other threads.
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&exclusive)) {
            Ok(_) => return Ok(file),
            Err(Errno::EAGAIN | Errno::EACCES) if Instant::now() < deadline => thread::sleep(LOCK_INTERVAL),
            Err(error) => return Err(error.into()),
        }
    }
}

fn replace(root: &Root, path: &str, contents: &[u8]) -> Result<(), String> {
    let replaced = resolve(root, path).and_then(|target| {
        let old = match root.open(&target, OFlag::O_PATH) {
            Ok(old) => Some(File::from(old).metadata()?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        root.replace(target, contents, |file| match old {
            Some(old) => {
                fchown(file, Some(Uid::from_raw(old.uid())), Some(Gid::from_raw(old.gid())))?;
                file.set_permissions(Permissions::from_mode(old.mode() & 0o7777))
            }
            None => Ok(fchmod(file, SHADOW_MODE)?),
        })
    });
    replaced.map_err(|error| format!("failed to write {path}: {}", errno::describe(error)))
}

/// Follows a link at this path.
fn resolve(root: &Root, path: &str) -> io::Result<PathBuf> {
    let mut path = PathBuf::from(path);
    for _ in 0..MAX_LINKS {
        match root.read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(Errno::ELOOP.into())
}

fn read(root: &Root, path: &str) -> Result<Vec<u8>, String> {
    root.read(path).map_err(|error| cannot_read(path, error))
}

fn cannot_read(path: &str, error: io::Error) -> String {
    format!("failed to read {path}: {}", errno::describe(error))
}

fn today() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400
}

fn lines(contents: &[u8]) -> impl Iterator<Item = &[u8]> {
    contents.split(|byte| *byte == b'\n')
}

fn field(line: &[u8], number: usize) -> &[u8] {
    line.split(|byte| *byte == b':').nth(number).unwrap_or_default()
}

/// The contents, with some fields of the line of one user changed.
fn with_fields(contents: &[u8], user: &str, changes: &[(usize, &str)]) -> Vec<u8> {
    let changed = lines(contents).map(|line| {
        if field(line, 0) != user.as_bytes() {
            return line.to_vec();
        }
        let mut fields: Vec<_> = line.split(|byte| *byte == b':').collect();
        for (number, value) in changes {
            if let Some(field) = fields.get_mut(*number) {
                *field = value.as_bytes();
            }
        }
        fields.join(&b':')
    });
    changed.collect::<Vec<_>>().join(&b'\n')
}

#[cfg(test)]
mod tests;
