//! The keys that let somebody in as a user, over SSH.
//!
//! They are in `.ssh/authorized_keys` below the user's home. Everything there is done with the user's rights, so that a
//! link that the user has planted leads nowhere the user cannot go. A file is replaced as a whole, belongs to the user
//! and has mode 0600; lines that are not concerned stay byte for byte, and a file that changes nothing is not written.
//! A file that is there and cannot be read is an error: replacing it would lose the keys in it. So is one that is larger
//! than [`MAX_KEYS_BYTES`], or would become so.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::OFlag,
    sys::stat::{Mode, fchmod},
};
use qga::{
    commands::{
        session::Nothing,
        ssh::{AddAuthorizedKeys, AuthorizedKeys, GetAuthorizedKeys, RemoveAuthorizedKeys},
    },
    wire::message::Error,
};

use super::{Result, Run};
use crate::{accounts::Account, guest::Guest, root::Root, util::errno};

/// Largest file of keys: some thousand keys. What a user has put there may not cost the agent more.
const MAX_KEYS_BYTES: usize = 1024 * 1024;

/// Nobody but the user looks into the directory.
const DIRECTORY_MODE: Mode = Mode::S_IRWXU;
/// Nobody but the user reads or writes the file.
const FILE_MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

impl Run for GetAuthorizedKeys {
    fn run(self, guest: &Guest) -> Result<AuthorizedKeys> {
        let keys = Keys::of(&guest.root, &self.username)?;
        let contents = keys.act(Keys::read)?.ok_or_else(|| keys.cannot_read(io::ErrorKind::NotFound.into()))?;
        let keys = lines(&contents).map(<[u8]>::trim_ascii).filter(|line| !line.is_empty() && line[0] != b'#');
        Ok(AuthorizedKeys { keys: keys.map(|key| String::from_utf8_lossy(key).into_owned()).rev().collect() })
    }
}

impl Run for AddAuthorizedKeys {
    fn run(self, guest: &Guest) -> Result<Nothing> {
        check_keys(&self.keys)?;
        let keys = Keys::of(&guest.root, &self.username)?;
        let _lock = guest.file_locks.lock(keys.file());
        keys.act(|keys| {
            let existing = if self.reset == Some(true) { None } else { keys.read()? };
            let contents = with(existing.as_deref().unwrap_or_default(), &self.keys);
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
        let keys = Keys::of(&guest.root, &self.username)?;
        let _lock = guest.file_locks.lock(keys.file());
        keys.act(|keys| {
            let Some(existing) = keys.read()? else { return Ok(()) };
            let contents = without(&existing, &self.keys);
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

/// The lines of a file, without their ends.
fn lines(contents: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    contents.split_inclusive(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\n").unwrap_or(line))
}

/// What a host may call the key of a line: the line, and what it is told, which has no blanks around it.
fn spellings(line: &[u8]) -> [&[u8]; 2] {
    [line, line.trim_ascii()]
}

/// The contents with these keys at the end, each on a line of its own, and none of them twice.
fn with(contents: &[u8], keys: &[String]) -> Vec<u8> {
    let mut known: HashSet<_> = lines(contents).flat_map(spellings).collect();
    let mut contents = contents.to_vec();
    for key in keys.iter().map(String::as_bytes).filter(|key| !key.is_empty()) {
        if known.contains(key) {
            continue;
        }
        known.extend(spellings(key));
        if !contents.is_empty() && !contents.ends_with(b"\n") {
            contents.push(b'\n');
        }
        contents.extend_from_slice(key);
        contents.push(b'\n');
    }
    contents
}

fn without(contents: &[u8], keys: &[String]) -> Vec<u8> {
    let keys: HashSet<_> = keys.iter().map(String::as_bytes).filter(|key| !key.is_empty()).collect();
    let is_kept = |line: &&[u8]| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        !spellings(line).iter().any(|spelling| keys.contains(spelling))
    };
    contents.split_inclusive(|byte| *byte == b'\n').filter(is_kept).collect::<Vec<_>>().concat()
}

/// A user's keys, where they are.
struct Keys<'a> {
    root: &'a Root,
    account: Account,
    directory: PathBuf,
}

impl<'a> Keys<'a> {
    fn of(root: &'a Root, username: &str) -> Result<Self> {
        let failed = |cause: String| Error::generic(format!("failed to lookup user '{username}': {cause}"));
        let account = Account::find(root, username)
            .map_err(|error| failed(errno::describe(error)))?
            .ok_or_else(|| failed("no such user".into()))?;
        let directory = account.home.join(".ssh");
        Ok(Self { root, account, directory })
    }

    fn file(&self) -> String {
        self.path().to_string_lossy().into_owned()
    }

    fn path(&self) -> PathBuf {
        self.directory.join("authorized_keys")
    }

    /// Does something with the user's rights.
    fn act<T: Send>(&self, action: impl FnOnce(&Self) -> Result<T> + Send) -> Result<T> {
        self.account.with_rights(|| action(self)).unwrap_or_else(|error| {
            let (name, cause) = (&self.account.name, errno::describe(error));
            Err(Error::generic(format!("failed to act with the rights of user '{name}': {cause}")))
        })
    }

    /// The file's contents, if there is a file.
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

/// Reads what is a file: anything else that a user may have put there could be waited for in vain, or never end.
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

/// As [`errno::describe`], of an error that may have been made here.
fn words_for(error: io::Error) -> String {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, None) => errno::describe(nix::errno::Errno::ENOENT),
        _ => errno::describe(error),
    }
}

#[cfg(test)]
mod tests;
