//! The package for the family of Red Hat's systems, installed by rpm on Debian. Its files and scripts are the same as
//! there.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use qga::{
    client,
    commands::{
        freeze::{FreezeList, FreezeState, FreezeStatus, Thaw},
        users::GetUsers,
    },
    wire::base64::Base64,
};
use vmtest::{
    image::RPM,
    vm::{Builder, Vm},
};

use super::{
    package::{SERVING, make_file_system, status_text, version},
    service::agent_pid,
    vsock,
};
use crate::cases::{answered, soon};

/// Debian's rpm does not take over a system unless it is told to.
const COMMAND: &str = "rpm --dbpath /var/lib/rpm --force-debian --nodeps";
const SETTINGS: &str = "/etc/sysconfig/qemu-ga";
/// As an administrator has changed it.
const LINES: &str = "BLACKLIST_RPC=guest-get-users\nFSFREEZE_HOOK_PATHNAME=/etc/qemu/their-hook\n";
/// The package that ours takes the place of: a unit that is stopped and files that are removed when it goes.
const OTHER_PACKAGE: &str = "
Name: qemu-guest-agent
Version: 17
Release: 1
Summary: Another agent
License: None
BuildArch: noarch
%description
Another agent.
%install
mkdir -p %{buildroot}/etc/sysconfig %{buildroot}/usr/lib/systemd/system
echo BLACKLIST_RPC= >%{buildroot}/etc/sysconfig/qemu-ga
printf '[Service]\\nExecStart=/bin/sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n' \\
    >%{buildroot}/usr/lib/systemd/system/qemu-guest-agent.service
%preun
if [ $1 = 0 ]; then systemctl --no-reload disable --now qemu-guest-agent.service; fi
%files
%config(noreplace) /etc/sysconfig/qemu-ga
/usr/lib/systemd/system/qemu-guest-agent.service
";

pub(crate) fn takes_the_place_of_another(builder: Builder<'_>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    make_file_system(&data)?;
    let mut vm = builder.swap(&data).boot()?;
    vm.wait_until("systemctl is-system-running --wait")?;
    install_the_other(&mut vm, folder.path())?;
    takes_settings_and_hook_over(&mut vm)?;
    vsock::is_served_beside_the_port(&mut vm)?;
    is_replaced_by_a_newer_one(&mut vm)?;
    leaves_only_what_people_wrote(&mut vm)
}

fn install_the_other(vm: &mut Vm, folder: &Path) -> Result<()> {
    let package = serde_json::to_string(&Base64::from(build_the_other(folder)?))?;
    vm.sh(&format!("echo {package} | base64 -d >/run/other.rpm"))?;
    vm.sh(&format!("{COMMAND} -i /run/other.rpm; systemctl daemon-reload; systemctl enable --now qemu-guest-agent"))?;
    vm.sh(&format!("printf '{LINES}' >{SETTINGS}; mkdir -p /etc/qemu"))?;
    let hook = "#!/bin/sh\\necho $1 >>/run/hook.log\\n";
    vm.sh(&format!("printf '{hook}' >/etc/qemu/their-hook; chmod 755 /etc/qemu/their-hook"))?;
    Ok(())
}

fn build_the_other(folder: &Path) -> Result<Vec<u8>> {
    let specification = folder.join("other.spec");
    fs::write(&specification, OTHER_PACKAGE)?;
    let topdir = format!("_topdir {}", folder.display());
    let built = Command::new("rpmbuild")
        .args(["--quiet", "-bb", "--define", &topdir, "--define", "_rpmfilename other.rpm"])
        .arg(&specification)
        .output()
        .context("failed to run rpmbuild (run tools/install-needs package)")?;
    ensure!(built.status.success(), "rpmbuild failed: {}", String::from_utf8_lossy(&built.stderr));
    Ok(fs::read(folder.join("RPMS/other.rpm"))?)
}

fn takes_settings_and_hook_over(vm: &mut Vm) -> Result<()> {
    vm.sh(&format!("{COMMAND} -U {RPM}"))?;
    assert_eq!(vm.sh("rpm --dbpath /var/lib/rpm -qa --qf '%{NAME} '")?, "qgad");
    assert_eq!(vm.sh("rpm --dbpath /var/lib/rpm -V --nodeps qgad")?, "");
    assert_eq!(vm.sh("systemctl is-active qgad")?, "active");
    assert_eq!(vm.sh("qemu-ga --version")?, vm.sh("qgad --version")?);
    assert_eq!(vm.sh(&format!("cat {SETTINGS}"))?, LINES.trim());
    let mut agent = answered(vm)?;
    assert_eq!(version(&mut agent)?, env!("CARGO_PKG_VERSION"));
    let refusal = agent.call(&GetUsers {}, soon()).unwrap_err();
    assert!(matches!(refusal, client::Error::Refused { .. }), "{refusal}");
    assert_eq!(vm.sh("cat /etc/qemu/qemu-ga.conf")?, "[general]\nfsfreeze-hook=/etc/qemu/their-hook");
    Ok(())
}

fn is_replaced_by_a_newer_one(vm: &mut Vm) -> Result<()> {
    let upgrade = format!("{COMMAND} -U --force {RPM} 2>&1");
    let before = agent_pid(vm)?;
    vsock::is_replaced_by(vm, |vm| vm.sh(&upgrade))?;
    let mut agent = answered(vm)?;
    let before = (before, agent_pid(vm)?);
    assert_ne!(before.0, before.1);

    vm.sh("mount /dev/vdb /mnt")?;
    let mountpoints = Some(vec!["/mnt".to_owned()]);
    assert_eq!(agent.call(&FreezeList { mountpoints, lease: None }, soon())?, 1);
    let said = vm.sh(&upgrade)?;
    assert!(said.contains("restarted after the thaw"), "{said}");
    assert_eq!(agent_pid(vm)?, before.1);
    assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Frozen);
    assert_eq!(agent.call(&Thaw {}, soon())?, 1);
    assert_eq!(vm.sh("cat /run/hook.log")?, "freeze\nthaw");
    vm.wait_until(&format!(
        "pid=$(systemctl show --value -p MainPID qgad); [ $pid != 0 ] && [ $pid != {} ]",
        before.1
    ))?;
    agent.sync(soon())?;
    assert_eq!(status_text(vm)?, SERVING);
    vm.sh("umount /mnt")?;
    Ok(())
}

fn leaves_only_what_people_wrote(vm: &mut Vm) -> Result<()> {
    vm.sh(&format!("{COMMAND} -e qgad"))?;
    assert_eq!(vm.sh("pidof qgad || true")?, "");
    assert_eq!(vm.sh("ls /usr/sbin/qgad /usr/bin/qemu-ga /usr/bin/qgactl 2>/dev/null || true")?, "");
    assert_eq!(vm.sh("ls -d /usr/lib/systemd/system/qgad* /usr/share/doc/qgad 2>/dev/null || true")?, "");
    assert_eq!(vm.sh("ls /etc/qemu")?, "qemu-ga.conf\ntheir-hook");
    assert_eq!(vm.sh(&format!("cat {SETTINGS}"))?, LINES.trim());
    assert_eq!(vm.sh("systemctl --failed --quiet")?, "");
    Ok(())
}
