//! The authorized SSH keys of users.
//!
//! They are in `.ssh/authorized_keys` below the user's home directory. The commands use that directory with the user's
//! rights, so that a link made by the user leads nowhere that the user has no access to. A file is replaced as a whole,
//! belongs to the user and has mode 0600. Other lines stay byte for byte, and an unchanged file is not written.
//! A file that exists and cannot be read is an error: replacing it would lose its keys. A file that is larger than
//! [`MAX_KEYS_BYTES`], or would be, is an error, too.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    fcntl::OFlag,
    sys::stat::{Mode, fchmod},
};
use qga::{
    Command,
    commands::{
        session::Nothing,
        ssh::{AddAuthorizedKeys, AuthorizedKeys, GetAuthorizedKeys, RemoveAuthorizedKeys},
    },
    wire::message::Error,
};

use super::{Result, Run};
use crate::{
    accounts::Account,
    guest::Guest,
    root::Root,
    storage::lookup::Lookup,
    util::{
        errno,
        in_use::{Resource, Use},
        keyed_lock::KeyedLockGuard,
    },
};

/// Largest file of keys, in bytes: some thousand keys. A user controls the file, and must not exhaust the agent's
/// memory.
const MAX_KEYS_BYTES: usize = 1024 * 1024;

/// Only the user may list the directory.
const DIRECTORY_MODE: Mode = Mode::S_IRWXU;
/// Only the user may read or write the file.
const FILE_MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

impl Run for GetAuthorizedKeys {
    fn run(self, guest: &Guest) -> Result<AuthorizedKeys> {
        let command = guest.begin_use(&Self::SPEC);
        let keys = Keys::of(guest, &self.username, &command)?;
        let contents = keys.act(Keys::read)?.ok_or_else(|| keys.cannot_read(io::ErrorKind::NotFound.into()))?;
        let keys = lines(&contents).map(<[u8]>::trim_ascii).filter(|line| !line.is_empty() && line[0] != b'#');
        Ok(AuthorizedKeys { keys: keys.map(|key| String::from_utf8_lossy(key).into_owned()).rev().collect() })
    }
}

impl Run for AddAuthorizedKeys {
    fn run(self, guest: &Guest) -> Result<Nothing> {
        check_keys(&self.keys)?;
        let command = guest.begin_use(&Self::SPEC);
        let keys = Keys::of(guest, &self.username, &command)?;
        let _lock = keys.lock(guest, guest.timeout(&Self::SPEC))?;
        keys.act(|keys| {
            let existing = if self.reset == Some(true) { None } else { keys.read()? };
            let contents = with_keys(existing.as_deref().unwrap_or_default(), &self.keys);
            if existing.as_ref() == Some(&contents) { Ok(()) } else { keys.write(&contents) }
        })?;
        Ok(Nothing {})
    }

    fn audit_subject(&self) -> Option<String> {
        Some(self.username.clone())
    }
}

impl Run for RemoveAuthorizedKeys {
    fn run(self, guest: &Guest) -> Result<Nothing> {
        check_keys(&self.keys)?;
        let command = guest.begin_use(&Self::SPEC);
        let keys = Keys::of(guest, &self.username, &command)?;
        let _lock = keys.lock(guest, guest.timeout(&Self::SPEC))?;
        keys.act(|keys| {
            let Some(existing) = keys.read()? else { return Ok(()) };
            let contents = without_keys(&existing, &self.keys);
            if existing == contents { Ok(()) } else { keys.write(&contents) }
        })?;
        Ok(Nothing {})
    }

    fn audit_subject(&self) -> Option<String> {
        Some(self.username.clone())
    }
}

fn check_keys(keys: &[String]) -> Result<()> {
    match keys.iter().find(|key| key.starts_with('#') || key.contains('\n')) {
        Some(key) => Err(Error::generic(format!("invalid OpenSSH public key: '{key}'"))),
        None => Ok(()),
    }
}

/// The lines of a file, without line feeds.
fn lines(contents: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    contents.split_inclusive(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\n").unwrap_or(line))
}

/// The ways in which a host may write the key of a line: the line itself, or without the blanks around it, as reported.
fn accepted_forms(line: &[u8]) -> [&[u8]; 2] {
    [line, line.trim_ascii()]
}

/// The contents with these keys added at the end, one a line. A key that is there already is not added again.
fn with_keys(contents: &[u8], keys: &[String]) -> Vec<u8> {
    let mut known: HashSet<_> = lines(contents).flat_map(accepted_forms).collect();
    let mut contents = contents.to_vec();
    for key in keys.iter().map(String::as_bytes).filter(|key| !key.is_empty()) {
        if known.contains(key) {
            continue;
        }
        known.extend(accepted_forms(key));
        if !contents.is_empty() && !contents.ends_with(b"\n") {
            contents.push(b'\n');
        }
        contents.extend_from_slice(key);
        contents.push(b'\n');
    }
    contents
}

fn without_keys(contents: &[u8], keys: &[String]) -> Vec<u8> {
    let keys: HashSet<_> = keys.iter().map(String::as_bytes).filter(|key| !key.is_empty()).collect();
    let is_kept = |line: &&[u8]| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        !accepted_forms(line).iter().any(|form| keys.contains(form))
    };
    contents.split_inclusive(|byte| *byte == b'\n').filter(is_kept).collect::<Vec<_>>().concat()
}

