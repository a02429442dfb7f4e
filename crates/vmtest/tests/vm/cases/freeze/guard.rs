//! The guard of a freeze: take-over, grace, lease, and its own end.

use anyhow::Result;
use qga::commands::{
    freeze::{Freeze, FreezeState, FreezeStatus, Thaw},
    system::GetHostName,
};
use vmtest::vm::{Builder, Vm};

use super::{
    Content, agent_pid, answered, boot, check_frozen, configure, frozen_among, refusal, soon, start_writer, timed,
};

pub(super) const GUARDS: &str = "grep -l qgad-guard /proc/[0-9]*/comm | cut -d/ -f3";

pub(crate) fn taken_over(builder: Builder<'_>) -> Result<()> {
    let program = builder.agent_program().to_owned();
    let (mut vm, _disks) = boot(builder, &[("a", Content::Ext4), ("b", Content::Xfs)])?;
    // A file that an agent that starts frozen cannot even open.
    configure(&mut vm, "logfile=/mnt/a/agent.log\nverbose=true\n")?;
    for signal in ["KILL", "TERM", "INT"] {
        let mut agent = answered(&vm)?;
        assert_eq!(agent.call(&Freeze::default(), soon())?, 2);
        drop(agent);
        let guard = vm.sh(GUARDS)?;
        let pid = agent_pid(&mut vm)?;
        vm.sh(&format!("kill -{signal} {pid}"))?;
        vm.wait_until(&format!("test \"$(cat /run/agent.pid)\" != {pid}"))?;
        let mut agent = answered(&vm)?;
        assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Frozen, "{signal}");
        let error = refusal(agent.call(&GetHostName {}, soon()))?;
        check_frozen("guest-get-host-name", &error)?;
        assert_eq!(frozen_among(&mut vm, &["a", "b"])?, ["a", "b"]);
        assert_eq!(vm.sh(GUARDS)?, guard, "it is the same guard");
        assert_eq!(agent.call(&Thaw {}, soon())?, 2);
        assert_eq!(frozen_among(&mut vm, &["a", "b"])?, [""; 0]);
        vm.wait_until(&format!("! {GUARDS} | grep ."))?;
        vm.wait_until("grep 'file systems are frozen since an earlier agent' /mnt/a/agent.log && rm /mnt/a/agent.log")?;
        let pid = agent_pid(&mut vm)?;
        vm.sh(&format!("kill {pid}"))?;
        vm.wait_until(&format!("test \"$(cat /run/agent.pid)\" != {pid} && test -e /mnt/a/agent.log"))?;
    }
    // Killed with its guard, as a whole service may be: a new guard takes its place.
    answered(&vm)?.call(&Freeze::default(), soon())?;
    let (pid, guard) = (agent_pid(&mut vm)?, vm.sh(GUARDS)?);
    vm.sh(&format!("kill -KILL {pid} {guard}"))?;
    vm.wait_until(&format!("test \"$(cat /run/agent.pid)\" != {pid}"))?;
    let mut agent = answered(&vm)?;
    assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Frozen);
    vm.wait_until(&format!("test ! -e /proc/{guard} && {GUARDS} | grep ."))?;
    assert_eq!(agent.call(&Thaw {}, soon())?, 2);
    daemon(&mut vm, &program)
}

/// A daemon that finds a freeze has its memory locked, too, after it left the foreground.
fn daemon(vm: &mut Vm, program: &str) -> Result<()> {
    vm.wait_until(&format!("! {GUARDS} | grep ."))?;
    vm.sh("mkdir /run/second && touch /run/second/qga.state.isfrozen")?;
    vm.sh(&format!("{program} -d -m unix-listen -p /run/second/socket -t /run/second -f /run/second/pid"))?;
    let pid = vm.sh("grep -l '[/]run/second/socket' /proc/[0-9]*/cmdline | cut -d/ -f3")?;
    vm.wait_until(&format!("grep '^VmLck:.*[1-9]' /proc/{pid}/status"))?;
    vm.wait_until(&format!("kill -TERM $({GUARDS}); ! ls /run/second/qga.state.isfrozen"))?;
    vm.sh(&format!("kill {pid}"))?;
    Ok(())
}

