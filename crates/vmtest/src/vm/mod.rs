//! VMs: described, started, running.
//!
//! A [`Builder`] describes a VM and starts it. A [`Vm`] runs until it is dropped or this process dies. QEMU ends when
//! the guest's kernel panics or powers off; a wait for the guest then fails at once, with the console's last lines.
//! A VM's folder keeps `console.log`, `qemu.log`, `qmp.log`, `command.txt` and `agent.wire`, which
//! [`crate::transcript`] describes.

mod builder;
mod command_line;
mod console;
mod hot_plug;
mod qemu;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use nix::poll::poll;
use qga::client::Client;
use serde_json::Value;
use tempfile::TempDir;

use self::qemu::Qemu;
pub use self::{
    builder::{Builder, INIT_VARIABLE, Transport},
    command_line::AGENT_PORT,
    console::Console,
};
use crate::{
    control::Control,
    image::{DISK_MODULE_LIST, INIT_PATH},
    qmp::Qmp,
    transcript::Recorded,
};

/// How long a boot may take. It takes seconds on an idle machine, but emulation on a busy one is slow.
pub const BOOT_TIMEOUT: Duration = Duration::from_secs(180);
/// How long anything else may take that a test waits for.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// How long QEMU may take from its start to its connections.
const START_TIMEOUT: Duration = TIMEOUT;
/// How often a condition is checked that nothing announces: QEMU's end while it starts, and a state of the guest.
const POLL_INTERVAL_MS: u8 = 100;

/// A running VM.
#[derive(Debug)]
pub struct Vm {
    /// QEMU's control channel.
    pub qmp: Qmp,
    control: Control,
    console: Console,
    socket: PathBuf,
    folder: PathBuf,
    qemu: Qemu,
    _sockets: TempDir,
}

impl Vm {
    /// Waits until the guest has booted and its agent has been started.
    ///
    /// # Errors
    /// When that does not happen in time.
    pub fn wait_booted(&mut self) -> Result<()> {
        let booted = self.control.wait_ready(Instant::now() + BOOT_TIMEOUT);
        self.explain(booted)
    }

    /// The host's end of the agent's channel.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The directory of the logs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the guest prints.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Opens the host's side of the agent's channel. QEMU serves one connection at a time.
    ///
    /// # Errors
    /// When QEMU has ended.
    pub fn connect(&self) -> Result<Recorded> {
        self.explain(Recorded::connect(&self.socket, &self.folder.join("agent.wire")))
    }

    /// Opens the host's side of the agent's channel for a conversation.
    ///
    /// # Errors
    /// When QEMU has ended.
    pub fn client(&self) -> Result<Client<Recorded>> {
        self.connect().map(Client::new)
    }

    /// Runs a script in the guest and returns its output, without blanks around it.
    ///
    /// # Errors
    /// When the script fails, or does not end in time.
    pub fn sh(&mut self, script: &str) -> Result<String> {
        let outcome = self.control.run(script);
        let outcome = self.explain(outcome)?;
        if outcome.status != 0 {
            let errors = String::from_utf8_lossy(&outcome.errors).into_owned();
            bail!("the script {script:?} ended with status {}: {}", outcome.status, errors.trim());
        }
        Ok(String::from_utf8(outcome.output)?.trim().to_owned())
    }

    /// Waits until a script succeeds in the guest, and returns its output.
    ///
    /// # Errors
    /// When it does not succeed in time; the error is that of the last attempt.
    pub fn wait_until(&mut self, script: &str) -> Result<String> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match self.sh(script) {
                Err(_) if Instant::now() < deadline => {
                    poll(&mut [], POLL_INTERVAL_MS)?;
                }
                result => return result,
            }
        }
    }

    /// Waits until the guest's console shows a text.
    ///
    /// # Errors
    /// When it does not in time, or QEMU ends.
    pub fn wait_console(&mut self, text: &str) -> Result<()> {
        let shown = self.console.wait_for(text, TIMEOUT, || self.qemu.exit_status());
        self.explain(shown)
    }

    /// Loads the small guest's modules for disks and file systems. Those that are loaded already stay so.
    ///
    /// # Errors
    /// When one cannot be loaded.
    pub fn load_disk_modules(&mut self) -> Result<()> {
        self.sh(&format!("{INIT_PATH} load-modules {DISK_MODULE_LIST}"))?;
        Ok(())
    }

    /// Plugs a device in, described as QEMU's `device_add` takes it.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub fn plug(&mut self, device: &Value) -> Result<()> {
        let plugged = hot_plug::plug(&mut self.qmp, device);
        self.explain(plugged)
    }

    /// Plugs the agent's port in.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub fn plug_port(&mut self) -> Result<()> {
        self.plug(&hot_plug::agent_port())
    }

    /// Pulls the agent's port out.
    ///
    /// # Errors
    /// When QEMU refuses, or the guest does not give the port up in time.
    pub fn unplug_port(&mut self) -> Result<()> {
        let unplugged = hot_plug::unplug(&mut self.qmp, hot_plug::AGENT_DEVICE, Instant::now() + TIMEOUT);
        self.explain(unplugged)
    }

    /// Adds the last lines of the guest's console to an error.
    ///
    /// # Errors
    /// The given one.
    pub fn explain<T>(&self, result: Result<T>) -> Result<T> {
        self.console.explain(result)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
    }
}
