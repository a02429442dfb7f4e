//! File systems on file systems, and one that does not answer.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use qga::commands::{
    freeze::{Freeze, FreezeStatus, Thaw},
    session::Ping,
    system::GetHostName,
};
use vmtest::vm::{Builder, Vm};

use super::{
    Agent, Content, agent_pid, answered, boot, configure, frozen_among, guard::GUARDS, refusal, soon, start_writer,
    timed,
};

/// How long an answer is waited for that cannot come: by then everything else is frozen.
const FREEZING: Duration = Duration::from_secs(5);

/// The disk `outer` as an image on `base`, and the disk `inner` as one in that, with data that is not written back.
const LOOPS: &str = "\
set -e
holder=base
for name in outer inner; do
    disk=$(grep \" /mnt/$name \" /proc/mounts | cut -d' ' -f1)
    umount /mnt/$name
    cat $disk >/mnt/$holder/image
    mount -t ext4 -o loop /mnt/$holder/image /mnt/$name
    holder=$name
done";

/// Data that is not written back yet.
const DIRT: &str =
    "for name in base outer inner; do dd if=/dev/urandom of=/mnt/$name/data bs=64k count=16 2>/dev/null; done";

/// A RAID of the disk `leg`.
const RAID: &str = "\
set -e
leg=$(grep ' /mnt/leg ' /proc/mounts | cut -d' ' -f1)
umount /mnt/leg
echo md7 >/sys/module/md_mod/parameters/new_array
cd /sys/block/md7/md
echo none >metadata_version
echo raid1 >level
echo 1 >raid_disks
echo 16384 >component_size
cat /sys/block/${leg#/dev/}/dev >new_dev
echo 0 >dev-${leg#/dev/}/slot
echo active >array_state
mount -t ext4 /dev/md7 /mnt/leg
echo data >/mnt/leg/data";

pub(crate) fn top_first(builder: Builder<'_>) -> Result<()> {
    let contents = [
        ("leg", Content::Ext4),
        ("base", Content::Xfs),
        ("outer", Content::RoomyExt4),
        ("inner", Content::Ext4),
        ("plain", Content::Ext4),
    ];
    let (mut vm, _disks) = boot(builder, &contents)?;
    vm.sh(LOOPS)?;
    vm.sh(RAID)?;
    let mut names = vec!["leg", "base", "outer", "inner"];
    if map_plain(&mut vm, "plain")? {
        names.push("mapped");
    } else {
        names.push("plain");
    }
    let mut agent = answered(&vm)?;
    let count = i64::try_from(names.len())?;
    for _ in 0..3 {
        vm.sh(DIRT)?;
        assert_eq!(timed("freeze of images in images, md and dm", || agent.call(&Freeze::default(), soon()))?, count);
        assert_eq!(frozen_among(&mut vm, &names)?, names);
        assert_eq!(timed("thaw of them", || agent.call(&Thaw {}, soon()))?, count);
        assert_eq!(frozen_among(&mut vm, &names)?, [""; 0]);
    }
    vm.sh("sync")?;
    Ok(())
}

pub(crate) fn no_answer(builder: Builder<'_>) -> Result<()> {
    let (mut vm, _disks) = boot(builder, &[("plain", Content::Ext4), ("other", Content::Ext4)])?;
    if !map_plain(&mut vm, "plain")? {
        return Ok(());
    }
    configure(&mut vm, "fsfreeze-timeout=2\n")?;
    vm.sh("dd if=/dev/urandom of=/mnt/mapped/data bs=64k count=16 2>/dev/null")?;
    vm.sh("dmsetup suspend --noflush --nolockfs plain")?;
    let mut agent = answered(&vm)?;
    let error = refusal(timed("freeze with a device that does not answer", || agent.call(&Freeze::default(), soon())))?;
    assert_eq!(error, "failed to freeze /mnt/mapped: timed out after 2 s");
    let stuck = "/mnt/mapped: the kernel has not returned from freezing it for ";
    let error = refusal(agent.call(&FreezeStatus {}, soon()))?;
    ensure!(error.starts_with(stuck), "{error}");
    assert_eq!(frozen_among(&mut vm, &["other"])?, [""; 0]);
    agent.call(&Ping {}, soon())?;
    agent.call(&GetHostName {}, soon())?;
    let error = refusal(agent.call(&Freeze::default(), soon()))?;
    ensure!(error.starts_with(&format!("failed to freeze {stuck}")), "{error}");
    // It is thawed as soon as it answers, and is as good as ever.
    vm.sh("dmsetup resume plain")?;
    vm.wait_until("! grep -l qgad-guard /proc/[0-9]*/comm")?;
    vm.wait_until("echo data >/mnt/mapped/after && sync")?;
    assert_eq!(agent.call(&Freeze::default(), soon())?, 2);
    assert_eq!(agent.call(&Thaw {}, soon())?, 2);
    late_success(&mut vm, agent)
}

/// A freeze that the kernel finishes only after the agent was killed, once with its time limit over, once before.
fn late_success(vm: &mut Vm, mut agent: Agent) -> Result<()> {
    start_stuck_writer(vm)?;
    let error = refusal(agent.call(&Freeze::default(), soon()))?;
    assert_eq!(error, "failed to freeze /mnt/mapped: timed out after 2 s");
    agent.call(&GetHostName {}, soon())?;
    drop(agent);
    kill_while_freezing(vm)?;
    go_on(vm)?;

    // Frozen before the one that does not answer.
    let other = "disk=$(grep ' /mnt/other ' /proc/mounts | cut -d' ' -f1)";
    vm.sh(&format!("{other} && umount /mnt/other && mount -t ext4 $disk /mnt/other"))?;
    configure(vm, "fsfreeze-lease=0\n")?;
    start_stuck_writer(vm)?;
    let mut agent = answered(vm)?;
    let frozen = agent.call(&Freeze::default(), Instant::now() + FREEZING);
    ensure!(frozen.is_err(), "the device answers");
    drop(agent);
    start_writer(vm, "other")?;
    vm.wait_until("grep -q '^State:.D' /proc/$(cat /run/writer-other)/status")?;
    kill_while_freezing(vm)?;
    // What is frozen is thawed before the device answers.
    timed("from the agent's end to the thaw", || vm.wait_until("test -e /run/written/other"))?;
    go_on(vm)?;
    let mut agent = answered(vm)?;
    assert_eq!(agent.call(&Freeze::default(), soon())?, 2);
    assert_eq!(agent.call(&Thaw {}, soon())?, 2);
    Ok(())
}

/// Suspends the device while a writer is inside its file system, for which a freeze waits.
fn start_stuck_writer(vm: &mut Vm) -> Result<()> {
    vm.sh("rm -f /run/stuck.*; dd if=/dev/urandom of=/mnt/mapped/big bs=64k count=16 2>/dev/null; sync")?;
    vm.sh(
        "(sh -c 'exec 3<>/mnt/mapped/big; echo $$ >/run/stuck.pid; until [ -e /run/stuck.go ]; do sleep 0.1; done; \
         echo x >&3; touch /run/stuck.done' >/dev/null 2>&1 </dev/null &)",
    )?;
    vm.wait_until("test -s /run/stuck.pid")?;
    vm.sh("echo 3 >/proc/sys/vm/drop_caches; dmsetup suspend --noflush --nolockfs plain; touch /run/stuck.go")?;
    vm.wait_until("grep -q '^State:.D' /proc/$(cat /run/stuck.pid)/status")?;
    Ok(())
}

/// Kills the agent while its guard is in the kernel. It is replaced at once.
fn kill_while_freezing(vm: &mut Vm) -> Result<()> {
    let pid = agent_pid(vm)?;
    vm.wait_until(&format!("cat /proc/$({GUARDS})/task/*/status | grep -q '^State:.D'"))?;
    vm.sh(&format!("kill -KILL {pid}"))?;
    vm.wait_until(&format!("test \"$(cat /run/agent.pid)\" != {pid} && test ! -e /proc/{pid}"))?;
    vm.sh(&format!("{GUARDS} | grep ."))?;
    Ok(())
}

/// Lets the device answer: what is frozen late is thawed.
fn go_on(vm: &mut Vm) -> Result<()> {
    vm.sh("dmsetup resume plain")?;
    vm.wait_until("test -e /run/stuck.done")?;
    vm.wait_until(&format!("! {GUARDS} | grep ."))?;
    vm.sh("echo data >/mnt/mapped/after && sync")?;
    vm.wait_until("kill -0 $(cat /run/agent.pid)")?;
    Ok(())
}

pub(crate) fn second_host(builder: Builder<'_>) -> Result<()> {
    let agent = builder.agent_program().to_owned();
    let (mut vm, _disks) = boot(builder.without_agent(), &[("plain", Content::Ext4)])?;
    if !map_plain(&mut vm, "plain")? {
        return Ok(());
    }
    vm.sh("printf '[general]\nvsock-allow=1\n' >/run/vsock.conf")?;
    vm.sh(&format!("{agent} -c /run/vsock.conf -m vsock-listen -p 1:1024 -t /run >/run/agent.log 2>&1 &"))?;
    let ask = |vm: &mut Vm, command: &str| {
        vm.wait_until(&format!("echo '{{\"execute\": \"{command}\"}}' | /init vsock 1 1024 | grep ."))
    };
    assert_eq!(ask(&mut vm, "guest-fsfreeze-status")?, r#"{"return": "thawed"}"#);
    vm.sh("dd if=/dev/urandom of=/mnt/mapped/data bs=64k count=16 2>/dev/null")?;
    vm.sh("dmsetup suspend --noflush --nolockfs plain")?;
    let freeze = r#"echo '{"execute": "guest-fsfreeze-freeze"}' | /init vsock 1 1024 >/run/first 2>/dev/null"#;
    vm.sh(&format!("({freeze}) >/dev/null 2>&1 </dev/null &"))?;
    vm.wait_until("echo '{\"execute\": \"guest-get-host-name\"}' | /init vsock 1 1024 | grep 'in frozen state'")?;
    // It is not frozen yet, and a snapshot made now would not be consistent.
    assert_eq!(ask(&mut vm, "guest-fsfreeze-status")?, r#"{"return": "thawed"}"#);
    assert_eq!(ask(&mut vm, "guest-ping")?, r#"{"return": {}}"#);
    let thaw = ask(&mut vm, "guest-fsfreeze-thaw")?;
    ensure!(thaw.contains("failed to thaw /mnt/mapped: the kernel has not returned from freezing it for "), "{thaw}");
    let first = vm.wait_until("grep . /run/first")?;
    assert!(first.contains("failed to freeze /mnt/mapped: a thaw was asked for"), "{first}");
    vm.sh("dmsetup resume plain")?;
    vm.wait_until("! grep -l qgad-guard /proc/[0-9]*/comm")?;
    assert_eq!(ask(&mut vm, "guest-fsfreeze-freeze")?, r#"{"return": 1}"#);
    assert_eq!(ask(&mut vm, "guest-fsfreeze-status")?, r#"{"return": "frozen"}"#);
    assert_eq!(ask(&mut vm, "guest-fsfreeze-thaw")?, r#"{"return": 1}"#);
    Ok(())
}

/// Puts a mapped device on a disk, and mounts it at `/mnt/mapped` instead. Not where the host has no dmsetup.
pub(super) fn map_plain(vm: &mut Vm, id: &str) -> Result<bool> {
    if vm.sh("test -x /usr/sbin/dmsetup").is_err() {
        eprintln!("no mapped device is frozen: the host has no dmsetup");
        return Ok(false);
    }
    vm.sh(&format!(
        "set -e; disk=$(grep ' /mnt/{id} ' /proc/mounts | cut -d' ' -f1); umount /mnt/{id}; \
         size=$(cat /sys/block/${{disk#/dev/}}/size); \
         dmsetup create --noudevsync --noudevrules {id} --table \"0 $size linear $disk 0\"; \
         mkdir -p /mnt/mapped; mount -t ext4 /dev/dm-0 /mnt/mapped"
    ))?;
    Ok(true)
}

/// Makes everything on the mapped device fail that is asked of it.
pub(super) fn fail_mapped(vm: &mut Vm, id: &str) -> Result<()> {
    vm.sh(&format!(
        "set -e; echo data >/mnt/mapped/data; size=$(cat /sys/block/dm-0/size); dmsetup suspend --nolockfs {id}; \
         dmsetup reload {id} --table \"0 $size error\"; dmsetup resume --noudevsync {id}; echo data >/mnt/mapped/more"
    ))?;
    Ok(())
}
