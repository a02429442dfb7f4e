//! The package: installed beside Debian's, installed over it, and removed.

use std::{
    fs::File,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use nix::poll::poll;
use qga::{
    client::{self, Client, Ended, GuestFile},
    commands::{
        exec::{CaptureOutput, Exec, ExecStatus},
        file::{FileOpen, FileWrite},
        freeze::{FreezeList, FreezeState, FreezeStatus, Thaw},
        session::Info,
        users::GetUsers,
    },
};
use vmtest::{
    image::PACKAGE,
    transcript::Recorded,
    vm::{Builder, TIMEOUT, Vm},
};

use super::service::agent_pid;
use crate::cases::{answered, soon};

/// Debian's package, which `tools/make-debian` put there.
const REFERENCE: &str = "/var/cache/vmtest/qemu-guest-agent_*.deb";
/// What the agent tells of itself when nothing is frozen.
pub(super) const SERVING: &str = "serving the host on /dev/virtio-ports/org.qemu.guest_agent.0";
const DATA_BYTES: u64 = 16 << 20;
/// How often one wait may pass until an installation is over.
const WAITS_FOR_DPKG: u32 = 4;
/// Installs packages as a host does, unattended.
const INSTALL: &str = "DEBIAN_FRONTEND=noninteractive dpkg --auto-deconfigure -B -i";
/// What a host writes while the agent is replaced, in pieces of so many bytes.
const LOAD: &str = "/root/load";
const PIECE_BYTES: usize = 64 * 1024;
/// How long it waits for an answer, of which the one that the old agent owes never comes.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE_MS: u8 = 50;
const CONFIGURATION: &str = "[general]\nblock-rpcs=guest-get-users\n";
const HOOK: &str = "/etc/qemu/fsfreeze-hook";

pub(crate) fn replaces_the_reference(builder: Builder<'_>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    make_file_system(&data)?;
    let mut vm = builder.without_port().swap(&data).boot()?;
    vm.wait_until("systemctl is-system-running --wait")?;
    waits_for_the_port(&mut vm)?;
    is_replaced_by_its_host_under_load(&mut vm)?;
    keeps_a_freeze_when_it_is_replaced(&mut vm)?;
    leaves_only_what_people_wrote(&mut vm)?;
    takes_over_from_the_reference(&mut vm)?;
    Ok(())
}

fn waits_for_the_port(vm: &mut Vm) -> Result<()> {
    install(vm, PACKAGE)?;
    assert_eq!(vm.sh("systemctl is-active qgad || true")?, "inactive");
    vm.plug_port()?;
    vm.wait_until("systemctl is-active qgad")?;
    assert_eq!(version(&mut answered(vm)?)?, env!("CARGO_PKG_VERSION"));
    assert_eq!(status_text(vm)?, SERVING);
    assert_eq!(vm.sh("qemu-ga --version")?, vm.sh("qgad --version")?);
    Ok(())
}

/// The host has the agent install a package of itself, as it does with all others, and moves a file and runs programs
/// meanwhile.
fn is_replaced_by_its_host_under_load(vm: &mut Vm) -> Result<()> {
    let mut agent = answered(vm)?;
    let before = agent_pid(vm)?;
    let install = format!("{INSTALL} {PACKAGE} && echo and so on && echo installed >/run/installed");
    let installation = agent.call(&shell(&install), soon())?.pid;
    let handle = agent.call(&FileOpen { path: LOAD.into(), mode: Some("w".into()) }, soon())?;
    let (mut answered, mut asked) = (0, 0);
    let refusal = loop {
        asked += PIECE_BYTES;
        let write = FileWrite { handle, buf_b64: vec![b'x'; PIECE_BYTES].into(), count: None };
        match agent.call(&write, Instant::now() + REPLY_TIMEOUT) {
            Ok(written) => {
                assert_eq!(usize::try_from(written.count)?, PIECE_BYTES);
                answered += PIECE_BYTES;
            }
            Err(client::Error::TimedOut) => agent.sync(soon())?,
            Err(error) => break error,
        }
        match agent.run(&shell("exit 7"), REPLY_TIMEOUT, None) {
            Ok(Ended::Exited(status)) => assert_eq!(status.exitcode, Some(7)),
            // The agent that has started it is gone.
            Err(client::Error::Refused { desc, .. }) => assert!(desc.ends_with("does not exist"), "{desc}"),
            Err(client::Error::TimedOut) => agent.sync(soon())?,
            other => bail!("a program ended with {other:?}"),
        }
        // An emulated processor is to install something, too.
        poll(&mut [], PAUSE_MS)?;
    };
    assert_eq!(refusal.to_string(), format!("handle '{handle}' has not been found"));
    assert_ne!(agent_pid(vm)?, before);
    // What was answered is in the file, and nothing twice.
    let size: usize = vm.sh(&format!("stat -c %s {LOAD}"))?.parse()?;
    assert!((answered..asked).contains(&size), "{size} bytes of {answered} that were answered and {asked} asked");

    let refusal = agent.call(&ExecStatus { pid: installation }, soon()).unwrap_err();
    assert_eq!(refusal.to_string(), format!("PID {installation} does not exist"));
    vm.wait_until("cat /run/installed")?;
    assert_eq!(version(&mut agent)?, env!("CARGO_PKG_VERSION"));
    let mut file = GuestFile::open(&mut agent, LOAD, "w", TIMEOUT)?;
    file.write_all(b"from the beginning")?;
    file.close()?;
    assert_eq!(vm.sh(&format!("cat {LOAD}; rm {LOAD}"))?, "from the beginning");
    Ok(())
}

/// A line for the shell, its output captured.
fn shell(line: &str) -> Exec {
    Exec {
        path: "/bin/sh".into(),
        arg: Some(vec!["-c".into(), line.into()]),
        env: None,
        input_data: None,
        capture_output: Some(CaptureOutput::Separated),
    }
}

fn keeps_a_freeze_when_it_is_replaced(vm: &mut Vm) -> Result<()> {
    vm.sh("mount /dev/vdb /mnt")?;
    let mut agent = answered(vm)?;
    let mountpoints = Some(vec!["/mnt".to_owned()]);
    assert_eq!(agent.call(&FreezeList { mountpoints, lease: None }, soon())?, 1);
    assert_eq!(status_text(vm)?, "file systems are frozen");
    vm.sh("systemctl restart qgad")?;
    agent.sync(soon())?;
    assert_eq!(status_text(vm)?, "file systems are frozen");
    let before = agent_pid(vm)?;
    let said = install(vm, PACKAGE)?;
    assert!(said.contains("restarted after the thaw"), "{said}");
    assert_eq!(agent_pid(vm)?, before);
    assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Frozen);
    assert_eq!(agent.call(&Thaw {}, soon())?, 1);
    vm.wait_until(&format!("pid=$(systemctl show --value -p MainPID qgad); [ $pid != 0 ] && [ $pid != {before} ]"))?;
    agent.sync(soon())?;
    assert_eq!(status_text(vm)?, SERVING);
    vm.sh("umount /mnt")?;
    Ok(())
}

