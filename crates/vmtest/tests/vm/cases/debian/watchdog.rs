//! The service manager replaces an agent that hangs.

use anyhow::Result;
use qga::{
    client::Client,
    commands::freeze::{Freeze, FreezeState, FreezeStatus, Thaw},
};
use vmtest::{transcript::Recorded, vm::Vm};

use super::service::agent_pid;
use crate::cases::{answered, soon};

const DROP_IN: &str = "/run/systemd/system/qgad.service.d";
/// The watchdog timeout in this test, in seconds: long for an emulated processor, not for a test.
const WATCHDOG_SECONDS: u32 = 5;
/// The process of the guard of a freeze.
const GUARD: &str = "grep -lx qgad-guard /proc/[0-9]*/comm";

pub(super) fn replaces_an_agent_that_hangs(vm: &mut Vm) -> Result<()> {
    let property = |vm: &mut Vm, name| vm.sh(&format!("systemctl show --value -p {name} qgad"));
    assert_eq!(property(vm, "WatchdogUSec")?, "10min");
    vm.sh(&format!(
        "mkdir -p {DROP_IN}; printf '[Service]\\nWatchdogSec={WATCHDOG_SECONDS}\\n' >{DROP_IN}/watchdog.conf"
    ))?;
    vm.sh("systemctl daemon-reload; systemctl restart qgad")?;
    let mut agent = answered(vm)?;
    pings_the_watchdog(vm)?;

    stand_still(vm, &mut agent)?;
    assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Thawed);

    assert!(agent.call(&Freeze { lease: None }, soon())? > 0);
    let guard = vm.sh(GUARD)?;
    stand_still(vm, &mut agent)?;
    assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Frozen);
    assert_eq!(vm.sh(GUARD)?, guard, "the freeze has another guard");
    assert!(agent.call(&Thaw {}, soon())? > 0);
    vm.sh("echo >/etc/thawed && sync -f /etc/thawed")?;

    // No core was written on the way.
    let end = vm.sh("journalctl --sync; journalctl -b -o cat -u qgad | grep 'Main process exited' | tail -n 1")?;
    assert!(end.contains("code=killed, status=9/KILL"), "{end}");
    vm.sh(&format!("rm {DROP_IN}/watchdog.conf; systemctl daemon-reload; systemctl restart qgad"))?;
    agent.sync(soon())?;
    Ok(())
}

/// Two pings, one after the other, from one process.
fn pings_the_watchdog(vm: &mut Vm) -> Result<()> {
    let before = agent_pid(vm)?;
    let last = "systemctl show --value -p WatchdogTimestampMonotonic qgad";
    for _ in 0..2 {
        let ping = vm.sh(last)?;
        vm.wait_until(&format!("[ $({last}) != {ping} ]"))?;
    }
    assert_eq!(agent_pid(vm)?, before);
    Ok(())
}

fn stand_still(vm: &mut Vm, agent: &mut Client<Recorded>) -> Result<()> {
    let before = agent_pid(vm)?;
    vm.sh(&format!("kill -STOP {before}"))?;
    vm.wait_until(&format!(
        "pid=$(systemctl show --value -p MainPID qgad); \
         [ $pid != 0 ] && [ $pid != {before} ] && systemctl is-active qgad"
    ))?;
    agent.sync(soon())?;
    Ok(())
}
