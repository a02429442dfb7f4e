//! The configuration file.
//!
//! A key file whose group `general` holds the settings; other groups and unknown keys are passed over, with a warning. The
//! usual file may be missing, as may the one named by `QGA_CONF`; one named on the command line may not. The first mistake
//! ends the agent's start; [`Source::check`] tells all of them.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    io::{self, Read},
    path::{Path, PathBuf},
};

use qga::commands::SPECS;

use crate::{
    config::settings::{KEYS, Key, Origin, Settings, Takes, split_names},
    util::{
        errno,
        key_file::{KeyFile, Mistake},
    },
};

/// The file that is read where nothing else is said.
pub(crate) const DEFAULT_FILE: &str = "/etc/qemu/qemu-ga.conf";
/// The group that holds the settings.
const GROUP: &str = "general";
/// The key whose emptiness restricts nothing, as it does not in qemu-ga.
const ALLOW_LIST: &str = "allow-rpcs";
/// Largest file that is read; a configuration with every command in both lists is a few kibibytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Which file to read, and whether it must be there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Source {
    path: PathBuf,
    is_required: bool,
}

impl Source {
    /// The file of the command line, else that of `QGA_CONF`, else the usual one.
    pub(crate) fn choose(option: Option<OsString>, variable: Option<&OsStr>) -> Self {
        let is_required = option.is_some();
        let path = option.or_else(|| variable.map(Into::into)).unwrap_or_else(|| DEFAULT_FILE.into());
        Self { path: path.into(), is_required }
    }

    /// Takes over what the file says.
    pub(crate) fn load(&self, settings: &mut Settings) -> Result<(), String> {
        let Some(contents) = self.contents()? else { return Ok(()) };
        let file = KeyFile::parse(&contents).map_err(|reason| self.failed(&reason))?;
        passed_over(&file).iter().for_each(|mistake| log::warn!("{}", self.spell(mistake)));
        let mistake = apply(&file, settings, &self.origin()).into_iter().next();
        mistake.map_or(Ok(()), |(_, reason)| Err(self.failed(&reason)))
    }

    /// Takes over what the file says, and tells all that is wrong with it, `file:line: reason`, also what a start only
    /// warns of.
    pub(crate) fn check(&self, settings: &mut Settings) -> Result<Vec<String>, String> {
        let Some(contents) = self.contents()? else { return Ok(Vec::new()) };
        let (file, mut mistakes) = KeyFile::parse_all(&contents);
        let lines: HashMap<_, _> = file.keys(GROUP).collect();
        let mut add = |key: &str, reason| mistakes.push(Mistake { line: lines.get(key).copied().unwrap_or(0), reason });
        for (key, reason) in apply(&file, settings, &self.origin()) {
            add(key, reason);
        }
        for (name, _) in file.keys(GROUP) {
            if key_named(name).is_some_and(|key| key.takes == Takes::Commands) {
                let list = file.text(GROUP, name).ok().flatten().unwrap_or_default();
                let unknown = split_names(list.as_bytes()).filter(|name| !is_command(name));
                unknown.for_each(|command| add(name, no_command(&command)));
            }
        }
        mistakes.extend(passed_over(&file));
        mistakes.sort_by_key(|mistake| mistake.line);
        Ok(mistakes.iter().map(|mistake| self.spell(mistake)).collect())
    }

    fn spell(&self, Mistake { line, reason }: &Mistake) -> String {
        format!("{}:{line}: {reason}", self.path.display())
    }

    fn contents(&self) -> Result<Option<Vec<u8>>, String> {
        match read(&self.path) {
            Ok(contents) => Ok(Some(contents)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.is_required => Ok(None),
            Err(error) => Err(self.failed(&errno::describe(error))),
        }
    }

    fn failed(&self, reason: &str) -> String {
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

/// What is said of a list that names one that there is not.
pub(crate) fn no_command(name: &str) -> String {
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

/// What is read and has no effect, which whoever wrote it may not have meant.
fn passed_over(file: &KeyFile) -> Vec<Mistake> {
    let groups = file.groups().filter(|(name, _)| *name != GROUP);
    let groups = groups.map(|(name, line)| (line, format!("nothing in the group [{name}] is read, only in [{GROUP}]")));
    let keys = file.keys(GROUP).filter(|(name, _)| key_named(name).is_none());
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

fn key_named(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.names.contains(&name))
}

/// Takes over what makes sense, and returns what does not, by key.
fn apply(file: &KeyFile, settings: &mut Settings, origin: &Origin) -> Vec<(&'static str, String)> {
    let mut mistakes = Vec::new();
    for key in KEYS {
        for name in key.names {
            let taken = file.text(GROUP, name).and_then(|value| match value {
                Some(value) => settings.set(key, value.as_ref(), origin),
                None => Ok(()),
            });
            mistakes.extend(taken.err().map(|reason| (*name, reason)));
        }
    }
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_the_file_before_the_environment_does() {
        let source = |option: Option<&str>, variable: Option<&str>| {
            let Source { path, is_required } = Source::choose(option.map(Into::into), variable.map(OsStr::new));
            (path.to_str().unwrap().to_owned(), is_required)
        };
        assert_eq!(source(Some("/a"), Some("/b")), ("/a".into(), true));
        assert_eq!(source(None, Some("/b")), ("/b".into(), false));
        assert_eq!(source(None, None), (DEFAULT_FILE.into(), false));
    }

    #[test]
    fn only_a_file_of_the_command_line_must_be_there() {
        let load = |is_required| Source { path: "/nonexistent".into(), is_required }.load(&mut Settings::default());
        assert_eq!(load(false), Ok(()));
        assert_eq!(
            load(true),
            Err("error loading configuration from path: /nonexistent, No such file or directory".into())
        );
    }

    #[test]
    fn a_directory_is_refused() {
        let source = Source { path: "/".into(), is_required: false };
        let refusal = "error loading configuration from path: /, Not a regular file";
        assert_eq!(source.load(&mut Settings::default()), Err(refusal.into()));
    }

    #[test]
    fn keys_of_the_general_group_are_taken_and_others_passed_over() {
        let mut settings = Settings::default();
        let contents =
            b"[general]\ndaemon=true\nmethod=unix-listen\nfoo=bar\n[other]\nverbose=true\nretry-path=maybe\n";
        let file = KeyFile::parse(contents).unwrap();
        assert_eq!(apply(&file, &mut settings, &Origin::Default), []);
        let expected = Settings { daemon: true, method: "unix-listen".into(), ..Settings::default() };
        assert_eq!(settings, expected);
    }
}