pub(crate) fn abandoned(builder: Builder<'_>) -> Result<()> {
    let (mut vm, _disks) = boot(builder, &[("a", Content::Ext4)])?;
    hook_that_logs(&mut vm)?;
    answered(&vm)?.call(&Freeze::default(), soon())?;
    start_writer(&mut vm, "a")?;
    vm.sh("touch /run/agent.stopped")?;
    let pid = agent_pid(&mut vm)?;
    vm.sh(&format!("kill -KILL {pid}"))?;
    timed("from the agent's end to the thaw", || vm.wait_until("test -e /run/written/a"))?;
    vm.wait_until("! ls /run/qga.state.isfrozen")?;
    vm.wait_until("[ \"$(cat /run/hook.log)\" = \"freeze\nthaw\" ]")?;
    vm.sh("rm /run/agent.stopped")?;
    vm.wait_until("test -s /run/agent.pid")?;
    let mut agent = answered(&vm)?;
    assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Thawed);
    assert_eq!(
        refusal(agent.call(&Thaw {}, soon()))?,
        "the freeze ended by itself because there was no agent for 30 s: what was copied since then may be inconsistent"
    );
    assert_eq!(agent.call(&Thaw {}, soon())?, 0);
    Ok(())
}

pub(crate) fn lease(builder: Builder<'_>) -> Result<()> {
    let (mut vm, _disks) = boot(builder, &[("a", Content::Ext4)])?;
    hook_that_logs(&mut vm)?;
    let mut agent = answered(&vm)?;
    for lease in [0, -1, 86_401] {
        let error = refusal(agent.call(&Freeze { lease: Some(lease) }, soon()))?;
        assert_eq!(error, "Parameter 'lease' must be a number from 1 to 86400");
    }
    assert_eq!(agent.call(&Freeze { lease: Some(3) }, soon())?, 1);
    start_writer(&mut vm, "a")?;
    timed("from freeze to the end of a lease of 3 s", || vm.wait_until("test -e /run/written/a"))?;
    vm.wait_until("[ \"$(cat /run/hook.log)\" = \"freeze\nthaw\" ]")?;
    vm.wait_until("! ls /run/qga.state.isfrozen")?;
    agent.call(&GetHostName {}, soon())?;
    assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Thawed);
    assert_eq!(
        refusal(agent.call(&Thaw {}, soon()))?,
        "the freeze ended by itself because its lease of 3 s ended: what was copied since then may be inconsistent"
    );
    assert_eq!(agent.call(&Thaw {}, soon())?, 0);
    // The next one is not doubtful.
    assert_eq!(agent.call(&Freeze::default(), soon())?, 1);
    assert_eq!(agent.call(&Thaw {}, soon())?, 1);
    Ok(())
}

pub(crate) fn killed(builder: Builder<'_>) -> Result<()> {
    let (mut vm, _disks) = boot(builder.agent_arguments(&["--statedir", "/tmp"]), &[("a", Content::Ext4)])?;
    // The state directory is where nothing can be written while it is frozen.
    vm.sh("mount -o bind /mnt/a /tmp")?;
    configure(&mut vm, "")?;
    let mut agent = answered(&vm)?;
    agent.call(&Freeze::default(), soon())?;
    let guard = vm.sh(GUARDS)?;
    // It needs no disk: all it has is in memory.
    let kib = |field: &str| format!("grep ^{field}: /proc/{guard}/status | grep -o '[0-9]*'");
    assert_ne!(vm.sh(&kib("VmLck"))?, "0");
    assert_eq!(vm.sh(&kib("VmSwap"))?, "0");
    assert_eq!(vm.sh(&format!("cat /proc/{guard}/oom_score_adj"))?, "-1000");
    vm.sh(&format!("kill -KILL {guard}"))?;
    vm.wait_until(&format!("test ! -e /proc/{guard} && {GUARDS} | grep ."))?;
    assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Frozen);
    assert_eq!(frozen_among(&mut vm, &["a"])?, ["a"]);
    vm.sh("ls /mnt/a/qga.state.isfrozen")?;
    // A system that ends the guard, such as at a shutdown, needs the guest thawed.
    vm.sh(&format!("kill -TERM $({GUARDS})"))?;
    vm.wait_until("! ls /mnt/a/qga.state.isfrozen")?;
    assert_eq!(frozen_among(&mut vm, &["a"])?, [""; 0]);
    assert_eq!(
        refusal(agent.call(&Thaw {}, soon()))?,
        "the freeze ended by itself because its guard was told to end by signal 15: what was copied since then may be \
         inconsistent"
    );
    // Killed with its agent: hosts are answered although no socket can be created for a next agent. The freeze ends
    // with this one.
    agent.call(&Freeze::default(), soon())?;
    drop(agent);
    let (pid, guard) = (agent_pid(&mut vm)?, vm.sh(GUARDS)?);
    vm.sh(&format!("kill -KILL {pid} {guard}"))?;
    vm.wait_until(&format!("test \"$(cat /run/agent.pid)\" != {pid}"))?;
    let mut agent = answered(&vm)?;
    assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Frozen);
    vm.wait_until(&format!("{GUARDS} | grep ."))?;
    assert_eq!(frozen_among(&mut vm, &["a"])?, ["a"]);
    drop(agent);
    let pid = agent_pid(&mut vm)?;
    vm.sh(&format!("touch /run/agent.stopped; kill -KILL {pid}"))?;
    vm.wait_until("! ls /mnt/a/qga.state.isfrozen")?;
    vm.sh("rm /run/agent.stopped")?;
    vm.wait_until(&format!("grep . /run/agent.pid && test \"$(cat /run/agent.pid)\" != {pid}"))?;
    let error = refusal(answered(&vm)?.call(&Thaw {}, soon()))?;
    assert!(error.starts_with("the freeze ended by itself because the agent ended"), "{error}");
    Ok(())
}

