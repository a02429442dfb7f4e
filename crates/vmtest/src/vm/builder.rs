//! The description of a VM, and its start.
//!
//! A [`Builder`] is a value: nothing happens before [`Builder::start`]. The module `command_line` turns it into QEMU's
//! command line.

use std::{
    fs::{self, File},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{START_TIMEOUT, Vm, command_line::Paths, console::Console, qemu::Qemu};
use crate::{control::Control, image::Image, needs, qmp::Qmp};

/// Names, in the environment of process 1, the init that replaces ours. The kernel adds unknown arguments to that
/// environment.
pub const INIT_VARIABLE: &str = "vmtest_init";
/// Names QEMU's accelerator. Software emulation is the default, because it works within a VM.
const ACCELERATOR_VARIABLE: &str = "VMTEST_ACCEL";

/// How the host reaches the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A port of a virtio-serial device, which can be unplugged.
    VirtioSerial,
    /// The second serial port.
    IsaSerial,
}

/// The description of a VM.
#[derive(Clone, Debug)]
pub struct Builder<'a> {
    pub(super) image: &'a Image,
    pub(super) name: String,
    pub(super) machine: String,
    pub(super) memory_mib: u32,
    pub(super) transport: Transport,
    pub(super) has_port: bool,
    pub(super) agent: Option<String>,
    pub(super) agent_arguments: Vec<String>,
    pub(super) socket: Option<PathBuf>,
    pub(super) kernel_arguments: Vec<String>,
    pub(super) is_kernel_compressed: bool,
    pub(super) overlay: Option<PathBuf>,
    pub(super) swap: Option<PathBuf>,
    pub(super) qemu_arguments: Vec<String>,
    pub(super) accelerator: String,
}

impl<'a> Builder<'a> {
    /// A VM with the agent under test on a virtio-serial port. The name is that of its folder.
    ///
    /// In a guest with a disk the unit file starts the agent: the settings of its program and arguments below have no
    /// effect there.
    pub fn new(image: &'a Image, name: &str) -> Self {
        Self {
            image,
            name: name.into(),
            machine: "pc".into(),
            memory_mib: if image.disk.is_some() { 512 } else { 256 },
            transport: Transport::VirtioSerial,
            has_port: true,
            agent: Some(image.agent.clone()),
            agent_arguments: Vec::new(),
            socket: None,
            kernel_arguments: Vec::new(),
            is_kernel_compressed: false,
            overlay: None,
            swap: None,
            qemu_arguments: Vec::new(),
            accelerator: std::env::var(ACCELERATOR_VARIABLE).unwrap_or_else(|_| "tcg".into()),
        }
    }

    /// QEMU's machine type; the default is `pc`. `q35` and `microvm` boot, too.
    #[must_use]
    pub fn machine(self, machine: &str) -> Self {
        Self { machine: machine.into(), ..self }
    }

    /// Memory in MiB; the default is 256, or 512 in a guest with a disk.
    #[must_use]
    pub fn memory_mib(self, memory_mib: u32) -> Self {
        Self { memory_mib, ..self }
    }

