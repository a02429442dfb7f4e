//! Boots a VM for a person or a script, or describes the machine it runs on.
//!
//! `vmtest boot` prints the path of the agent's socket and the time from the start to the agent's first reply, and runs
//! until its input ends. With a command after `--` it runs that command, with the socket in `QGA_SOCKET`, then ends the
//! VM and exits with the command's status. `vmtest capture` boots nothing; its output belongs in a bug report.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;
use vmtest::{
    image::Image,
    needs::Needs,
    vm::{BOOT_TIMEOUT, Builder},
};

const USAGE: &str = "\
usage: vmtest boot [--socket PATH] [--machine TYPE] [--disks] [--reference] [-- COMMAND [ARGUMENT...]]
       vmtest capture

  capture          print the files of this machine that qgad reads of its disks, processors
                   and memory, as text
  --socket PATH    where the host's end of the agent's port is to be
  --machine TYPE   QEMU's machine type, pc or q35
  --disks          give it disks with file systems: a partition, and a mirror of two
  --reference      boot Debian's qemu-ga instead of qgad
  COMMAND          what to run while the VM runs, with the socket in QGA_SOCKET;
                   without it, the VM runs until standard input ends

QGAD names the agent's program, VMTEST_ACCEL QEMU's accelerator.
";

/// The size of each disk, enough for a file system.
const DISK_BYTES: u64 = 64 * 1024 * 1024;
/// The mirror is assembled through sysfs, because the guest has no tool for it.
const MAKE_FILE_SYSTEMS: &str = "\
set -e
printf 'n\\np\\n1\\n\\n\\nw\\n' | fdisk /dev/vda
echo md0 >/sys/module/md_mod/parameters/new_array
cd /sys/block/md0/md
echo none >metadata_version
echo raid1 >level
echo 2 >raid_disks
echo 32768 >component_size
slot=0
for half in sda nvme0n1; do
    cat /sys/block/$half/dev >new_dev
    echo $slot >dev-$half/slot
    slot=$((slot + 1))
done
echo active >array_state
while read device mount_point; do
    mke2fs -q /dev/$device
    mkdir -p $mount_point
    mount -t ext4 /dev/$device $mount_point
done <<END
vda1 /srv
md0 /srv/mirror
END";

#[derive(Debug, Default)]
struct Options {
    socket: Option<PathBuf>,
    machine: Option<String>,
    has_disks: bool,
    is_reference: bool,
    command: Vec<std::ffi::OsString>,
}

fn main() -> ExitCode {
    if std::env::args_os().skip(1).eq(["capture"]) {
        return capture();
    }
    let outcome = match parse() {
        Ok(Some(options)) => boot(options),
        Ok(None) => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(error),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("vmtest: {error:#}");
        ExitCode::FAILURE
    })
}

fn capture() -> ExitCode {
    match vmtest::capture::machine("/".as_ref()) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("vmtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse() -> Result<Option<Options>> {
    let mut options = Options::default();
    let mut parser = lexopt::Parser::from_env();
    let mut is_boot = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Value(word) if word == "boot" && !is_boot => is_boot = true,
            Value(word) if is_boot => {
                options.command.push(word);
                options.command.extend(parser.raw_args()?);
            }
            Long("socket") => options.socket = Some(parser.value()?.into()),
            Long("machine") => options.machine = Some(parser.value()?.string()?),
            Long("disks") => options.has_disks = true,
            Long("reference") => options.is_reference = true,
            other => bail!("{}\n{USAGE}", other.unexpected()),
        }
    }
    if is_boot { Ok(Some(options)) } else { bail!("nothing to do\n{USAGE}") }
}

fn boot(options: Options) -> Result<ExitCode> {
    let needs = Needs::collect().map_err(|missing| anyhow::anyhow!(missing.join("\n")))?;
    let image = Image::build(&needs)?;
    let mut builder = Builder::new(&image, "boot").socket(options.socket);
    if let Some(machine) = &options.machine {
        builder = builder.machine(machine);
    }
    if options.is_reference {
        builder = builder.agent(image.reference.as_deref().context("qemu-ga is not installed")?);
    }
    let folder = tempfile::tempdir()?;
    if options.has_disks {
        let arguments = disk_arguments(folder.path())?;
        builder = builder.qemu_arguments(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }
    print_line(&format!("booting a VM with Linux {} and the agent inside", needs.kernel.release))?;
    let started = Instant::now();
    let mut vm = builder.start()?;
    print_line(&format!("socket: {}", vm.socket().display()))?;
    let answered = vm.client()?.sync(Instant::now() + BOOT_TIMEOUT);
    vm.explain(answered.context("the agent does not answer"))?;
    print_line(&format!("boot to first reply: {:.1} s", started.elapsed().as_secs_f64()))?;
    if options.has_disks {
        vm.wait_booted()?;
        vm.load_disk_modules()?;
        vm.wait_until("test -b /dev/vda && test -b /dev/sda && test -b /dev/nvme0n1")?;
        vm.sh(MAKE_FILE_SYSTEMS)?;
    }
    let Some((program, arguments)) = options.command.split_first() else {
        print_line("ready; the VM runs until standard input ends")?;
        io::copy(&mut io::stdin(), &mut io::sink())?;
        return Ok(ExitCode::SUCCESS);
    };
    let status = Command::new(program)
        .args(arguments)
        .env("QGA_SOCKET", vm.socket())
        .status()
        .with_context(|| format!("failed to run {}", program.display()))?;
    Ok(exit_code(status))
}

/// QEMU's arguments for disks, which are files in a folder.
fn disk_arguments(folder: &Path) -> Result<Vec<String>> {
    let mut arguments = vec!["-device".to_owned(), "virtio-scsi-pci,id=scsi".to_owned()];
    for (name, device) in [
        ("system", "virtio-blk-pci,serial=SYSTEM-1"),
        ("left", "scsi-hd,bus=scsi.0,scsi-id=1,lun=3,serial=LEFT-2"),
        ("right", "nvme,serial=RIGHT-3"),
    ] {
        let file = folder.join(name);
        File::create(&file)?.set_len(DISK_BYTES)?;
        let drive = format!("if=none,id={name},format=raw,file={}", file.display());
        arguments.extend(["-drive".into(), drive, "-device".into(), format!("{device},drive={name}")]);
    }
    Ok(arguments)
}

/// Prints a line at once, even into a pipe.
fn print_line(line: &str) -> io::Result<()> {
    let mut output = io::stdout();
    writeln!(output, "{line}")?;
    output.flush()
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
