//! Serial ports: virtio-serial and isa-serial.
//!
//! A virtio port reads as ended while its host side is closed. It stays open then, because the host comes back to the
//! same port. A terminal that hangs up is of no further use. Both are opened non-blocking and never become the
//! controlling terminal.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, open},
    sys::{
        stat::Mode,
        termios::{
            BaudRate, ControlFlags, FlushArg, InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices,
            cfsetspeed, tcflush, tcgetattr, tcsetattr,
        },
    },
};

use super::EndOfInput;
use crate::util::errno;

/// A serial port by its path, open or not.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    path: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Virtio,
    Isa,
}

impl Port {
    /// A virtio-serial port.
    pub(crate) fn virtio(path: PathBuf) -> Self {
        Self { path, kind: Kind::Virtio }
    }

    /// A terminal, put into raw mode when it is opened.
    pub(crate) fn isa(path: PathBuf) -> Self {
        Self { path, kind: Kind::Isa }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the end of its input means.
    pub(crate) fn end_of_input(&self) -> EndOfInput {
        match self.kind {
            Kind::Virtio => EndOfInput::PeerLeft,
            Kind::Isa => EndOfInput::Breaks,
        }
    }

    /// Opens it.
    pub(crate) fn open(&self) -> Result<OwnedFd, String> {
        let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let port = open(&self.path, flags, Mode::empty())
            .map_err(|error| format!("error opening channel '{}': {}", self.path.display(), errno::describe(error)))?;
        if self.kind == Kind::Isa {
            make_raw(&port);
        }
        Ok(port)
    }
}

/// Switches a terminal to bytes as they come, at 38,400 baud, and forgets what it received before. What is no terminal
/// carries bytes as they come anyway.
fn make_raw(port: &OwnedFd) {
    let Ok(mut settings) = tcgetattr(port) else { return };
    settings.input_flags.remove(
        InputFlags::IGNBRK
            | InputFlags::BRKINT
            | InputFlags::IGNPAR
            | InputFlags::PARMRK
            | InputFlags::INPCK
            | InputFlags::ISTRIP
            | InputFlags::INLCR
            | InputFlags::IGNCR
            | InputFlags::ICRNL
            | InputFlags::IXON
            | InputFlags::IXOFF
            | InputFlags::IXANY
            | InputFlags::IMAXBEL,
    );
    settings.output_flags = OutputFlags::empty();
    settings.local_flags = LocalFlags::empty();
    // A serial line of a VM has no modem: its carrier means nothing.
    settings.control_flags.insert(ControlFlags::CLOCAL | ControlFlags::CREAD);
    settings.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
    settings.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
    let applied = cfsetspeed(&mut settings, BaudRate::B38400)
        .and_then(|()| tcflush(port, FlushArg::TCIFLUSH))
        .and_then(|()| tcsetattr(port, SetArg::TCSANOW, &settings));
    if let Err(error) = applied {
        log::warn!("failed to set up the serial line: {}", errno::describe(error));
    }
}