    /// How the host reaches the agent.
    #[must_use]
    pub fn transport(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    /// The agent's port is absent until [`Vm::plug_port`].
    #[must_use]
    pub fn without_port(self) -> Self {
        Self { has_port: false, ..self }
    }

    /// The agent's program in the guest.
    #[must_use]
    pub fn agent(self, program: &str) -> Self {
        Self { agent: Some(program.into()), ..self }
    }

    /// The agent under test, by its path in the guest.
    pub fn agent_program(&self) -> &str {
        &self.image.agent
    }

    /// Debian's agent, by its path in the guest, if the host has it.
    pub fn reference_program(&self) -> Option<&str> {
        self.image.reference.as_deref()
    }

    /// Starts no agent.
    #[must_use]
    pub fn without_agent(self) -> Self {
        Self { agent: None, ..self }
    }

    /// Further arguments of the agent. They must not contain blanks, because they are arguments of the kernel first.
    #[must_use]
    pub fn agent_arguments(mut self, arguments: &[&str]) -> Self {
        self.agent_arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// The path of the host's socket to the agent; the default is a path in a temporary directory.
    #[must_use]
    pub fn socket(self, socket: Option<PathBuf>) -> Self {
        Self { socket, ..self }
    }

    /// Makes busybox's init process 1, which shuts the guest down on a signal.
    #[must_use]
    pub fn busybox_init(mut self) -> Self {
        self.kernel_arguments.push(format!("{INIT_VARIABLE}=busybox"));
        self
    }

    /// Boots the compressed kernel, which takes longer. A machine that wakes from suspend needs it: at the wake-up QEMU
    /// loads an uncompressed kernel again, over the memory of the suspended one.
    #[must_use]
    pub fn compressed_kernel(self) -> Self {
        Self { is_kernel_compressed: true, ..self }
    }

    /// Keeps what the guest writes to its disk in this file, which is created if necessary. Without an overlay, these
    /// writes are lost with the VM.
    #[must_use]
    pub fn overlay(self, overlay: &Path) -> Self {
        Self { overlay: Some(overlay.into()), ..self }
    }

    /// A second disk, `/dev/vdb`, from which the guest resumes if it was suspended to it.
    #[must_use]
    pub fn swap(self, swap: &Path) -> Self {
        Self { swap: Some(swap.into()), ..self }
    }

    /// Further arguments of QEMU.
    #[must_use]
    pub fn qemu_arguments(mut self, arguments: &[&str]) -> Self {
        self.qemu_arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Further arguments of the guest's kernel.
    #[must_use]
    pub fn kernel_arguments(mut self, arguments: &[&str]) -> Self {
        self.kernel_arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Starts the VM and waits until the guest has booted and its agent has been started.
    ///
    /// # Errors
    /// When QEMU does not start, or the guest does not boot in time.
    pub fn boot(self) -> Result<Vm> {
        let mut vm = self.start()?;
        vm.wait_booted()?;
        Ok(vm)
    }

    /// Starts the VM. The socket to its agent accepts a connection at once; the agent replies after the guest's boot.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn start(self) -> Result<Vm> {
        let folder = needs::run_folder(&self.name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        // The length of a socket's path is limited, and the path of the folder may be long.
        let sockets = tempfile::tempdir()?;
        let agent_socket = self.socket.clone().unwrap_or_else(|| sockets.path().join("agent"));
        let paths = Paths {
            console: Console::path_in(&folder),
            qmp_socket: sockets.path().join("qmp"),
            control_socket: sockets.path().join("control"),
            agent_socket,
        };
        let (qmp, control) = (listen(&paths.qmp_socket)?, listen(&paths.control_socket)?);
        if let (Some(disk), Some(overlay)) = (&self.image.disk, &self.overlay) {
            create_overlay(disk, overlay)?;
        }
        let console = Console::new(&folder);
        let mut qemu = Qemu::spawn(&self.image.qemu, &self.command_line(&paths), &folder)?;
        let control = Control::new(console.explain(qemu.accept(&control, START_TIMEOUT))?);
        let qmp = console.explain(qemu.accept(&qmp, START_TIMEOUT))?;
        let qmp = Qmp::greet(qmp, File::create(folder.join("qmp.log"))?)?;
        Ok(Vm { qmp, control, console, socket: paths.agent_socket, folder, qemu, _sockets: sockets })
    }
}

fn listen(path: &Path) -> Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Creates a file that holds the difference from a disk, unless it exists.
fn create_overlay(disk: &Path, overlay: &Path) -> Result<()> {
    if overlay.exists() {
        return Ok(());
    }
    let arguments = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b"];
    let output = Command::new("qemu-img").args(arguments).arg(disk).arg(overlay).output();
    let output = output.context("failed to run qemu-img")?;
    if !output.status.success() {
        bail!("failed to create {}: {}", overlay.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
