//! The file with the keys of a user: `.ssh/authorized_keys` below the home directory.
//!
//! It is read and replaced with the user's rights, so that a link made by the user leads nowhere that the user has no
//! access to. Only if the user is denied access, root's rights may take their place (see [`super::root_kept`]). A new
//! file belongs to the user and has mode 0600, and a new directory has mode 0700.
//! A file that exists and cannot be read is an error: replacing it would lose its keys. A file that is larger than
//! [`MAX_KEYS_BYTES`], or would be, is an error, too.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::stat::{Mode, fchmod},
    unistd::geteuid,
};
use qga::wire::message::Error;

use super::{Change, root_kept::RootKept};
use crate::{accounts::Account, commands::Result, root::Root, util::errno};

/// Largest file of keys, in bytes: some thousand keys. A user controls the file, and must not exhaust the agent's
/// memory.
pub(super) const MAX_KEYS_BYTES: usize = 1024 * 1024;

/// Only the user may list the directory.
pub(super) const DIRECTORY_MODE: Mode = Mode::S_IRWXU;
/// Only the user may read or write the file.
pub(super) const FILE_MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);
/// Opening a file that a user has chosen does not block, and gives the agent no terminal.
pub(super) const READ_FLAGS: OFlag = OFlag::O_RDONLY.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY);

const DIRECTORY: &str = ".ssh";
const FILE: &str = "authorized_keys";

/// A user's keys file.
pub(super) struct KeysFile<'a> {
    pub(super) root: &'a Root,
    pub(super) account: Account,
}

/// What could not be done, and why.
pub(super) enum Failure {
    Read(io::Error),
    MakeDirectory(io::Error),
    Write(io::Error),
}

impl Failure {
    /// Whether the user lacks the rights for it.
    fn is_denied(&self) -> bool {
        let (Self::Read(cause) | Self::MakeDirectory(cause) | Self::Write(cause)) = self;
        cause.kind() == io::ErrorKind::PermissionDenied
    }
}

impl<'a> KeysFile<'a> {
    /// The file of the user with this name.
    pub(super) fn of(root: &'a Root, username: &str) -> Result<Self> {
        let failed = |cause: String| Error::generic(format!("failed to lookup user '{username}': {cause}"));
        let account = Account::find(root, username)
            .map_err(|error| failed(errno::describe(error)))?
            .ok_or_else(|| failed("no such user".into()))?;
        Ok(Self { root, account })
    }

    /// The contents.
    pub(super) fn read(&self) -> Result<Vec<u8>> {
        let contents = self.with_roots_help(|| self.read_as_user(), |kept| kept.read().map_err(Failure::Read))?;
        contents.ok_or_else(|| self.error(Failure::Read(Errno::ENOENT.into())))
    }

    /// Makes a change. If nothing is changed, the file is not written.
    pub(super) fn change(&self, change: &Change<'_>) -> Result<()> {
        self.with_roots_help(|| self.change_as_user(change), |kept| kept.change(change))
    }

    /// The path, for messages and as the key of a lock.
    pub(super) fn name(&self) -> String {
        self.path().to_string_lossy().into_owned()
    }

    /// The directory's path.
    pub(super) fn directory(&self) -> PathBuf {
        self.account.home.join(DIRECTORY)
    }

    /// The name of the directory in the home.
    pub(super) fn directory_name() -> &'static OsStr {
        OsStr::new(DIRECTORY)
    }

    /// The name of the file in the directory.
    pub(super) fn file_name() -> &'static OsStr {
        OsStr::new(FILE)
    }

    fn path(&self) -> PathBuf {
        self.directory().join(FILE)
    }

    /// Does something as the user or, if that is denied to the user, in what root keeps for the user.
    fn with_roots_help<T: Send>(
        &self,
        as_user: impl FnOnce() -> std::result::Result<T, Failure> + Send,
        kept_by_root: impl FnOnce(RootKept<'_>) -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        let denied = match self.with_rights(as_user)? {
            Err(failure) if failure.is_denied() && self.account.uid != geteuid() => failure,
            result => return result.map_err(|failure| self.error(failure)),
        };
        let Ok(kept) = RootKept::open(self) else { return Err(self.error(denied)) };
        match kept_by_root(kept) {
            // Neither root's nor the user's rights may be used: the reason is that of the user.
            Err(failure) if failure.is_denied() => Err(self.error(denied)),
            result => result.map_err(|failure| self.error(failure)),
        }
    }

    /// Runs an action with the user's rights.
    pub(super) fn with_rights<T: Send>(&self, action: impl FnOnce() -> T + Send) -> Result<T> {
        self.account.with_rights(action).map_err(|error| {
            let (name, cause) = (&self.account.name, errno::describe(error));
            Error::generic(format!("failed to act with the rights of user '{name}': {cause}"))
        })
    }

    fn read_as_user(&self) -> std::result::Result<Option<Vec<u8>>, Failure> {
        let opened = self.root.open(self.path(), READ_FLAGS);
        if_exists(opened.and_then(|file| read_regular(&file.into()))).map_err(Failure::Read)
    }

    fn change_as_user(&self, change: &Change<'_>) -> std::result::Result<(), Failure> {
        let existing = if change.keeps_existing() { self.read_as_user()? } else { None };
        match change.applied_to(existing.as_deref()) {
            Some(contents) if existing.as_ref() != Some(&contents) => self.write_as_user(&contents),
            _ => Ok(()),
        }
    }

    fn write_as_user(&self, contents: &[u8]) -> std::result::Result<(), Failure> {
        check_size(contents)?;
        match self.root.make_directory(self.directory(), DIRECTORY_MODE) {
            Ok(()) => log::info!("created {}", self.directory().display()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Failure::MakeDirectory(error)),
        }
        self.root.replace(self.path(), contents, |file| Ok(fchmod(file, FILE_MODE)?)).map_err(Failure::Write)
    }

    fn error(&self, failure: Failure) -> Error {
        let file = self.name();
        Error::generic(match failure {
            Failure::Read(cause) => {
                let cause = errno::describe(cause);
                format!("failed to read '{file}': Failed to open file \u{201C}{file}\u{201D}: {cause}")
            }
            Failure::MakeDirectory(cause) => {
                format!("failed to create directory '{}': {}", self.directory().display(), errno::describe(cause))
            }
            Failure::Write(cause) => format!("failed to write to '{file}': {}", errno::describe(cause)),
        })
    }
}

/// Refuses contents that are too large to be read again.
pub(super) fn check_size(contents: &[u8]) -> std::result::Result<(), Failure> {
    match contents.len() > MAX_KEYS_BYTES {
        true => Err(Failure::Write(io::Error::other(format!("more than {MAX_KEYS_BYTES} bytes")))),
        false => Ok(()),
    }
}

/// Reads a regular file. Reading anything else that a user may have put there could block or never end.
pub(super) fn read_regular(file: &File) -> io::Result<Vec<u8>> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("Not a regular file"));
    }
    let mut contents = Vec::new();
    file.take(MAX_KEYS_BYTES as u64 + 1).read_to_end(&mut contents)?;
    if contents.len() > MAX_KEYS_BYTES {
        return Err(Errno::EFBIG.into());
    }
    Ok(contents)
}

/// The result, or none if what was looked for does not exist.
pub(super) fn if_exists<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}
