//! Hooks: programs of the administrator that prepare for a freeze, and resume after the thaw.
//!
//! Each runs with one argument, `freeze` or `thaw`, and with a timeout. Its output goes into the error and the log. The
//! setting names a program. If that is a directory, or is absent while `<program>.d` exists, the programs in the
//! directory run, as with the dispatcher script that distributions ship: in the order of their names, without files
//! that packages and editors leave behind. Their thaw runs in the reverse order. The first one that fails to freeze
//! ends the attempt. Each one that was started gets its thaw, also the one that failed: it may have done half of its
//! work. All thaws run, even if one fails. An agent that does not know which ones ran before it was started runs the
//! thaw of all. Nothing is written to any disk. A program runs only if no user but root, or the user that the agent
//! runs as, can change or replace it.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::unistd::geteuid;
use qga::wire::message::Error;

use crate::{
    environment::Environment,
    process::{helper::Helper, spawn::Program},
    util::errno,
};

/// What errors say that a program was run for.
const ACTION: &str = "execute fsfreeze hook";
/// Ends of names that packages and editors leave behind.
const LEFT_BEHIND: [&[u8]; 7] = [b"~", b".bak", b".orig", b".rpmnew", b".rpmorig", b".rpmsave", b".sample"];
/// In the middle of such names.
const LEFT_BY_DPKG: &[u8] = b".dpkg-";

/// The programs, and which of them were run.
#[derive(Debug)]
pub(crate) struct Hooks {
    path: Option<PathBuf>,
    timeout: Duration,
    /// The programs that were started since the last thaw, in their order. `None` if that is not known.
    started: Mutex<Option<Vec<PathBuf>>>,
}

/// What programs are to do, by the argument they get.
#[derive(Clone, Copy, Debug)]
enum Verb {
    Freeze,
    Thaw,
}

impl Hooks {
    /// The hooks that a setting names, if it does, with a time limit for each.
    pub(crate) fn new(path: Option<PathBuf>, timeout: Duration) -> Self {
        // A daemon changes its directory.
        let path = path.map(|path| std::path::absolute(&path).unwrap_or(path));
        Self { path, timeout, started: Mutex::default() }
    }

    /// The setting, if there is one, and the time limit for each program.
    pub(crate) fn setting(&self) -> Option<(&Path, Duration)> {
        Some((self.path.as_deref()?, self.timeout))
    }

