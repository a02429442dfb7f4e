//! Daemonizing, and the pid file.
//!
//! The parent process waits until the child is ready, and exits with success only then. The pid file stays locked while
//! the agent runs, so that a second agent finds the first. Only the agent that wrote it removes it at its end.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::exit,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::stat::{Mode, umask},
    unistd::{ForkResult, chdir, dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setsid},
};

use crate::{
    sys,
    util::{errno, file_lock::exclusive},
};

/// The pid file of this process; dropping it removes the file.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    /// Keeps the lock.
    _file: File,
}

/// Goes on as a daemon that has done what is to be done first; the process that was called exits.
///
/// # Errors
/// Also when the process has other threads: none of them would go along.
pub(crate) fn daemonize(first: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let (ready, tell_ready) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    match sys::process::fork_single_threaded().map_err(failed)? {
        ForkResult::Parent { .. } => {
            drop(tell_ready);
            let is_ready = File::from(ready).read(&mut [0]).is_ok_and(|count| count == 1);
            exit(i32::from(!is_ready));
        }
        ForkResult::Child => {
            drop(ready);
            first()?;
            umask(Mode::from_bits_truncate(0o077));
            setsid().map_err(failed)?;
            chdir("/").map_err(failed)?;
            let null = OpenOptions::new().read(true).write(true).open("/dev/null");
            let null =
                null.map_err(|error| format!("failed to become a daemon: /dev/null: {}", errno::describe(error)))?;
            dup2_stdin(&null).and(dup2_stdout(&null)).and(dup2_stderr(&null)).map_err(failed)?;
            // A parent that was killed meanwhile is not waiting.
            let _ = File::from(tell_ready).write_all(b"1");
            Ok(())
        }
    }
}

fn failed(error: impl Into<io::Error>) -> String {
    format!("failed to become a daemon: {}", errno::describe(error))
}

impl PidFile {
    /// Writes this process's number to the file.
    pub(crate) fn write(path: &Path) -> Result<Self, String> {
        let file = Self::lock(path)?;
        file.set_len(0)
            .and_then(|()| writeln!(&file, "{}", std::process::id()))
            .map_err(|error| format!("Failed to write pid file {}: {}", path.display(), errno::describe(error)))?;
        Ok(Self { path: path.into(), _file: file })
    }

    /// Opens the file and locks it, and makes sure that it still is the file of that name.
    fn lock(path: &Path) -> Result<File, String> {
        loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
            let file =
                file.map_err(|error| format!("Cannot open pid file {}: {}", path.display(), errno::describe(error)))?;
            fcntl(&file, FcntlArg::F_SETLK(&exclusive()))
                .map_err(|error| format!("Cannot lock pid file: {}", errno::describe(error)))?;
            if is_at(&file, path) {
                return Ok(file);
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::warn!("failed to remove the pid file {}: {}", self.path.display(), errno::describe(error));
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: io::Result<std::fs::Metadata>| metadata.ok().map(|found| (found.dev(), found.ino()));
    identity(file.metadata()) == identity(std::fs::metadata(path))
}
