//! Guests that are shut down, stopped, restarted and put to sleep.

use anyhow::{Result, ensure};
use qga::{
    Command,
    client::{Client, Error},
    commands::{
        power::{Shutdown, SuspendDisk, SuspendHybrid, SuspendRam},
        session::Ping,
    },
};
use serde_json::json;
use vmtest::{
    transcript::Recorded,
    vm::{Builder, Vm},
};

use super::{answered, soon};

pub(crate) fn is_switched_off_by_init(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.busybox_init().boot()?;
    end(&mut vm, None)?;
    check_ended(&mut vm, "guest-shutdown")
}

pub(crate) fn is_restarted_by_init(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.busybox_init().boot()?;
    end(&mut vm, Some("reboot"))?;
    check_ended(&mut vm, "guest-reset")
}

pub(crate) fn is_stopped_by_init(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.busybox_init().boot()?;
    end(&mut vm, Some("halt"))?;
    // QEMU has no event for this: the machine stays on.
    vm.wait_console("System halted")
}

pub(crate) fn is_switched_off_by_the_kernel(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    // This init handles no signal.
    vm.sh("test ! -e /sbin/poweroff && test ! -e /sbin/shutdown")?;
    end(&mut vm, Some("powerdown"))?;
    check_ended(&mut vm, "guest-shutdown")
}

pub(crate) fn has_programs_for_it(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.busybox_init().boot()?;
    let mut agent = answered(&vm)?;
    vm.sh("mkdir -p /sbin && printf '#!/bin/sh\necho \"not now\"; exit 3\n' >/sbin/reboot && chmod +x /sbin/reboot")?;
    check_refused(
        &mut agent,
        &Shutdown { mode: Some("reboot".into()) },
        "child process has failed to shutdown: not now\n",
    )?;
    vm.sh("printf '#!/bin/sh\necho \"$@\" >/run/shutdown\n' >/sbin/shutdown && chmod +x /sbin/shutdown")?;
    agent.call(&Shutdown { mode: Some("halt".into()) }, soon())?;
    assert_eq!(vm.wait_until("cat /run/shutdown")?, "-h -H +0 hypervisor initiated shutdown");
    check_refused(
        &mut agent,
        &Shutdown { mode: Some("off".into()) },
        "mode is invalid (valid values are: halt|powerdown|reboot",
    )?;
    vm.sh("ln -s /bin/busybox /sbin/poweroff")?;
    drop(agent);
    end(&mut vm, None)?;
    check_ended(&mut vm, "guest-shutdown")
}

pub(crate) fn sleeps_and_wakes(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.compressed_kernel().boot()?;
    assert!(vm.sh("cat /sys/power/state")?.contains("mem"));
    let mut agent = answered(&vm)?;
    agent.call(&SuspendRam {}, soon())?;
    vm.qmp.wait_event("SUSPEND", soon())?;
    assert_eq!(vm.qmp.execute("query-status", &json!({}))?["status"], "suspended");
    vm.qmp.execute("system_wakeup", &json!({}))?;
    vm.qmp.wait_event("WAKEUP", soon())?;
    agent.sync(soon())?;
    agent.call(&Ping {}, soon())?;
    vm.sh("dmesg | grep 'PM: suspend exit'")?;
    Ok(())
}

pub(crate) fn cannot_sleep(builder: Builder<'_>) -> Result<()> {
    let vm = builder.boot()?;
    let mut agent = answered(&vm)?;
    let unsupported = "the requested suspend mode is not supported by the guest";
    check_refused(&mut agent, &SuspendHybrid {}, unsupported)?;
    // There is a way, and no swap to suspend to.
    check_refused(&mut agent, &SuspendDisk {}, "suspend: cannot write to '/sys/power/state': ")
}

fn end(vm: &mut Vm, mode: Option<&str>) -> Result<()> {
    let mut agent = answered(vm)?;
    agent.call(&Shutdown { mode: mode.map(Into::into) }, soon())?;
    Ok(())
}

/// QEMU goes when its guest ends, and says before that why.
fn check_ended(vm: &mut Vm, reason: &str) -> Result<()> {
    let event = vm.qmp.wait_event("SHUTDOWN", soon());
    assert_eq!(vm.explain(event)?, json!({"guest": true, "reason": reason}));
    Ok(())
}

fn check_refused<C: Command>(agent: &mut Client<Recorded>, command: &C, beginning: &str) -> Result<()> {
    // An emulated guest may need longer to fail than a client waits for that.
    match agent.call(command, soon()).map(drop).and_then(|()| agent.wait_for_end(soon())) {
        Err(Error::Refused { desc, .. }) => ensure!(desc.starts_with(beginning), "{desc:?}"),
        other => anyhow::bail!("{other:?} instead of a refusal"),
    }
    Ok(())
}