/// A user's keys file.
struct Keys<'a> {
    root: &'a Root,
    account: Account,
    directory: PathBuf,
}

impl<'a> Keys<'a> {
    /// The file, for a command that goes on to use it.
    fn of(guest: &'a Guest, username: &str, command: &Use<'_>) -> Result<Self> {
        let root = &guest.root;
        let failed = |cause: String| Error::generic(format!("failed to lookup user '{username}': {cause}"));
        let account = command
            .turn_to(Resource::User(username.into()))
            .and_then(|()| Account::find(root, username))
            .map_err(|error| failed(errno::describe(error)))?
            .ok_or_else(|| failed("no such user".into()))?;
        let directory = account.home.join(".ssh");
        let keys = Self { root, account, directory };
        Lookup::new(root).follow(&keys.path(), command).map_err(|error| keys.cannot_read(error))?;
        Ok(keys)
    }

    /// Keeps other commands from changing the file.
    fn lock(&self, guest: &'a Guest, timeout: Duration) -> Result<KeyedLockGuard<'a>> {
        let file = self.file();
        let failed = || Error::generic(format!("failed to lock '{file}': an earlier command still changes it"));
        guest.file_locks.lock(file.clone(), timeout).ok_or_else(failed)
    }

    fn file(&self) -> String {
        self.path().to_string_lossy().into_owned()
    }

    fn path(&self) -> PathBuf {
        self.directory.join("authorized_keys")
    }

    /// Runs an action with the user's rights.
    fn act<T: Send>(&self, action: impl FnOnce(&Self) -> Result<T> + Send) -> Result<T> {
        self.account.with_rights(|| action(self)).unwrap_or_else(|error| {
            let (name, cause) = (&self.account.name, errno::describe(error));
            Err(Error::generic(format!("failed to act with the rights of user '{name}': {cause}")))
        })
    }

    /// The file's contents, if the file exists.
    fn read(&self) -> Result<Option<Vec<u8>>> {
        match read_regular(self.root, &self.path()) {
            Ok(contents) => Ok(Some(contents)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.cannot_read(error)),
        }
    }

    fn write(&self, contents: &[u8]) -> Result<()> {
        if contents.len() > MAX_KEYS_BYTES {
            let file = self.file();
            return Err(Error::generic(format!("failed to write to '{file}': more than {MAX_KEYS_BYTES} bytes")));
        }
        match self.root.make_directory(&self.directory, DIRECTORY_MODE) {
            Ok(()) => log::info!("created {}", self.directory.display()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                let (directory, cause) = (self.directory.display(), errno::describe(error));
                return Err(Error::generic(format!("failed to create directory '{directory}': {cause}")));
            }
        }
        let prepare = |file: &File| Ok(fchmod(file, FILE_MODE)?);
        self.root.replace(self.path(), contents, prepare).map_err(|error| {
            Error::generic(format!("failed to write to '{}': {}", self.file(), errno::describe(error)))
        })
    }

    fn cannot_read(&self, error: io::Error) -> Error {
        let (file, cause) = (self.file(), words_for(error));
        Error::generic(format!("failed to read '{file}': Failed to open file \u{201C}{file}\u{201D}: {cause}"))
    }
}

/// Reads a regular file. Reading anything else that a user may have put there could block or never end.
fn read_regular(root: &Root, path: &Path) -> io::Result<Vec<u8>> {
    let file = File::from(root.open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("Not a regular file"));
    }
    let mut contents = Vec::new();
    file.take(MAX_KEYS_BYTES as u64 + 1).read_to_end(&mut contents)?;
    if contents.len() > MAX_KEYS_BYTES {
        return Err(nix::errno::Errno::EFBIG.into());
    }
    Ok(contents)
}

/// As [`errno::describe`], also for errors without an error number.
fn words_for(error: io::Error) -> String {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, None) => errno::describe(nix::errno::Errno::ENOENT),
        _ => errno::describe(error),
    }
}

#[cfg(test)]
mod tests;
