//! QEMU's process.
//!
//! It ends when its owner drops it and when this process dies. What it prints is in `qemu.log` of the VM's folder, its
//! command line in `command.txt`.

use std::{
    fs::{self, File},
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, poll};

use super::POLL_INTERVAL_MS;

/// A running QEMU.
#[derive(Debug)]
pub(super) struct Qemu {
    process: Child,
    log: PathBuf,
}

impl Qemu {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started, or the folder cannot be written to. A command line that QEMU does not accept is no
    /// error here, but QEMU ends at once.
    pub(super) fn spawn(program: &Path, arguments: &[String], folder: &Path) -> Result<Self> {
        fs::write(folder.join("command.txt"), format!("{} {arguments:?}\n", program.display()))?;
        let log = folder.join("qemu.log");
        // The kernel kills QEMU when this process is killed.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("failed to run setpriv and QEMU")?;
        Ok(Self { process, log })
    }

    /// Waits until it connects to a socket, which must not block.
    ///
    /// # Errors
    /// When it ends instead, or the time is up.
    pub(super) fn accept(&mut self, listener: &UnixListener, timeout: Duration) -> Result<UnixStream> {
        let deadline = Instant::now() + timeout;
        loop {
            poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], POLL_INTERVAL_MS)?;
            if let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            if let Some(status) = self.exit_status()? {
                let errors = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("QEMU ended with {status}: {}", errors.trim());
            }
            if Instant::now() >= deadline {
                bail!("QEMU did not connect within {timeout:?}");
            }
        }
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(super) fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.process.try_wait()?)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use nix::{sys::signal::kill, unistd::Pid};

    use super::*;
    use crate::vm::{TIMEOUT, console::Console};

    /// A shell in QEMU's stead, with the folder and a socket that nobody has connected to.
    fn start(script: &str) -> (tempfile::TempDir, UnixListener, Qemu) {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let script = format!("cd {}; {script}", folder.path().display());
        let qemu = Qemu::spawn(Path::new("/bin/sh"), &["-c".into(), script], folder.path()).unwrap();
        (folder, listener, qemu)
    }

    #[test]
    fn its_end_is_reported_with_its_errors_and_the_tail_of_the_console() {
        let (folder, listener, mut qemu) = start("echo Kernel panic >console.log; echo no such device >&2; exit 3");
        let error = Console::new(folder.path()).explain(qemu.accept(&listener, TIMEOUT)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "QEMU ended with exit status: 3: no such device; the end of the guest's console:\nKernel panic"
        );
    }

    #[test]
    fn a_qemu_that_never_connects_ends_the_wait() {
        let (_folder, listener, mut qemu) = start("exec sleep 1000");
        let error = qemu.accept(&listener, Duration::ZERO).unwrap_err();
        assert_eq!(error.to_string(), "QEMU did not connect within 0ns");
    }

    #[test]
    fn a_connection_that_is_accepted_blocks() {
        let (folder, listener, mut qemu) = start("exec sleep 1000");
        let _peer = UnixStream::connect(folder.path().join("socket")).unwrap();
        let stream = qemu.accept(&listener, TIMEOUT).unwrap();
        let flags = nix::fcntl::fcntl(&stream, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        assert_eq!(flags & nix::libc::O_NONBLOCK, 0);
    }

    #[test]
    fn it_ends_with_its_owner() {
        let (_folder, _listener, mut qemu) = start("exec sleep 1000");
        assert_eq!(qemu.exit_status().unwrap(), None);
        let pid = Pid::from_raw(qemu.process.id().try_into().unwrap());
        drop(qemu);
        assert_eq!(kill(pid, None), Err(nix::errno::Errno::ESRCH));
    }
}
