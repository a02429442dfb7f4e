//! A freeze from which the kernel does not return, because of a user's FUSE file system.

use std::{thread, time::Instant};

use anyhow::{Result, ensure};
use qga::commands::{
    freeze::{Freeze, FreezeList, FreezeState, FreezeStatus, Thaw},
    system::GetHostName,
};
use vmtest::vm::{Builder, Vm};

use super::{
    Agent, Content, agent_pid, answered, boot, configure, frozen_among, guard::GUARDS, refusal, soon, start_writer,
    timed,
};

const ABORT: &str = "echo 1 | tee /sys/fs/fuse/connections/*/abort";

pub(crate) fn by_a_user(builder: Builder<'_>) -> Result<()> {
    let (mut vm, _disks) = boot(builder, &[("data", Content::Ext4), ("other", Content::Ext4)])?;
    configure(&mut vm, "fsfreeze-timeout=2\nlogfile=/mnt/other/agent.log\n")?;
    vm.sh("mount -t fusectl none /sys/fs/fuse/connections; chmod 777 /mnt/data; mkdir -m 777 /run/fuse")?;
    start_write_that_waits(&mut vm)?;
    let mut agent = answered(&vm)?;
    let error = refusal(timed("freeze with a stuck write", || agent.call(&Freeze::default(), soon())))?;
    assert_eq!(error, "failed to freeze /mnt/data: timed out after 2 s");
    check_stuck(&mut agent)?;
    agent.call(&GetHostName {}, soon())?;
    // The log is on a file system that answers.
    vm.wait_until("grep 'failed to thaw /mnt/data: the kernel has not returned from' /mnt/other/agent.log")?;

    // What is not stuck can be frozen, and is thawed.
    let other = FreezeList { mountpoints: Some(vec!["/mnt/other".into()]), lease: None };
    assert_eq!(agent.call(&other, soon())?, 1);
    assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Frozen);
    assert_eq!(frozen_among(&mut vm, &["other"])?, ["other"]);
    check_described("failed to thaw ", &refusal(agent.call(&Thaw {}, soon()))?)?;
    assert_eq!(frozen_among(&mut vm, &["other"])?, [""; 0]);

    // The agent can be killed, and the next one knows as much.
    let guard = vm.sh(GUARDS)?;
    for signal in ["KILL", "TERM"] {
        drop(agent);
        let pid = agent_pid(&mut vm)?;
        vm.sh(&format!("kill -{signal} {pid}"))?;
        timed("a new agent", || {
            vm.wait_until(&format!("test \"$(cat /run/agent.pid)\" != {pid} && ! ls /proc/{pid}"))
        })?;
        agent = answered(&vm)?;
        check_stuck(&mut agent)?;
        assert_eq!(vm.sh(GUARDS)?, guard);
    }

    start_writer(&mut vm, "data")?;
    vm.sh(ABORT)?;
    check_released(&mut vm, &mut agent)?;
    vm.wait_until("test -e /run/written/data; grep '/mnt/data was stuck for .* and is thawed' /mnt/other/agent.log")?;

    // A guard that is killed while it waits would leave frozen what the kernel froze late.
    start_write_that_waits(&mut vm)?;
    refusal(agent.call(&Freeze::default(), soon()))?;
    vm.sh(&format!("kill -KILL $({GUARDS})"))?;
    check_stuck(&mut agent)?;
    vm.sh(ABORT)?;
    check_released(&mut vm, &mut agent)?;

    // So would one that is killed before the agent has given up.
    start_write_that_waits(&mut vm)?;
    let frozen = thread::scope(|scope| {
        let freeze = scope.spawn(|| agent.call(&Freeze::default(), soon()));
        let is_stuck = format!("cat /proc/$({GUARDS})/task/*/status | grep -q '^State:.D'");
        let killed = vm.wait_until(&is_stuck).and_then(|_| vm.sh(&format!("kill -KILL $({GUARDS})")));
        killed.map(|_| freeze.join().expect("the call returns"))
    })?;
    assert_eq!(refusal(frozen)?, "failed to freeze /mnt/data: timed out after 2 s");
    check_stuck(&mut agent)?;
    vm.sh(ABORT)?;
    check_released(&mut vm, &mut agent)
}

fn start_write_that_waits(vm: &mut Vm) -> Result<()> {
    vm.sh("umount /run/fuse 2>/dev/null; \
           (/init write-from-fuse /run/fuse /mnt/data/user >/run/fuse.log 2>&1 </dev/null &)")?;
    vm.wait_until("grep -v '^0' /sys/fs/fuse/connections/*/waiting")?;
    Ok(())
}

/// The status, each thaw and each freeze of all say at once what is stuck.
fn check_stuck(agent: &mut Agent) -> Result<()> {
    check_described("", &refusal(agent.call(&FreezeStatus {}, soon()))?)?;
    check_described("failed to thaw ", &refusal(agent.call(&Thaw {}, soon()))?)?;
    check_described("failed to freeze ", &refusal(agent.call(&Freeze::default(), soon()))?)
}

fn check_described(doing: &str, error: &str) -> Result<()> {
    let expected = format!("{doing}/mnt/data: the kernel has not returned from freezing it for ");
    let way_out = " s; if that waits for a FUSE file system, write 1 to /sys/fs/fuse/connections/";
    ensure!(error.starts_with(&expected) && error.contains(way_out) && error.ends_with("/abort"), "{error}");
    Ok(())
}

/// Everything is thawed, and as good as ever.
fn check_released(vm: &mut Vm, agent: &mut Agent) -> Result<()> {
    let end = soon();
    while agent.call(&FreezeStatus {}, soon()).is_err() {
        ensure!(Instant::now() < end, "the status still names what was stuck");
    }
    vm.wait_until(&format!("! {GUARDS} | grep ."))?;
    assert_eq!(frozen_among(vm, &["data", "other"])?, [""; 0]);
    assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Thawed);
    assert_eq!(agent.call(&Thaw {}, soon())?, 0);
    assert_eq!(agent.call(&Freeze::default(), soon())?, 2);
    assert_eq!(agent.call(&Thaw {}, soon())?, 2);
    vm.sh("! ls /run/qga.state.guard*")?;
    Ok(())
}
