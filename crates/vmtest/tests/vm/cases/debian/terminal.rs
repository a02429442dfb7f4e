//! A serial terminal of the guest, for interactive logins.

use std::{
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use vmtest::vm::{Builder, Vm};

use crate::cases::soon;

/// Where the host's end of the terminal will be.
pub(super) struct Line {
    folder: TempDir,
}

/// The host's end of a terminal at which the guest asks for a name.
pub(super) struct Terminal {
    stream: UnixStream,
    heard: String,
}

impl Line {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir()? })
    }

    /// Gives a VM the second serial port.
    pub(super) fn plug_into<'a>(&self, builder: Builder<'a>) -> Builder<'a> {
        let socket = format!("socket,id=terminal,server=on,wait=off,path={}", self.socket().display());
        builder.qemu_arguments(&["-chardev", &socket, "-device", "isa-serial,chardev=terminal,index=1"])
    }

    /// Has the guest ask for a name there.
    pub(super) fn open(&self, vm: &mut Vm) -> Result<Terminal> {
        let stream = UnixStream::connect(self.socket())?;
        vm.sh("systemctl restart serial-getty@ttyS1")?;
        Ok(Terminal { stream, heard: String::new() })
    }

    fn socket(&self) -> PathBuf {
        Path::new(self.folder.path()).join("terminal")
    }
}

impl Terminal {
    /// Logs in, and returns whether the guest allowed it.
    pub(super) fn log_in(&mut self, user: &str, password: &str) -> Result<bool> {
        self.wait_for(&["login: "])?;
        self.say(user)?;
        self.wait_for(&["Password: "])?;
        self.say(password)?;
        Ok(self.wait_for(&["Login incorrect", "$ "])? == "$ ")
    }

    /// Leaves, so that the next can log in.
    pub(super) fn log_out(&mut self) -> Result<()> {
        self.say("exit")
    }

    fn say(&mut self, line: &str) -> Result<()> {
        Ok(write!(self.stream, "{line}\r")?)
    }

    /// Which of several texts comes first, after all that was waited for before.
    fn wait_for<'a>(&mut self, texts: &[&'a str]) -> Result<&'a str> {
        let deadline = soon();
        loop {
            let found = texts.iter().filter_map(|text| Some((self.heard.find(text)?, *text))).min();
            if let Some((at, text)) = found {
                self.heard.drain(..at + text.len());
                return Ok(text);
            }
            let remaining = deadline.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                bail!("the terminal says {:?} and none of {texts:?}", self.heard);
            }
            self.stream.set_read_timeout(Some(remaining))?;
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => bail!("the terminal is gone"),
                Ok(count) => self.heard += &String::from_utf8_lossy(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("failed to read from the terminal"),
            }
        }
    }
}
