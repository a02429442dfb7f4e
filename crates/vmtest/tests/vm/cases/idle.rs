//! The cost of an idle agent.

use std::time::Instant;

use anyhow::{Result, bail};
use vmtest::vm::{Builder, TIMEOUT, Vm};

use super::{agent_pid, answered};

/// How long the guest watches its agent, in seconds of the guest: well above any polling interval we know of.
const WATCH_SECONDS: u32 = 5;

pub(crate) fn never_wakes_up(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    let agent = answered(&vm)?;
    wait_until_idle(&mut vm)?;
    check_no_wake_ups(&mut vm, "the host's side is open")?;
    drop(agent);
    wait_until_idle(&mut vm)?;
    check_no_wake_ups(&mut vm, "the host's side is closed")?;
    Ok(())
}

fn check_no_wake_ups(vm: &mut Vm, when: &str) -> Result<()> {
    does_not_wake_up(vm, &format!("sleep {WATCH_SECONDS}"), when)
}

/// Checks that the agent neither runs nor wakes up while a script runs in the guest.
pub(crate) fn does_not_wake_up(vm: &mut Vm, meanwhile: &str, when: &str) -> Result<()> {
    let (before, after) = watch(vm, meanwhile)?;
    assert_eq!(before, after, "the agent woke up while {when}");
    Ok(())
}

/// Waits until a second passes in the guest in which the agent neither ran nor woke up.
pub(crate) fn wait_until_idle(vm: &mut Vm) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let (before, after) = watch(vm, "sleep 1")?;
        if before == after {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the agent does not become idle: first\n{before}\nthen\n{after}");
        }
    }
}

/// How often each thread of the agent was switched to and how long it ran, before and after a script in the guest.
fn watch(vm: &mut Vm, meanwhile: &str) -> Result<(String, String)> {
    let pid = agent_pid(vm)?;
    let look = format!("grep -H ctxt_switches /proc/{pid}/task/*/status; cut -d' ' -f14,15 /proc/{pid}/stat");
    let looks = vm.sh(&format!("{look}; echo; {meanwhile}; echo =; {look}"))?;
    let Some((before, after)) = looks.split_once("=\n") else { bail!("the guest says {looks:?}") };
    Ok((before.trim().into(), after.trim().into()))
}
