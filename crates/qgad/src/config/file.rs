//! The configuration file.
//!
//! It is a key file whose group `general` holds the settings. Other groups and unknown keys are ignored, with a
//! warning. The default file may be missing, as may the one named by `QGA_CONF`; one named on the command line must
//! exist. The first mistake ends the agent's start; [`ConfigFile::check`] reports all of them.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    io::{self, Read},
    path::{Path, PathBuf},
};

use qga::commands::SPECS;

use super::{
    settings::{KEYS, Key, Settings},
    values::{Origin, ValueKind, split_names},
};
use crate::util::{
    errno,
    key_file::{KeyFile, Mistake},
};

/// The file that is read if no other is named.
const DEFAULT_FILE: &str = "/etc/qemu/qemu-ga.conf";
/// The group that holds the settings.
const GROUP: &str = "general";
/// The key that restricts nothing when it is empty, as in qemu-ga.
const ALLOW_LIST: &str = "allow-rpcs";
/// Largest file that is read, in bytes. A configuration with every command in both lists has a few kibibytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Which file to read, and whether it must exist.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    is_required: bool,
}

impl ConfigFile {
    /// The file that the command line names, else the one of `QGA_CONF`, else the default.
    pub(crate) fn select(option: Option<OsString>, variable: Option<&OsStr>) -> Self {
        let is_required = option.is_some();
        let path = option.or_else(|| variable.map(Into::into)).unwrap_or_else(|| DEFAULT_FILE.into());
        Self { path: path.into(), is_required }
    }

    /// Applies the file to the settings.
    pub(crate) fn load(&self, settings: &mut Settings) -> Result<(), String> {
        let Some(contents) = self.contents()? else { return Ok(()) };
        let file = KeyFile::parse(&contents).map_err(|reason| self.load_error(&reason))?;
        without_effect(&file).iter().for_each(|mistake| log::warn!("{}", self.format(mistake)));
        let mistake = apply(&file, settings, &self.origin()).into_iter().next();
        mistake.map_or(Ok(()), |(_, reason)| Err(self.load_error(&reason)))
    }

    /// Applies the file to the settings and returns every mistake in it, as `file:line: reason`. Includes what the
    /// agent's start only warns of.
    pub(crate) fn check(&self, settings: &mut Settings) -> Result<Vec<String>, String> {
        let Some(contents) = self.contents()? else { return Ok(Vec::new()) };
        let (file, mut mistakes) = KeyFile::parse_all(&contents);
        let lines: HashMap<_, _> = file.keys(GROUP).collect();
        let mut add = |key: &str, reason| mistakes.push(Mistake { line: lines.get(key).copied().unwrap_or(0), reason });
        for (key, reason) in apply(&file, settings, &self.origin()) {
            add(key, reason);
        }
        for (name, _) in file.keys(GROUP) {
            if find_key(name).is_some_and(|key| key.kind == ValueKind::Commands) {
                let list = file.text(GROUP, name).ok().flatten().unwrap_or_default();
                let unknown = split_names(list.as_bytes()).filter(|name| !is_command(name));
                unknown.for_each(|command| add(name, unknown_command(&command)));
            }
        }
        mistakes.extend(without_effect(&file));
        mistakes.sort_by_key(|mistake| mistake.line);
        Ok(mistakes.iter().map(|mistake| self.format(mistake)).collect())
    }

    fn format(&self, Mistake { line, reason }: &Mistake) -> String {
        format!("{}:{line}: {reason}", self.path.display())
    }

    fn contents(&self) -> Result<Option<Vec<u8>>, String> {
        match read(&self.path) {
            Ok(contents) => Ok(Some(contents)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.is_required => Ok(None),
            Err(error) => Err(self.load_error(&errno::describe(error))),
        }
    }

    fn load_error(&self, reason: &str) -> String {
        format!("error loading configuration from path: {}, {reason}", self.path.display())
    }

    fn origin(&self) -> Origin {
        Origin::File(self.path.clone())
    }
}

/// Whether there is a command of this name.
pub(crate) fn is_command(name: &str) -> bool {
    SPECS.iter().any(|spec| spec.name == name)
}

/// The warning about a list that names an unknown command.
pub(crate) fn unknown_command(name: &str) -> String {
    format!("the block and allow lists name a command that does not exist: '{name}'")
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("Not a regular file"));
    }
    let mut contents = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut contents)?;
    if contents.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("the file is larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(contents)
}

