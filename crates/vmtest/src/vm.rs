//! A running VM.
//!
//! It is described by a [`Builder`], boots when told, and is killed when it is dropped or this process dies. QEMU dies
//! when the guest's kernel panics or powers off, so that whoever waits for the guest learns it from the end of a stream.
//! Its folder keeps `console.log`, `qmp.log`, `agent.wire` (see [`crate::transcript`]) and `command.txt`.

use std::{
    fs::{self, File},
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::poll::{PollFd, PollFlags, poll};
use qga::client::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    control::{Control, PORT_NAME},
    image::Image,
    needs,
    qmp::Qmp,
    transcript::Recorded,
};

/// How long a boot may take: seconds when alone, but emulation on a busy machine is slow.
pub const BOOT_TIMEOUT: Duration = Duration::from_secs(180);
/// How long a test waits for anything else.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// The agent's port in the guest.
pub const AGENT_PORT: &str = "org.qemu.guest_agent.0";

/// Names, in the environment of process 1, an init that takes its place. The kernel puts there what it does not know.
pub const INIT_VARIABLE: &str = "vmtest_init";

/// How often QEMU's death is looked for while it starts, and a condition in the guest while somebody waits for it.
const POLL_INTERVAL_MS: u8 = 100;
/// Most of the console that an error shows.
const CONSOLE_TAIL_LINES: usize = 30;
/// The second disk of a guest that has one.
const RESUME_DEVICE: &str = "vdb";
const AGENT_CHARDEV: &str = "agent";
const AGENT_DEVICE: &str = "agent-port";
/// No self-tests and no look for a keyboard, which take an emulated processor long, and no check of the timer, which
/// fails on a busy machine. A panic ends the VM.
const KERNEL_ARGUMENTS: &str =
    "console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests i8042.noaux i8042.nokbd no_timer_check";
/// A microvm has no timer to measure the processor's clock by, which is about this fast.
const MICROVM_KERNEL_ARGUMENT: &str = "tsc_early_khz=2000000";

/// How the host reaches the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A port of a virtio-serial device, which can be unplugged.
    VirtioSerial,
    /// The second serial port.
    IsaSerial,
}

/// A VM as it will be.
#[derive(Clone, Debug)]
pub struct Builder<'a> {
    image: &'a Image,
    name: String,
    machine: String,
    memory_mib: u32,
    transport: Transport,
    has_port: bool,
    agent: Option<String>,
    agent_arguments: Vec<String>,
    socket: Option<PathBuf>,
    kernel_arguments: Vec<String>,
    is_kernel_packed: bool,
    overlay: Option<PathBuf>,
    swap: Option<PathBuf>,
    qemu_arguments: Vec<String>,
}

/// A VM that runs.
#[derive(Debug)]
pub struct Vm {
    /// QEMU's control channel.
    pub qmp: Qmp,
    control: Control,
    socket: PathBuf,
    folder: PathBuf,
    _qemu: Qemu,
    _sockets: TempDir,
}