    /// Makes ready for a freeze.
    ///
    /// # Errors
    /// When a program cannot be trusted, and none was run; or when one failed, and those that were started have thawed.
    pub(crate) fn freeze(&self, environment: &Environment) -> Result<(), Error> {
        let programs = self.programs()?;
        programs.iter().try_for_each(|program| trust(program))?;
        *self.started() = Some(Vec::new());
        for program in programs {
            self.started().get_or_insert_default().push(program.clone());
            if let Err(error) = self.run(&program, Verb::Freeze, environment) {
                // What goes wrong with it is in the log; what went wrong first is the answer.
                let _ = self.thaw(environment);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Goes on after a thaw, or after a freeze that came to nothing.
    ///
    /// # Errors
    /// The first failure, after all have been run.
    pub(crate) fn thaw(&self, environment: &Environment) -> Result<(), Error> {
        let started = self.started().take();
        let programs = started.map_or_else(|| self.programs(), Ok)?;
        let run = |program: &PathBuf| trust(program).and_then(|()| self.run(program, Verb::Thaw, environment));
        // Every one is run before the first failure is looked for.
        let results: Vec<_> = programs.iter().rev().map(run).collect();
        results.into_iter().collect()
    }

    /// What is to be run, in the order of a freeze.
    fn programs(&self) -> Result<Vec<PathBuf>, Error> {
        let Some(path) = &self.path else { return Ok(Vec::new()) };
        let mut directory = path.clone().into_os_string();
        directory.push(".d");
        let directory = PathBuf::from(directory);
        let directory = match (path.is_dir(), path.exists()) {
            (true, _) => path,
            (false, false) if directory.is_dir() => &directory,
            _ => return Ok(vec![path.clone()]),
        };
        programs_in(directory).map_err(|error| {
            let (directory, words) = (directory.display(), errno::describe(error));
            Error::generic(format!("failed to list the fsfreeze hooks in '{directory}': {words}"))
        })
    }

    fn run(&self, path: &Path, verb: Verb, environment: &Environment) -> Result<(), Error> {
        let environment = environment.for_children();
        let result = Program::new(path, [verb.argument()], environment)
            .map_err(|error| Error::generic(format!("failed to {ACTION} '{}': {error}", path.display())))
            .and_then(|program| Helper { program, action: ACTION, input: b"", timeout: self.timeout }.run());
        let (path, verb) = (path.display(), verb.argument());
        match result {
            Ok(output) => {
                log::info!("fsfreeze hook '{path}' has done its {verb}");
                for line in output.lines() {
                    log::info!("fsfreeze hook '{path}': {line}");
                }
                Ok(())
            }
            Err(error) => {
                log::warn!("fsfreeze hook '{path}' has failed to {verb}: {}", error.desc.trim_end());
                Err(error)
            }
        }
    }

    fn started(&self) -> MutexGuard<'_, Option<Vec<PathBuf>>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Verb {
    fn argument(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
        }
    }
}

/// The programs in a directory, in the order of their names.
fn programs_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let is_program = fs::metadata(entry.path()).is_ok_and(|status| status.is_file() && is_executable(&status));
        if is_program && !is_left_behind(&entry.file_name()) {
            names.push(entry.file_name());
        }
    }
    names.sort();
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}

fn is_left_behind(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b".")
        || LEFT_BEHIND.iter().any(|end| name.ends_with(end))
        || name.windows(LEFT_BY_DPKG.len()).any(|part| part == LEFT_BY_DPKG)
}

fn is_executable(status: &fs::Metadata) -> bool {
    status.permissions().mode() & 0o111 != 0
}

/// Refuses a program that somebody else could have written, or that is none.
fn trust(path: &Path) -> Result<(), Error> {
    let refuse = |reason: &str| Err(Error::generic(format!("failed to {ACTION} '{}': {reason}", path.display())));
    // The text that running it would give.
    let absent = |error| {
        let (path, words) = (path.display(), errno::describe(error));
        Error::generic(format!("child process has failed to {ACTION}: failed to exec '{path}': {words}\n"))
    };
    let program = fs::canonicalize(path).map_err(absent)?;
    let status = fs::metadata(&program).map_err(absent)?;
    if !status.is_file() {
        return refuse("it is not a regular file");
    }
    if !is_executable(&status) {
        return refuse("it is not executable");
    }
    if let Some(reason) = distrust(status.uid(), status.mode()) {
        return refuse(&format!("it {reason}"));
    }
    // Where it is, and where a link to it is.
    for place in [program.as_path(), path] {
        for directory in place.ancestors().skip(1) {
            let status = fs::metadata(directory).map_err(absent)?;
            // In a sticky directory nobody can replace what is another's, but everybody can add something.
            let is_sticky = status.mode() & 0o1000 != 0 && Some(directory) != place.parent();
            let mode = if is_sticky { 0 } else { status.mode() };
            if let Some(reason) = distrust(status.uid(), mode) {
                return refuse(&format!("its directory '{}' {reason}", directory.display()));
            }
        }
    }
    Ok(())
}

/// Why what has this owner and mode is not to be trusted.
fn distrust(owner: u32, mode: u32) -> Option<&'static str> {
    match (owner == 0 || owner == geteuid().as_raw(), mode & 0o022) {
        (false, _) => Some("is not owned by root"),
        (true, 0) => None,
        (true, _) => Some("can be written by others than its owner"),
    }
}

#[cfg(test)]
mod tests;