fn leaves_only_what_people_wrote(vm: &mut Vm) -> Result<()> {
    vm.sh(&format!("printf '{CONFIGURATION}' >/etc/qemu/qemu-ga.conf"))?;
    vm.sh("dpkg --remove qgad")?;
    assert_eq!(vm.sh("pidof qgad || true")?, "");
    assert_eq!(vm.sh("ls /usr/sbin/qgad /usr/sbin/qemu-ga 2>/dev/null || true")?, "");
    vm.sh("dpkg --purge qgad")?;
    assert_eq!(vm.sh("ls -d /run/qga.state* 2>/dev/null || true")?, "");
    assert_eq!(vm.sh("dpkg-query -W -f '${db:Status-Status}' qgad 2>/dev/null || true")?, "");
    assert_eq!(vm.sh("ls /etc/qemu")?, "qemu-ga.conf");
    Ok(())
}

fn takes_over_from_the_reference(vm: &mut Vm) -> Result<()> {
    install_reference(vm)?;
    let mut agent = answered(vm)?;
    assert_ne!(version(&mut agent)?, env!("CARGO_PKG_VERSION"));
    let hook = vm.sh(&format!("md5sum {HOOK}"))?;

    install(vm, PACKAGE)?;
    agent.sync(soon())?;
    assert_eq!(version(&mut agent)?, env!("CARGO_PKG_VERSION"));
    assert_eq!(vm.sh(&format!("md5sum {HOOK}"))?, hook);
    assert_eq!(vm.sh("cat /etc/qemu/qemu-ga.conf")?, vm.sh(&format!("printf '{CONFIGURATION}'"))?);
    let refusal = agent.call(&GetUsers {}, soon()).unwrap_err();
    assert!(matches!(refusal, client::Error::Refused { .. }), "{refusal}");
    assert_eq!(vm.sh("systemctl --failed --quiet | grep qgad || true")?, "");

    // Debian's package does not declare that it replaces another one, so the command line must.
    vm.sh("dpkg --remove qgad")?;
    install_reference(vm)?;
    agent.sync(soon())?;
    assert_ne!(version(&mut agent)?, env!("CARGO_PKG_VERSION"));
    Ok(())
}

/// Debian's package, whose agent is started by its port's next appearance.
fn install_reference(vm: &mut Vm) -> Result<()> {
    install(vm, REFERENCE)?;
    vm.sh("udevadm trigger --action=add --subsystem-match=virtio-ports; systemctl start qemu-guest-agent")?;
    Ok(())
}

/// Installs a package and returns what that said.
///
/// The scripts of Debian's package are written in Perl, which takes an emulated processor longer than one wait.
fn install(vm: &mut Vm, package: &str) -> Result<String> {
    vm.sh(&format!("rm -f /run/installing; ({INSTALL} {package}; echo status $?) >/run/installing 2>&1 </dev/null &"))?;
    for _ in 0..WAITS_FOR_DPKG {
        if vm.wait_until("grep '^status' /run/installing").is_ok() {
            break;
        }
    }
    let said = vm.sh("cat /run/installing")?;
    ensure!(said.ends_with("status 0"), "failed to install {package}: {said}\n{}", vm.sh("systemctl list-jobs")?);
    Ok(said)
}

pub(super) fn version(agent: &mut Client<Recorded>) -> Result<String> {
    Ok(agent.call(&Info {}, soon())?.version)
}

pub(super) fn status_text(vm: &mut Vm) -> Result<String> {
    vm.sh("systemctl show --value -p StatusText qgad")
}

pub(super) fn make_file_system(path: &std::path::Path) -> Result<()> {
    File::create(path)?.set_len(DATA_BYTES)?;
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(path).output()?;
    ensure!(made.status.success(), "failed to make a file system: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}