impl<'a> Builder<'a> {
    /// A VM with the agent under test on a virtio-serial port. The name is that of its folder.
    ///
    /// In a guest with a disk the agent is started by its unit file: what is said below of its program and arguments
    /// does not hold there.
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
            is_kernel_packed: false,
            overlay: None,
            swap: None,
            qemu_arguments: Vec::new(),
        }
    }

    /// QEMU's machine type, `pc` unless told; `q35` and `microvm` boot, too.
    #[must_use]
    pub fn machine(self, machine: &str) -> Self {
        Self { machine: machine.into(), ..self }
    }

    /// Memory in MiB, 256 or, in a guest with a disk, 512 unless told.
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

    /// No agent is started.
    #[must_use]
    pub fn without_agent(self) -> Self {
        Self { agent: None, ..self }
    }

    /// Further arguments of the agent. They must not contain blanks: the kernel passes them on.
    #[must_use]
    pub fn agent_arguments(mut self, arguments: &[&str]) -> Self {
        self.agent_arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Where the host's socket to the agent is to be; a temporary place unless told.
    #[must_use]
    pub fn socket(self, socket: Option<PathBuf>) -> Self {
        Self { socket, ..self }
    }

    /// Busybox's init is process 1, which ends the guest when a signal tells it to.
    #[must_use]
    pub fn busybox_init(mut self) -> Self {
        self.kernel_arguments.push(format!("{INIT_VARIABLE}=busybox"));
        self
    }

    /// Boots the kernel as it is packed, which takes longer. A machine that is to wake up needs it: QEMU puts one that is
    /// not packed into memory anew then, over the one that slept.
    #[must_use]
    pub fn packed_kernel(self) -> Self {
        Self { is_kernel_packed: true, ..self }
    }

    /// Keeps what the guest writes to its disk in this file, which is made if it is not there. Without it, that is lost
    /// with the VM.
    #[must_use]
    pub fn overlay(self, overlay: &Path) -> Self {
        Self { overlay: Some(overlay.into()), ..self }
    }

    /// A second disk, `/dev/vdb`, on which the guest looks for a machine that was suspended to it.
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

    /// Starts the VM and waits until the guest is up and its agent has been started.
    ///
    /// # Errors
    /// When QEMU does not start, or the guest does not boot in time.
    pub fn boot(self) -> Result<Vm> {
        let mut vm = self.start()?;
        vm.wait_booted()?;
        Ok(vm)
    }

    /// Starts the VM. Its agent can be connected to and talked to at once, but answers after the boot only.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn start(self) -> Result<Vm> {
        let folder = needs::run_folder(&self.name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        // Paths of sockets are bounded, and the folder may stand deep.
        let sockets = tempfile::tempdir()?;
        let socket = self.socket.clone().unwrap_or_else(|| sockets.path().join("agent"));
        let listen = |name| -> Result<_> {
            let listener = UnixListener::bind(sockets.path().join(name))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let (qmp, control) = (listen("qmp")?, listen("control")?);
        if let (Some(disk), Some(overlay)) = (&self.image.disk, &self.overlay) {
            make_overlay(disk, overlay)?;
        }
        let mut qemu = Qemu::spawn(&self.image.qemu, &self.command_line(&folder, sockets.path(), &socket), &folder)?;
        let control = Control::new(qemu.accept(&control, &folder)?);
        let qmp = Qmp::greet(qemu.accept(&qmp, &folder)?, File::create(folder.join("qmp.log"))?)?;
        Ok(Vm { qmp, control, socket, folder, _qemu: qemu, _sockets: sockets })
    }

    fn command_line(&self, folder: &Path, sockets: &Path, socket: &Path) -> Vec<String> {
        let accelerator = std::env::var("VMTEST_ACCEL").unwrap_or_else(|_| "tcg".into());
        let mut line: Vec<String> =
            ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"].map(Into::into).into();
        let mut option = |name: &str, value: String| line.extend([name.to_owned(), value]);
        option("-accel", accelerator);
        option("-machine", self.machine.clone());
        option("-cpu", "max".into());
        option("-m", self.memory_mib.to_string());
        let kernel = if self.is_kernel_packed { &self.image.packed_kernel } else { &self.image.kernel };
        option("-kernel", kernel.display().to_string());
        option("-initrd", self.image.initramfs().display().to_string());
        option("-append", self.kernel_command_line());
        option("-serial", format!("file:{}", folder.join("console.log").display()));
        option("-chardev", format!("socket,id=qmp,path={}", sockets.join("qmp").display()));
        option("-mon", "chardev=qmp,mode=control".into());
        option("-chardev", format!("socket,id={AGENT_CHARDEV},path={},server=on,wait=off", socket.display()));
        option("-chardev", format!("socket,id=control,path={}", sockets.join("control").display()));
        for (index, disk) in self.disks().into_iter().enumerate() {
            option("-drive", format!("if=none,id=disk{index},cache=unsafe,{disk}"));
            option("-device", format!("{},drive=disk{index}", self.virtio("blk")));
        }
        option("-device", format!("{},id=control-bus", self.virtio("serial")));
        option("-device", format!("virtserialport,bus=control-bus.0,chardev=control,name={PORT_NAME}"));
        option("-device", format!("{},id=agent-bus", self.virtio("serial")));
        match self.transport {
            Transport::VirtioSerial if !self.has_port => {}
            Transport::VirtioSerial => option("-device", port().to_string()),
            Transport::IsaSerial => option("-device", format!("isa-serial,chardev={AGENT_CHARDEV},index=1")),
        }
        line.extend(self.qemu_arguments.iter().cloned());
        line
    }

    /// The guest's own, and then that for swap: it finds them by their order.
    fn disks(&self) -> Vec<String> {
        let own = self.image.disk.iter().map(|disk| match &self.overlay {
            Some(overlay) => format!("format=qcow2,file={}", overlay.display()),
            None => format!("format=raw,snapshot=on,file={}", disk.display()),
        });
        own.chain(self.swap.iter().map(|swap| format!("format=raw,file={}", swap.display()))).collect()
    }

    /// QEMU's name of a virtio device: a `microvm` has no PCI bus.
    fn virtio(&self, kind: &str) -> String {
        format!("virtio-{kind}-{}", if self.is_microvm() { "device" } else { "pci" })
    }

    fn is_microvm(&self) -> bool {
        self.machine == "microvm"
    }

    /// Everything after `--` reaches init: the device to resume from, or the agent's command line.
    fn kernel_command_line(&self) -> String {
        let mut arguments = [&[KERNEL_ARGUMENTS.into()], &self.kernel_arguments[..]].concat().join(" ");
        if self.is_microvm() {
            arguments = format!("{arguments} {MICROVM_KERNEL_ARGUMENT}");
        }
        if self.image.disk.is_some() {
            let resume = if self.swap.is_some() { RESUME_DEVICE } else { "" };
            return format!("{arguments} -- {resume}");
        }
        let Some(agent) = &self.agent else { return arguments };
        let channel = match self.transport {
            Transport::VirtioSerial => format!("--method virtio-serial --path /dev/virtio-ports/{AGENT_PORT}"),
            Transport::IsaSerial => "--method isa-serial --path /dev/ttyS1".into(),
        };
        let further = self.agent_arguments.join(" ");
        format!("{arguments} -- {agent} {channel} --statedir /run {further}")
    }
}

/// Makes a file that holds what differs from a disk, unless it is there.
fn make_overlay(disk: &Path, overlay: &Path) -> Result<()> {
    if overlay.exists() {
        return Ok(());
    }
    let arguments = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b"];
    let output = Command::new("qemu-img").args(arguments).arg(disk).arg(overlay).output();
    let output = output.context("failed to run qemu-img")?;
    if !output.status.success() {
        bail!("failed to make {}: {}", overlay.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The agent's port, as QEMU is told to make it.
fn port() -> Value {
    json!({
        "driver": "virtserialport",
        "id": AGENT_DEVICE,
        "bus": "agent-bus.0",
        "chardev": AGENT_CHARDEV,
        "name": AGENT_PORT,
    })
}

impl Vm {
    /// Waits until the guest is up and its agent has been started.
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

    /// Where the logs are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Opens the host's side of the agent's channel. Only one connection is served at a time.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn connect(&self) -> Result<Recorded> {
        self.explain(Recorded::connect(&self.socket, &self.folder.join("agent.wire")))
    }

    /// Opens the host's side of the agent's channel for a conversation.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn client(&self) -> Result<Client<Recorded>> {
        self.connect().map(Client::new)
    }

    /// Runs a script in the guest and returns what it wrote, without blanks around it.
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

    /// Waits until a script succeeds in the guest, and returns what it wrote.
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

    /// Pulls the agent's port out of the VM.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub fn unplug_port(&mut self) -> Result<()> {
        self.qmp.execute("device_del", &json!({"id": AGENT_DEVICE}))?;
        self.qmp.wait_event("DEVICE_DELETED", Instant::now() + TIMEOUT)?;
        Ok(())
    }

    /// Plugs the agent's port into the VM.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub fn plug_port(&mut self) -> Result<()> {
        self.qmp.execute("device_add", &port())?;
        Ok(())
    }

    /// Waits until the guest's console shows a text.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_console(&self, text: &str) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while !fs::read_to_string(self.folder.join("console.log"))?.contains(text) {
            if Instant::now() > deadline {
                return self.explain(Err(anyhow!("the console does not show {text:?}")));
            }
            poll(&mut [], POLL_INTERVAL_MS)?;
        }
        Ok(())
    }

    /// Adds what the guest said last to an error.
    ///
    /// # Errors
    /// The given one.
    pub fn explain<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| anyhow!("{error:#}; the end of the guest's console:\n{}", console_tail(&self.folder)))
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
    }
}

