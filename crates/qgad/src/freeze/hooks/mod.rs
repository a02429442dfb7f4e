//! Hooks: programs of the administrator that prepare for a freeze, and resume after the thaw.
//!
//! Each runs with one argument, `freeze` or `thaw`, and with a timeout. Its output goes into the error and the log. The
//! setting names a program. If that is a directory, or is absent while `<program>.d` exists, the programs in the
//! directory run, as with the dispatcher script that distributions ship: in the order of their names, without backup
//! files of packages and editors. Their thaw runs in the reverse order.
//!
//! The first one that fails to freeze ends the attempt. Each one that was started gets its thaw, also the one that
//! failed: it may have done half of its work. All thaws run, even if one fails. An agent that does not know which ones
//! were started runs the thaw of all.
//!
//! Nothing is written to any disk. A program runs only if no user but root, or the user that the agent runs as, can
//! change or replace it (`trust`). A process that it leaves behind delays nothing.

mod trust;

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use qga::wire::message::Error;

use self::trust::Distrust;
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

/// The argument of a program.
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

    /// Why a freeze would fail before it runs any program.
    ///
    /// # Errors
    /// With the first program that is absent or cannot be trusted, and the command that corrects it.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.programs()?.iter().try_for_each(|program| self.trust(program))
    }

    /// Runs the freeze hooks.
    ///
    /// # Errors
    /// When a program cannot be trusted, and none was run; or when one failed, and those that were started have thawed.
    pub(crate) fn freeze(&self, environment: &Environment) -> Result<(), Error> {
        let programs = self.programs()?;
        programs.iter().try_for_each(|program| self.trust(program))?;
        *self.started() = Some(Vec::new());
        for program in programs {
            self.started().get_or_insert_default().push(program.clone());
            if let Err(error) = self.run(&program, Verb::Freeze, environment) {
                // The answer is the first failure; the log has those of the thaw.
                let _ = self.thaw(environment);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Runs the thaw hooks, after a thaw or a freeze that failed.
    ///
    /// # Errors
    /// The first failure, after all have been run.
    pub(crate) fn thaw(&self, environment: &Environment) -> Result<(), Error> {
        let started = self.started().take();
        let programs = started.map_or_else(|| self.programs(), Ok)?;
        let run = |program: &PathBuf| self.run(program, Verb::Thaw, environment);
        // All run, then the first failure is returned.
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
        let program = || {
            Program::new(path, [verb.argument()], environment)
                .map_err(|error| Error::generic(format!("failed to {ACTION} '{}': {error}", path.display())))
        };
        // Checked again: the programs before it may have taken long.
        let result = self
            .trust(path)
            .and_then(|()| program())
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

    /// Refuses a program that another user could have written, or a file that is no program.
    fn trust(&self, program: &Path) -> Result<(), Error> {
        let is_listed = self.path.as_deref() != Some(program);
        let directory = program.parent().filter(|_| is_listed);
        let trusted = directory.map_or(Ok(()), trust::check_directory).and_then(|()| trust::check(program));
        trusted.map_err(|distrust| {
            let program = program.display();
            Error::generic(match distrust {
                // The text that running it would give.
                Distrust::Absent(error) => {
                    let words = errno::describe(error);
                    format!("child process has failed to {ACTION}: failed to exec '{program}': {words}\n")
                }
                reason @ Distrust::Because(..) => format!("failed to {ACTION} '{program}': {reason}"),
            })
        })
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

#[cfg(test)]
mod tests;
