//! The authorized SSH keys of users.
//!
//! A file of keys is replaced as a whole. Other lines stay byte for byte, and an unchanged file is not written.
//! [`keys_file`] says where the keys are, and whose rights are used there.

mod keys_file;
mod root_kept;

use std::collections::HashSet;

use qga::{
    commands::{
        session::Nothing,
        ssh::{AddAuthorizedKeys, AuthorizedKeys, GetAuthorizedKeys, RemoveAuthorizedKeys},
    },
    wire::message::Error,
};

use self::keys_file::KeysFile;
use super::{Result, Run};
use crate::guest::Guest;

impl Run for GetAuthorizedKeys {
    fn run(self, guest: &Guest) -> Result<AuthorizedKeys> {
        let contents = KeysFile::of(&guest.root, &self.username)?.read()?;
        let keys = lines(&contents).map(<[u8]>::trim_ascii).filter(|line| !line.is_empty() && line[0] != b'#');
        Ok(AuthorizedKeys { keys: keys.map(|key| String::from_utf8_lossy(key).into_owned()).rev().collect() })
    }
}

impl Run for AddAuthorizedKeys {
    fn run(self, guest: &Guest) -> Result<Nothing> {
        check_keys(&self.keys)?;
        let change = if self.reset == Some(true) { Change::Replace(&self.keys) } else { Change::Add(&self.keys) };
        change_keys(guest, &self.username, &change)
    }

    fn audit_subject(&self) -> Option<String> {
        Some(self.username.clone())
    }
}

impl Run for RemoveAuthorizedKeys {
    fn run(self, guest: &Guest) -> Result<Nothing> {
        check_keys(&self.keys)?;
        change_keys(guest, &self.username, &Change::Remove(&self.keys))
    }

    fn audit_subject(&self) -> Option<String> {
        Some(self.username.clone())
    }
}

/// A change of the keys of a user.
enum Change<'a> {
    Add(&'a [String]),
    Replace(&'a [String]),
    Remove(&'a [String]),
}

impl Change<'_> {
    /// Whether the existing contents matter.
    fn keeps_existing(&self) -> bool {
        !matches!(self, Self::Replace(_))
    }

    /// Whether the user can log in with these keys afterwards.
    fn adds(&self) -> bool {
        !matches!(self, Self::Remove(_))
    }

    /// The contents after the change, or none if there is no file afterwards, either.
    fn applied_to(&self, existing: Option<&[u8]>) -> Option<Vec<u8>> {
        match self {
            Self::Add(keys) => Some(with_keys(existing.unwrap_or_default(), keys)),
            Self::Replace(keys) => Some(with_keys(&[], keys)),
            Self::Remove(keys) => existing.map(|existing| without_keys(existing, keys)),
        }
    }
}

fn change_keys(guest: &Guest, username: &str, change: &Change<'_>) -> Result<Nothing> {
    let file = KeysFile::of(&guest.root, username)?;
    let _lock = guest.file_locks.lock(file.name());
    file.change(change)?;
    Ok(Nothing {})
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

#[cfg(test)]
mod tests;
