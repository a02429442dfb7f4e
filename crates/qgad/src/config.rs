//! The configuration file.
//!
//! A key file whose group `general` holds the settings; other groups and unknown keys are passed over. The usual file
//! may be missing, as may the one named by `QGA_CONF`; one named on the command line may not.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{
    errno,
    keyfile::KeyFile,
    settings::{KEYS, Settings},
};

/// The file that is read where nothing else is said.
pub(crate) const DEFAULT_FILE: &str = "/etc/qemu/qemu-ga.conf";
/// The group that holds the settings.
const GROUP: &str = "general";
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
        let failed = |error| format!("error loading configuration from path: {}, {error}", self.path.display());
        let contents = match read(&self.path) {
            Ok(contents) => contents,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.is_required => return Ok(()),
            Err(error) => return Err(failed(errno::words(error))),
        };
        apply(&contents, settings).map_err(failed)
    }
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

fn apply(contents: &[u8], settings: &mut Settings) -> Result<(), String> {
    let file = KeyFile::parse(contents)?;
    for key in KEYS {
        for name in key.names {
            if let Some(value) = file.text(GROUP, name)? {
                settings.set(key, value.as_ref())?;
            }
        }
    }
    Ok(())
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
        apply(contents, &mut settings).unwrap();
        let expected = Settings { daemon: true, method: "unix-listen".into(), ..Settings::default() };
        assert_eq!(settings, expected);
    }
}
