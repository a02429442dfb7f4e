//! The helper programs of the guest: finding them, and running one to its end.
//!
//! A fake machine may have the files of programs, but none is run: it would change the real machine.

use std::{io, time::Duration};

use nix::{fcntl::OFlag, libc, sys::stat::fstat};
use qga::wire::message::Error;

use super::{
    helper::{Helper, Outcome},
    spawn::Program,
};
use crate::{
    environment::{Environment, HELPER_PATH},
    root::Root,
    util::errno,
};

/// Any of the permissions to execute a file.
const EXECUTABLE: libc::mode_t = libc::S_IXUSR | libc::S_IXGRP | libc::S_IXOTH;

/// The helper programs of one machine, with the environment that they get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Helpers<'a> {
    root: &'a Root,
    environment: &'a Environment,
}

impl<'a> Helpers<'a> {
    /// The programs below this root.
    pub(crate) fn new(root: &'a Root, environment: &'a Environment) -> Self {
        Self { root, environment }
    }

    /// Whether there is a program at this path: a file that at least one user may execute.
    pub(crate) fn has(&self, path: &str) -> bool {
        let status = self.root.open(path, OFlag::O_PATH).and_then(|file| Ok(fstat(file)?));
        status.is_ok_and(|status| status.st_mode & libc::S_IFMT == libc::S_IFREG && status.st_mode & EXECUTABLE != 0)
    }

    /// The path of a program, by its name.
    pub(crate) fn find(&self, name: &str) -> Option<String> {
        let path = self.environment.text("PATH").unwrap_or(HELPER_PATH);
        path.split(':').map(|directory| format!("{directory}/{name}")).find(|program| self.has(program))
    }

    /// Runs a program to its end, whatever its exit status is.
    pub(crate) fn outcome(
        &self,
        path: &str,
        arguments: &[&str],
        action: &str,
        timeout: Duration,
    ) -> io::Result<Outcome> {
        Helper { program: self.program(path, arguments)?, action, input: b"", timeout }.outcome()
    }

    /// Runs a program to its end, and returns its output. `action` is what it is run for, in error texts.
    ///
    /// # Errors
    /// When its exit status is not 0, or when it takes longer than the timeout.
    pub(crate) fn run(
        &self,
        path: &str,
        arguments: &[&str],
        input: &[u8],
        action: &str,
        timeout: Duration,
    ) -> Result<String, Error> {
        if !self.root.is_machine() {
            return Err(Error::generic(format!("this machine cannot run {path}")));
        }
        let program = self
            .program(path, arguments)
            .map_err(|error| Error::generic(format!("failed to run {path}: {}", errno::describe(error))))?;
        Helper { program, action, input, timeout }.run()
    }

    fn program(&self, path: &str, arguments: &[&str]) -> io::Result<Program> {
        Program::new(path, arguments.iter().copied(), self.environment.for_helpers())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fake_machine_runs_no_program_of_the_real_one() {
        let (root, environment) = (Root::at("/nowhere"), Environment::default());
        let helpers = Helpers::new(&root, &environment);
        let refusal = helpers.run("/bin/true", &[], b"", "do nothing", Duration::from_secs(1)).unwrap_err();
        assert_eq!(refusal.desc, "this machine cannot run /bin/true");
    }
}
