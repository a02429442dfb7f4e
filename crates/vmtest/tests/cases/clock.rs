//! The guest's clock and its hardware clock are set.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use qga::{
    client::Client,
    commands::clock::{GetTime, SetTime},
};
use vmtest::{
    transcript::Recorded,
    vm::{Builder, Vm},
};

use super::{answered, soon};

/// 2033-05-18: no clock is near it by itself.
const FUTURE: i64 = 2_000_000_000;
/// How far clocks may be apart that were set after each other, on a machine that is busy.
const TOLERANCE_SECONDS: i64 = 60;

pub(crate) fn is_set_by_itself(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    vm.sh("test ! -e /sbin/hwclock")?;
    is_set(&mut vm)?;
    let mut agent = answered(&vm)?;
    vm.sh("rm /dev/rtc0")?;
    set(&mut agent, Some(FUTURE * 1_000_000_000))?;
    let refusal = set(&mut agent, None).expect_err("there is no hardware clock");
    assert_eq!(refusal.to_string(), "failed to read the hardware clock: there is none");
    Ok(())
}

pub(crate) fn is_set_with_hwclock(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    vm.sh("mkdir -p /sbin && ln -s /bin/busybox /sbin/hwclock")?;
    // Where this file is absent, busybox takes the hardware clock for one of local time, as nobody else does.
    vm.sh("printf '0.0 0 0.0\\n0\\nUTC\\n' >/etc/adjtime")?;
    is_set(&mut vm)?;
    vm.sh("rm /sbin/hwclock; printf '#!/bin/sh\nexit 4\n' >/sbin/hwclock; chmod +x /sbin/hwclock")?;
    let mut agent = answered(&vm)?;
    let refusal = set(&mut agent, Some(1_700_000_000_000_000_000)).expect_err("the program fails");
    assert_eq!(refusal.to_string(), "child process has failed to set hardware clock to system time: exit status 4");
    check_near(seconds(&vm.sh("date +%s")?)?, 1_700_000_000, "the clock is set all the same")?;
    // Without a hardware clock there is nothing for it to do, nor to fail at.
    vm.sh("rm /dev/rtc0")?;
    Ok(set(&mut agent, Some(FUTURE * 1_000_000_000))?)
}

fn is_set(vm: &mut Vm) -> Result<()> {
    let mut agent = answered(vm)?;
    // QEMU's hardware clock shows the host's time.
    vm.sh("date -s @946684800")?;
    set(&mut agent, None)?;
    let host = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    check_near(agent.call(&GetTime {}, soon())? / 1_000_000_000, host, "the clock follows the hardware clock")?;

    set(&mut agent, Some(FUTURE * 1_000_000_000 + 123_456_789))?;
    check_near(agent.call(&GetTime {}, soon())? / 1_000_000_000, FUTURE, "the clock is set")?;
    check_near(seconds(&vm.sh("cat /sys/class/rtc/rtc0/since_epoch")?)?, FUTURE, "the hardware clock is set")?;
    vm.sh("date -s @946684800")?;
    set(&mut agent, None)?;
    check_near(seconds(&vm.sh("date +%s")?)?, FUTURE, "the clock follows the hardware clock that was set")?;

    let refusal = set(&mut agent, Some(3_155_760_000_000_000_000)).expect_err("it is 2070 in the guest");
    assert_eq!(refusal.to_string(), "Invalid time");
    Ok(())
}

fn set(agent: &mut Client<Recorded>, time: Option<i64>) -> Result<(), qga::client::Error> {
    agent.call(&SetTime { time }, soon()).map(drop)
}

fn seconds(text: &str) -> Result<i64> {
    Ok(text.parse()?)
}

fn check_near(found: i64, expected: i64, what: &str) -> Result<()> {
    ensure!((found - expected).abs() < TOLERANCE_SECONDS, "{what}: {found} instead of {expected}");
    Ok(())
}