/// The last lines of the console of a VM, by its folder.
pub fn console_tail(folder: &Path) -> String {
    let console = fs::read(folder.join("console.log")).unwrap_or_default();
    let console = String::from_utf8_lossy(&console).into_owned();
    let lines: Vec<_> = console.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(CONSOLE_TAIL_LINES)..].join("\n")
}

/// QEMU's process, killed when dropped.
#[derive(Debug)]
struct Qemu(Child);

impl Qemu {
    fn spawn(program: &Path, arguments: &[String], folder: &Path) -> Result<Self> {
        fs::write(folder.join("command.txt"), format!("{} {arguments:?}\n", program.display()))?;
        // So that nothing is left running when this process is killed.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("qemu.log"))?)
            .spawn()
            .context("failed to run setpriv and QEMU")?;
        Ok(Self(child))
    }

    /// Waits until QEMU connects, or is gone.
    fn accept(&mut self, listener: &UnixListener, folder: &Path) -> Result<UnixStream> {
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], POLL_INTERVAL_MS)?;
            if let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            if let Some(status) = self.0.try_wait()? {
                let said = fs::read_to_string(folder.join("qemu.log")).unwrap_or_default();
                bail!("QEMU ended with {status}: {}", said.trim());
            }
        }
        bail!("QEMU did not start in time");
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
