//! The package: beside Debian's, over it, and away again.

use std::{fs::File, process::Command};

use anyhow::{Result, ensure};
use qga::{
    client::{self, Client},
    commands::{
        freeze::{FreezeList, FreezeState, FreezeStatus, Thaw},
        session::Info,
        users::GetUsers,
    },
};
use vmtest::{
    image::PACKAGE,
    transcript::Recorded,
    vm::{Builder, Vm},
};

use super::service::agent_pid;
use crate::cases::{answered, soon};

/// Debian's package, which `tools/make-debian` put there.
const REFERENCE: &str = "/var/cache/vmtest/qemu-guest-agent_*.deb";
/// What the agent tells of itself when nothing is frozen.
const SERVING: &str = "serving the host on /dev/virtio-ports/org.qemu.guest_agent.0";
const DATA_BYTES: u64 = 16 << 20;
/// How often one wait may pass until an installation is over.
const WAITS_FOR_DPKG: u32 = 4;
const CONFIGURATION: &str = "[general]\nblock-rpcs=guest-get-users\n";
const HOOK: &str = "/etc/qemu/fsfreeze-hook";

pub(crate) fn replaces_the_reference(builder: Builder<'_>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    make_file_system(&data)?;
    let mut vm = builder.without_port().swap(&data).boot()?;
    vm.wait_until("systemctl is-system-running --wait")?;
    waits_for_the_port(&mut vm)?;
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

    // Debian's package does not say that it takes the place of another one, so that somebody has to.
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

/// Installs a package as a host does, with nobody to answer questions, and returns what it said.
///
/// The scripts of Debian's package are written in Perl, which takes an emulated processor longer than one wait.
fn install(vm: &mut Vm, package: &str) -> Result<String> {
    let install = format!("DEBIAN_FRONTEND=noninteractive dpkg --auto-deconfigure -B -i {package}");
    vm.sh(&format!("rm -f /run/installing; ({install}; echo status $?) >/run/installing 2>&1 </dev/null &"))?;
    for _ in 0..WAITS_FOR_DPKG {
        if vm.wait_until("grep '^status' /run/installing").is_ok() {
            break;
        }
    }
    let said = vm.sh("cat /run/installing")?;
    ensure!(said.ends_with("status 0"), "failed to install {package}: {said}\n{}", vm.sh("systemctl list-jobs")?);
    Ok(said)
}

fn version(agent: &mut Client<Recorded>) -> Result<String> {
    Ok(agent.call(&Info {}, soon())?.version)
}

fn status_text(vm: &mut Vm) -> Result<String> {
    vm.sh("systemctl show --value -p StatusText qgad")
}

fn make_file_system(path: &std::path::Path) -> Result<()> {
    File::create(path)?.set_len(DATA_BYTES)?;
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(path).output()?;
    ensure!(made.status.success(), "failed to make a file system: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}