/// Neither a guard nor an agent that somebody stops keeps the guest frozen.
pub(crate) fn stopped(builder: Builder<'_>) -> Result<()> {
    let (mut vm, _disks) = boot(builder, &[("a", Content::Ext4)])?;
    hook_that_logs(&mut vm)?;
    let mut agent = answered(&vm)?;
    assert_eq!(agent.call(&Freeze::default(), soon())?, 1);
    let guard = vm.sh(GUARDS)?;
    vm.sh(&format!("kill -STOP {guard}"))?;
    assert_eq!(timed("thaw with a stopped guard", || agent.call(&Thaw {}, soon()))?, 1);
    assert_eq!(frozen_among(&mut vm, &["a"])?, [""; 0]);
    vm.sh(&format!("kill -CONT {guard}"))?;
    vm.wait_until(&format!("! {GUARDS} | grep ."))?;
    assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Thawed);
    vm.sh("! ls /run/qga.state.guard*; rm /run/hook.log")?;

    assert_eq!(agent.call(&Freeze { lease: Some(2) }, soon())?, 1);
    let pid = agent_pid(&mut vm)?;
    vm.sh(&format!("kill -STOP {pid}"))?;
    start_writer(&mut vm, "a")?;
    vm.wait_until("test -e /run/written/a")?;
    vm.wait_until("[ \"$(cat /run/hook.log)\" = \"freeze\nthaw\" ]")?;
    vm.sh(&format!("kill -CONT {pid}"))?;
    vm.wait_until(&format!("! {GUARDS} | grep ."))?;
    assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Thawed);
    agent.call(&GetHostName {}, soon())?;
    // The guard has run it for the agent.
    assert_eq!(vm.sh("cat /run/hook.log")?, "freeze\nthaw");
    let error = refusal(agent.call(&Thaw {}, soon()))?;
    assert!(error.starts_with("the freeze ended by itself because its lease of 2 s ended"), "{error}");
    Ok(())
}

pub(crate) fn powers_off(builder: Builder<'_>) -> Result<()> {
    let (mut vm, _disks) = boot(builder, &[("a", Content::Ext4)])?;
    answered(&vm)?.call(&Freeze::default(), soon())?;
    start_writer(&mut vm, "a")?;
    // What every init does: ask all processes to end, kill those that have not, write back, unmount, switch off.
    vm.sh("(setsid sh -c 'for signal in TERM KILL; do for pid in $(ls /proc | grep ^[0-9]); do \
         case $(cat /proc/$pid/comm) in qgad*|sh) [ $pid = $$ ] || kill -$signal $pid ;; esac; done; sleep 1; done; \
         sync; umount /mnt/a; sync; busybox poweroff -f' >/dev/null 2>&1 </dev/null &)")
        .or_else(|error| if error.to_string().contains("status") { Err(error) } else { Ok(String::new()) })?;
    timed("poweroff while frozen", || vm.qmp.wait_event("SHUTDOWN", soon()))?;
    Ok(())
}

/// A hook that writes down what it was called with, once it is not protected from the search for memory, as guards are.
fn hook_that_logs(vm: &mut Vm) -> Result<()> {
    let script = "#!/bin/sh\nuntil [ $(cat /proc/$$/oom_score_adj) = 0 ]; do :; done\necho $1 >>/run/hook.log\n";
    vm.sh(&format!("mkdir -p /etc/qemu && printf '{script}' >/etc/qemu/hook && chmod 755 /etc/qemu/hook"))?;
    configure(vm, "fsfreeze-hook=/etc/qemu/hook\n")
}
