//! Suspend by systemd and by pm-utils, and a restart. Other cases end with a power-off.

use std::{fs::File, process::Command};

use anyhow::{Result, bail};
use qga::{
    client::Client,
    commands::power::{Shutdown, SuspendDisk, SuspendHybrid, SuspendRam},
};
use serde_json::json;
use vmtest::{
    transcript::Recorded,
    vm::{Builder, Vm},
};

use crate::cases::{answered, soon};

/// Where an agent finds every program but systemd's.
const WITHOUT_SYSTEMD: &str = "/run/without-systemd";
const PM_UTILS_LOG: &str = "/var/log/pm-suspend.log";
/// More than the guest's memory.
const SWAP_BYTES: u64 = 768 << 20;

pub(crate) fn sleeps_and_wakes(builder: Builder<'_>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let swap = folder.path().join("swap");
    make_swap(&swap)?;
    let builder = builder.compressed_kernel().overlay(&folder.path().join("disk")).swap(&swap);
    let mut vm = builder.clone().boot()?;
    vm.wait_until("systemctl is-system-running --wait")?;
    // In memory only, so that it tells a machine that woke from one that booted.
    vm.sh("swapon /dev/vdb; echo from-before >/run/remembered")?;
    let mut agent = answered(&vm)?;

    agent.call(&SuspendRam {}, soon())?;
    wakes_from_memory(&mut vm, &mut agent)?;
    agent.call(&SuspendHybrid {}, soon())?;
    wakes_from_memory(&mut vm, &mut agent)?;
    sleeps_by_pm_utils(&mut vm, &mut agent)?;

    agent.call(&SuspendDisk {}, soon())?;
    let end = vm.qmp.wait_event("SHUTDOWN", soon())?;
    assert_eq!(end["reason"], "guest-shutdown");
    agent.wait_for_end(soon())?;
    drop(agent);
    drop(vm);

    // It continues where it was, so the control channel does not send `ready` again.
    let mut vm = builder.start()?;
    let mut agent = vm.client()?;
    agent.sync(soon())?;
    assert_eq!(vm.sh("cat /run/remembered")?, "from-before");

    vm.qmp.execute("set-action", &json!({"reboot": "reset"}))?;
    agent.call(&Shutdown { mode: Some("reboot".into()) }, soon())?;
    let reset = vm.qmp.wait_event("RESET", soon())?;
    assert_eq!(reset["reason"], "guest-reset");
    Ok(())
}

/// As where there is no systemd: it is out of the agent's sight.
fn sleeps_by_pm_utils(vm: &mut Vm, agent: &mut Client<Recorded>) -> Result<()> {
    let directory = "/run/systemd/system/qgad.service.d";
    vm.sh(&format!("mkdir {WITHOUT_SYSTEMD}; cd {WITHOUT_SYSTEMD}; ln -sf /usr/bin/* /usr/sbin/* .; rm systemctl"))?;
    // A hook that fails keeps pm-utils from going on. These want programs and a screen that this guest has not.
    let unwanted = "00logging 98video-quirk-db-handler 99video";
    vm.sh(&format!("echo 'HOOK_BLACKLIST=\"{unwanted}\"' >/etc/pm/config.d/vmtest"))?;
    let lines = format!("[Service]\\nEnvironment=PATH={WITHOUT_SYSTEMD}\\n");
    vm.sh(&format!("mkdir {directory}; printf '{lines}' >{directory}/path.conf"))?;
    vm.sh("systemctl daemon-reload; systemctl restart qgad")?;
    agent.sync(soon())?;
    let by_systemd = "journalctl --sync; journalctl -b -o cat -u systemd-suspend | grep -c '^Starting' || true";
    let before = vm.sh(by_systemd)?;
    assert_ne!(before, "0");
    assert_eq!(vm.sh(&format!("ls {PM_UTILS_LOG} 2>/dev/null || true"))?, "");

    agent.call(&SuspendRam {}, soon())?;
    wakes_from_memory(vm, agent)?;
    let ended = format!("grep -q -e ': Finished' -e ': Inhibit' {PM_UTILS_LOG} && cat {PM_UTILS_LOG}");
    let log = vm.wait_until(&ended)?;
    for step in [": performing suspend", ": Awake.", ": Finished."] {
        assert_eq!(log.matches(step).count(), 1, "{step}: {log}");
    }
    assert_eq!(vm.sh(by_systemd)?, before);

    vm.sh(&format!("rm -r {directory}; systemctl daemon-reload; systemctl restart qgad"))?;
    agent.sync(soon())?;
    Ok(())
}

fn wakes_from_memory(vm: &mut Vm, agent: &mut Client<Recorded>) -> Result<()> {
    vm.qmp.wait_event("SUSPEND", soon())?;
    assert_eq!(vm.qmp.execute("query-status", &json!({}))?["status"], "suspended");
    vm.qmp.execute("system_wakeup", &json!({}))?;
    vm.qmp.wait_event("WAKEUP", soon())?;
    agent.sync(soon())?;
    assert_eq!(vm.sh("cat /run/remembered")?, "from-before");
    Ok(())
}

fn make_swap(path: &std::path::Path) -> Result<()> {
    File::create(path)?.set_len(SWAP_BYTES)?;
    let made = Command::new("mkswap").arg(path).output()?;
    if !made.status.success() {
        bail!("failed to make swap: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok(())
}
