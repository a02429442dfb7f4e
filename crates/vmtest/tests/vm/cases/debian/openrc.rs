//! The script for OpenRC, in a Debian on the second disk of the small guest: OpenRC brings up its own services there, below
//! the guest's init.

use anyhow::Result;
use qga::{
    client::Client,
    commands::{
        exec::{CaptureOutput, Exec},
        session::Ping,
        users::GetUsers,
    },
};
use vmtest::{
    image::DISK_MODULE_LIST,
    needs,
    transcript::Recorded,
    vm::{Builder, Vm},
};

use crate::cases::{answered, soon};

/// Where Debian's root is.
const ROOT: &str = "/mnt";
/// Prints its process. Others of the same executable, such as a pipe holder, have another name.
const AGENT: &str = "grep -lx qgad /proc/[0-9]*/comm | grep -o '[0-9][0-9]*'";
/// More than the number of starts that OpenRC allows unless it is told otherwise.
const KILLS: usize = 11;

pub(crate) fn runs_the_agent(builder: Builder<'_>) -> Result<()> {
    let disk = needs::debian_disk().map_err(anyhow::Error::msg)?;
    let drive = format!("if=none,id=debian,format=raw,snapshot=on,cache=unsafe,file={}", disk.display());
    let builder = builder.without_agent().without_port();
    let mut vm = builder.qemu_arguments(&["-drive", &drive, "-device", "virtio-blk-pci,drive=debian"]).boot()?;
    bring_up_openrc(&mut vm)?;

    // A port that is plugged in later is waited for.
    assert!(inside(&mut vm, "rc-service qgad status")?.contains("started"));
    let waiting = agent(&mut vm)?;
    vm.plug_port()?;
    let mut host = answered(&vm)?;
    assert_eq!(agent(&mut vm)?, waiting);
    is_started_again(&mut vm, &mut host)?;
    takes_options_and_leaves_programs_alone(&mut vm, &mut host)
}

fn bring_up_openrc(vm: &mut Vm) -> Result<()> {
    vm.sh(&format!("while read module; do insmod $module || exit 1; done <{DISK_MODULE_LIST}"))?;
    vm.wait_until("test -b /dev/vda")?;
    vm.sh(&format!("mount -t ext4 /dev/vda {ROOT}; cp /usr/sbin/qgad {ROOT}/usr/sbin/"))?;
    vm.sh(&format!("for name in proc sys dev; do mount -o bind /$name {ROOT}/$name || exit 1; done"))?;
    vm.sh(&format!("mount -t tmpfs run {ROOT}/run"))?;
    inside(vm, "dpkg-deb --fsys-tarfile /var/cache/vmtest/openrc_*.deb | tar -C / -x --keep-directory-symlink")?;
    let script = include_str!("../../../../../../packaging/openrc/qgad");
    vm.sh(&format!("cat >{ROOT}/etc/init.d/qgad <<'END'\n{script}END\nchmod 755 {ROOT}/etc/init.d/qgad"))?;
    inside(vm, "rc-update add qgad default; for level in sysinit boot default; do openrc $level || exit 1; done")?;
    Ok(())
}

fn is_started_again(vm: &mut Vm, host: &mut Client<Recorded>) -> Result<()> {
    for _ in 0..KILLS {
        let before = agent(vm)?;
        vm.sh(&format!("kill -KILL {before}"))?;
        vm.wait_until(&format!("pid=$({AGENT}) && [ $pid != {before} ]"))?;
    }
    host.sync(soon())?;
    assert!(inside(vm, "rc-service qgad status")?.contains("started"));
    Ok(())
}

fn takes_options_and_leaves_programs_alone(vm: &mut Vm, host: &mut Client<Recorded>) -> Result<()> {
    let program = Exec {
        path: "/bin/sh".into(),
        arg: Some(vec![
            "-c".into(),
            "while [ ! -e /run/go ]; do echo waiting; sleep 0.1; done; echo went >/run/went".into(),
        ]),
        env: None,
        input_data: None,
        capture_output: Some(CaptureOutput::Separated),
    };
    let program = host.call(&program, soon())?.pid;
    inside(vm, "rc-service qgad stop")?;
    assert_eq!(vm.sh("grep -lxE 'qgad|supervise-.*' /proc/[0-9]*/comm || true")?, "");
    assert_eq!(vm.sh(&format!("cat /proc/{program}/comm"))?, "sh");
    vm.sh(&format!("touch {ROOT}/run/go"))?;
    vm.wait_until(&format!("cat {ROOT}/run/went"))?;
    vm.sh(&format!("grep 'audit: .*guest-exec' {ROOT}/var/log/qgad.log"))?;

    inside(
        vm,
        "mkdir -p /etc/conf.d; printf 'GA_METHOD=virtio-serial\\nGA_ARGS=--verbose\\n' >/etc/conf.d/qemu-guest-agent",
    )?;
    inside(vm, "echo 'QGAD_ARGS=\"--block-rpcs=guest-get-users --statedir /run\"' >/etc/conf.d/qgad")?;
    inside(vm, "rc-service qgad start")?;
    host.sync(soon())?;
    host.call(&Ping {}, soon())?;
    let refusal = host.call(&GetUsers {}, soon()).unwrap_err();
    assert!(refusal.to_string().contains("guest-get-users has been disabled"), "{refusal}");
    let line = vm.sh(&format!("tr '\\0' ' ' </proc/$({AGENT})/cmdline"))?;
    let options = "--retry-path --method=virtio-serial --verbose --block-rpcs=guest-get-users --statedir /run";
    assert_eq!(line, format!("/usr/sbin/qgad {options}"));
    Ok(())
}

/// Runs a script in Debian.
fn inside(vm: &mut Vm, script: &str) -> Result<String> {
    vm.sh(&format!("chroot {ROOT} /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin /bin/sh <<'END' 2>&1\n{script}\nEND"))
}

fn agent(vm: &mut Vm) -> Result<String> {
    vm.wait_until(AGENT)
}
