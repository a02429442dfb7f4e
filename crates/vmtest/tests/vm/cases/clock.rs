//! Setting the guest's clock and its hardware clock, and what that must not change.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use qga::{
    client::Client,
    commands::{
        clock::{GetTime, SetTime},
        exec::{CaptureOutput, Exec, ExecStatus, ProgramStatus},
        freeze::{Freeze, Thaw},
        users::SetUserPassword,
    },
};
use serde_json::Value;
use vmtest::{
    transcript::Recorded,
    vm::{Builder, Vm},
};

use super::{
    answered,
    freeze::{self, boot, configure, start_writer},
    idle, soon,
    storage::disks::Content,
};

/// 2033-05-18: no clock is near it by itself.
const FUTURE: i64 = 2_000_000_000;
/// 2000-01-01, likewise.
const PAST: i64 = 946_684_800;
/// A lease that a test can wait for.
const LEASE_SECONDS: i64 = 3;
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
    // Without this file busybox assumes local time in the hardware clock, unlike other programs.
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

pub(crate) fn jumps(builder: Builder<'_>) -> Result<()> {
    let (mut vm, _disks) = boot(builder, &[("a", Content::Ext4)])?;
    // The limit of queries and that of programs, in the same proportion as ever.
    configure(&mut vm, "command-timeout=1\naudit-file=/mnt/a/audit.log\n")?;
    let limit = 4.0;
    let chpasswd = "#!/bin/sh\ntouch /run/asked\nexec sleep 1000\n";
    vm.sh(&format!("mkdir -p /usr/bin && printf '{chpasswd}' >/usr/bin/chpasswd && chmod +x /usr/bin/chpasswd"))?;
    let mut agent = answered(&vm)?;
    for (here, there) in [(PAST, FUTURE), (FUTURE, PAST)] {
        let running = agent.call(&program("sleep 3; echo done"), soon())?;
        set(&mut agent, Some(here * 1_000_000_000))?;
        let begun = uptime(&mut vm)?;
        let refusal = std::thread::scope(|scope| {
            let request = SetUserPassword { username: "root".into(), password: b"x".to_vec().into(), crypted: false };
            let agent = &mut agent;
            let asked = scope.spawn(move || agent.call(&request, soon()));
            vm.wait_until("rm /run/asked")?;
            jump(&mut vm, there)?;
            freeze::refusal(asked.join().expect("the host does not panic"))
        })?;
        ensure!(refusal.ends_with("timed out after 4 s"), "{refusal}");
        check_elapsed(&mut vm, begun, limit)?;
        let status = wait(&mut agent, running.pid)?;
        assert_eq!(
            (status.exitcode, status.out_data.map(|bytes| bytes.into_bytes().ok())),
            (Some(0), Some(Some(b"done\n".to_vec())))
        );

        let begun = uptime(&mut vm)?;
        assert_eq!(agent.call(&Freeze { lease: Some(LEASE_SECONDS) }, soon())?, 1);
        start_writer(&mut vm, "a")?;
        jump(&mut vm, here)?;
        vm.wait_until("rm /run/written/a")?;
        check_elapsed(&mut vm, begun, 3.0)?;
        let refusal = freeze::refusal(agent.call(&Thaw {}, soon()))?;
        ensure!(refusal.contains("its lease of 3 s ended"), "{refusal}");
    }
    vm.wait_until("tail -n 1 /mnt/a/audit.log | grep -q guest-fsfreeze-thaw")?;
    check_audit(&vm.sh("cat /mnt/a/audit.log")?)?;
    idle::wait_until_idle(&mut vm)?;
    let there_and_back = format!("for time in {FUTURE} {PAST}; do date -s @$time >/dev/null; sleep 2; done");
    idle::does_not_wake_up(&mut vm, &there_and_back, "the clock was set")
}

/// The audit goes on at the time that it has become, and tells how long things took, not how far the clock went.
fn check_audit(audit: &str) -> Result<()> {
    const LONGEST_MS: u64 = 600_000;
    let lines = audit.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let is_of = |line: &Value, year| line["time"].as_str().is_some_and(|time| time.starts_with(year));
    for command in
        ["guest-exec", "guest-set-time", "guest-set-user-password", "guest-fsfreeze-freeze", "guest-fsfreeze-thaw"]
    {
        let told = lines.iter().filter(|line| line["command"] == command);
        ensure!(told.clone().count() >= 2, "{command} is missing in {audit}");
        ensure!(told.clone().all(|line| line["duration-ms"].as_u64().is_some_and(|took| took < LONGEST_MS)), "{audit}");
    }
    ensure!(["2033", "2000"].iter().all(|year| lines.iter().any(|line| is_of(line, year))), "{audit}");
    Ok(())
}

fn program(line: &str) -> Exec {
    let arg = Some(vec!["-c".into(), line.into()]);
    let capture_output = Some(CaptureOutput::Separated);
    Exec { path: "/bin/sh".into(), arg, env: None, input_data: None, capture_output }
}

fn wait(agent: &mut Client<Recorded>, pid: i64) -> Result<ProgramStatus> {
    let deadline = soon();
    loop {
        let status = agent.call(&ExecStatus { pid }, deadline)?;
        if status.exited {
            return Ok(status);
        }
    }
}

fn jump(vm: &mut Vm, to: i64) -> Result<()> {
    vm.sh(&format!("date -s @{to}")).map(drop)
}

/// Seconds since the boot, which no setting of the clock changes.
fn uptime(vm: &mut Vm) -> Result<f64> {
    Ok(vm.sh("cut -d' ' -f1 /proc/uptime")?.parse()?)
}

fn check_elapsed(vm: &mut Vm, begun: f64, least: f64) -> Result<()> {
    let elapsed = uptime(vm)? - begun;
    ensure!(elapsed >= least, "a limit of {least} s had passed after {elapsed} s");
    Ok(())
}

fn is_set(vm: &mut Vm) -> Result<()> {
    let mut agent = answered(vm)?;
    // QEMU's hardware clock shows the host's time.
    jump(vm, PAST)?;
    set(&mut agent, None)?;
    let host = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    check_near(agent.call(&GetTime {}, soon())? / 1_000_000_000, host, "the clock follows the hardware clock")?;

    set(&mut agent, Some(FUTURE * 1_000_000_000 + 123_456_789))?;
    check_near(agent.call(&GetTime {}, soon())? / 1_000_000_000, FUTURE, "the clock is set")?;
    check_near(seconds(&vm.sh("cat /sys/class/rtc/rtc0/since_epoch")?)?, FUTURE, "the hardware clock is set")?;
    jump(vm, PAST)?;
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