/// The lines that are valid and have no effect, which may not be what their author meant.
fn without_effect(file: &KeyFile) -> Vec<Mistake> {
    let groups = file.groups().filter(|(name, _)| *name != GROUP);
    let groups = groups.map(|(name, line)| (line, format!("nothing in the group [{name}] is read, only in [{GROUP}]")));
    let keys = file.keys(GROUP).filter(|(name, _)| find_key(name).is_none());
    let keys = keys.map(|(name, line)| (line, format!("there is no key '{name}'")));
    let repeated = file.repeated(GROUP);
    let repeated =
        repeated.map(|(name, line)| (line, format!("the key '{name}' is there already, and loses its value")));
    let empty = file.keys(GROUP).filter(|(name, _)| {
        let list = file.text(GROUP, name).ok().flatten().unwrap_or_default();
        *name == ALLOW_LIST && split_names(list.as_bytes()).next().is_none()
    });
    let empty = empty.map(|(name, line)| (line, format!("the key '{name}' names no command, and so allows all")));
    let all = groups.chain(keys).chain(repeated).chain(empty);
    all.map(|(line, reason)| Mistake { line, reason }).collect()
}

fn find_key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.names.contains(&name))
}

/// Applies the valid values, and returns an error for each key that has an invalid one.
fn apply(file: &KeyFile, settings: &mut Settings, origin: &Origin) -> Vec<(&'static str, String)> {
    let mut mistakes = Vec::new();
    for key in KEYS {
        for name in key.names {
            let result = file.text(GROUP, name).and_then(|value| match value {
                Some(value) => settings.set(key, value.as_ref(), origin),
                None => Ok(()),
            });
            mistakes.extend(result.err().map(|reason| (*name, reason)));
        }
    }
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_takes_precedence_over_the_environment() {
        let source = |option: Option<&str>, variable: Option<&str>| {
            let ConfigFile { path, is_required } = ConfigFile::select(option.map(Into::into), variable.map(OsStr::new));
            (path.to_str().unwrap().to_owned(), is_required)
        };
        assert_eq!(source(Some("/a"), Some("/b")), ("/a".into(), true));
        assert_eq!(source(None, Some("/b")), ("/b".into(), false));
        assert_eq!(source(None, None), (DEFAULT_FILE.into(), false));
    }

    #[test]
    fn only_a_file_named_on_the_command_line_must_exist() {
        let load = |is_required| ConfigFile { path: "/nonexistent".into(), is_required }.load(&mut Settings::default());
        assert_eq!(load(false), Ok(()));
        assert_eq!(
            load(true),
            Err("error loading configuration from path: /nonexistent, No such file or directory".into())
        );
    }

    #[test]
    fn a_directory_is_refused() {
        let source = ConfigFile { path: "/".into(), is_required: false };
        let refusal = "error loading configuration from path: /, Not a regular file";
        assert_eq!(source.load(&mut Settings::default()), Err(refusal.into()));
    }

    #[test]
    fn keys_of_the_general_group_are_applied_and_others_ignored() {
        let mut settings = Settings::default();
        let contents =
            b"[general]\ndaemon=true\nmethod=unix-listen\nfoo=bar\n[other]\nverbose=true\nretry-path=maybe\n";
        let file = KeyFile::parse(contents).unwrap();
        assert_eq!(apply(&file, &mut settings, &Origin::Default), []);
        let expected = Settings { daemon: true, method: "unix-listen".into(), ..Settings::default() };
        assert_eq!(settings, expected);
    }
}
