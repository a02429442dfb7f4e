//! Freezes, checked with writers in the guest and copies on the host.
//!
//! The output of a test shows how long answers took; no test depends on that.

pub(super) mod audit;
pub(super) mod guard;
pub(super) mod hooks;
pub(super) mod stacks;
pub(super) mod stuck;
pub(super) mod targets;
pub(super) mod two_agents;

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use qga::{
    client::{Client, Error},
    commands::{
        freeze::{Freeze, FreezeList, FreezeState, FreezeStatus, Thaw},
        session::{Info, Ping},
        system::GetHostName,
    },
};
use serde_json::json;
use sha2::{Digest, Sha256};
use vmtest::{
    transcript::Recorded,
    vm::{Builder, Vm},
};

use super::{
    agent_pid, answered, reference, soon,
    storage::disks::{Content, Disks},
};

/// The commands of the protocol that are served while file systems are frozen.
const SERVED_WHILE_FROZEN: [&str; 6] =
    ["guest-fsfreeze-freeze", "guest-fsfreeze-status", "guest-fsfreeze-thaw", "guest-info", "guest-ping", "guest-sync"];

type Agent = Client<Recorded>;

pub(crate) fn every_type(builder: Builder<'_>) -> Result<()> {
    let contents = [("ext4", Content::Ext4), ("xfs", Content::Xfs), ("btrfs", Content::Btrfs)];
    let reference = builder.reference_program().map(ToOwned::to_owned);
    let (mut vm, disks) = boot(builder, &contents)?;
    vm.sh("mkdir /mnt/more && busybox mount -t btrfs $(grep ' /mnt/btrfs ' /proc/mounts | cut -d' ' -f1) /mnt/more")?;
    configure(&mut vm, "logfile=/mnt/ext4/agent.log\nverbose=true\n")?;
    let mut agent = answered(&vm)?;
    assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Thawed);
    assert_eq!(timed("freeze of ext4, xfs and btrfs", || agent.call(&Freeze::default(), soon()))?, 3);
    assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Frozen);
    let writers = ["ext4", "xfs", "btrfs", "more"];
    for writer in writers {
        start_writer(&mut vm, writer)?;
    }
    check_refusals(&mut agent)?;
    let is_written = |vm: &mut Vm| vm.sh("ls /run/written 2>/dev/null | wc -l");
    let before = hashes(&disks, &["ext4", "xfs", "btrfs"])?;
    for _ in 0..50 {
        agent.call(&Ping {}, soon())?;
    }
    // Writers wait in the kernel, and nothing was written, not even to the log.
    for writer in writers {
        vm.wait_until(&format!("grep -q '^State:.D' /proc/$(cat /run/writer-{writer})/status"))?;
    }
    assert_eq!(is_written(&mut vm)?, "0");
    assert_eq!(hashes(&disks, &["ext4", "xfs", "btrfs"])?, before);
    assert_eq!(vm.sh("grep -l qgad-guard /proc/[0-9]*/comm | wc -l")?, "1");
    assert_eq!(timed("thaw of ext4, xfs and btrfs", || agent.call(&Thaw {}, soon()))?, 3);
    vm.wait_until("[ $(ls /run/written | wc -l) = 4 ]")?;
    vm.wait_until("! grep -l qgad-guard /proc/[0-9]*/comm")?;
    vm.sh("! ls /run/qga.state.isfrozen /run/qga.state.guard")?;
    assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Thawed);
    // What was logged during the freeze is in the file now.
    let pings: u64 = vm.sh("grep -c 'guest-ping called' /mnt/ext4/agent.log")?.parse()?;
    assert!(pings >= 50, "{pings}");
    // Libvirt's and Proxmox's habits: a thaw too many is no error, nor is a freeze of nothing.
    assert_eq!(agent.call(&Thaw {}, soon())?, 0);
    if let Some(reference) = reference {
        compare_with_reference(&mut vm, &mut agent, &reference)?;
    }
    Ok(())
}

/// Both count alike, and each thaws what the other froze.
fn compare_with_reference(vm: &mut Vm, agent: &mut Agent, program: &str) -> Result<()> {
    // It would log to a frozen file, too, and wait forever, because it is not the one that froze it.
    vm.sh("rm /etc/qemu/qemu-ga.conf")?;
    reference::start(vm, program)?;
    let nothing = json!({});
    let named = json!({"mountpoints": ["/mnt/xfs", "/nowhere"]});
    for (command, arguments) in [("guest-fsfreeze-freeze", &nothing), ("guest-fsfreeze-freeze-list", &named)] {
        let theirs = reference::ask(vm, command, arguments)?;
        assert_eq!(reference::ask(vm, "guest-fsfreeze-status", &nothing)?, "frozen");
        assert_eq!(reference::ask(vm, "guest-fsfreeze-thaw", &nothing)?, theirs);
        let members = arguments.as_object().context("arguments are an object")?;
        let ours: serde_json::Value = agent.call_as(command, members, soon())?;
        assert_eq!(ours, theirs, "{command}");
        assert_eq!(reference::ask(vm, "guest-fsfreeze-thaw", &nothing)?, theirs);
        // Another agent thawed it, which is not the end of the freeze for ours.
        assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Frozen);
        assert_eq!(agent.call(&Thaw {}, soon())?, 0);
    }
    Ok(())
}

pub(crate) fn consistent_copy(builder: Builder<'_>) -> Result<()> {
    let (mut vm, disks) = boot(builder, &[("data", Content::Ext4)])?;
    let script =
        "i=0; while [ ! -e /run/enough ]; do i=$((i + 1)); echo $i >>/mnt/data/numbers; done; echo $i >/run/last";
    vm.sh(&format!("({script}) >/dev/null 2>&1 </dev/null &"))?;
    vm.wait_until("[ $(wc -l </mnt/data/numbers) -gt 50 ]")?;
    let mut agent = answered(&vm)?;
    assert_eq!(agent.call(&Freeze::default(), soon())?, 1);
    let copy = vm.folder().join("copy");
    fs::copy(disks.file("data"), &copy)?;
    let frozen_at = vm.sh("wc -l </mnt/data/numbers")?;
    assert_eq!(agent.call(&Thaw {}, soon())?, 1);
    vm.wait_until(&format!("[ $(wc -l </mnt/data/numbers) -gt {frozen_at} ]"))?;
    vm.sh("touch /run/enough")?;
    vm.wait_until("test -s /run/last")?;
    assert_eq!(vm.sh("seq $(cat /run/last) | cmp - /mnt/data/numbers && echo same")?, "same");

    let check = Command::new("/sbin/e2fsck").args(["-f", "-n"]).arg(&copy).output().context("e2fsck")?;
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    ensure!(check.status.success() && !said.contains("recovery"), "{said}");
    let shown = Command::new("/sbin/debugfs").args(["-R", "cat /numbers"]).arg(&copy).output().context("debugfs")?;
    let numbers = String::from_utf8(shown.stdout)?;
    let count: usize = frozen_at.parse()?;
    assert!(numbers.lines().eq((1..=count).map(|number| number.to_string())), "{} of {count}", numbers.lines().count());
    fs::remove_file(copy)?;
    Ok(())
}

pub(crate) fn named(builder: Builder<'_>) -> Result<()> {
    const IDS: [&str; 10] = ["d0", "d1", "d2", "d3", "d4", "d5", "d6", "d7", "d8", "d9"];
    let (mut vm, _disks) = boot(builder, &IDS.map(|id| (id, Content::Ext4)))?;
    vm.sh("mkdir /mnt/d0/inner /mnt/bound && mount -o bind /mnt/d0/inner /mnt/bound && ln -s d7 /mnt/link")?;
    let mut agent = answered(&vm)?;
    assert_eq!(timed("freeze of ten ext4", || agent.call(&Freeze::default(), soon()))?, 10);
    assert_eq!(timed("thaw of ten ext4", || agent.call(&Thaw {}, soon()))?, 10);

    let mut check = |mount_points: &[&str], frozen: &[&str]| -> Result<()> {
        let mountpoints = Some(mount_points.iter().map(ToString::to_string).collect());
        let count = agent.call(&FreezeList { mountpoints, lease: None }, soon())?;
        assert_eq!(count, i64::try_from(frozen.len())?, "{mount_points:?}");
        let state = if frozen.is_empty() { FreezeState::Thawed } else { FreezeState::Frozen };
        assert_eq!(agent.call(&FreezeStatus {}, soon())?, state);
        assert_eq!(frozen_among(&mut vm, &IDS)?, frozen, "{mount_points:?}");
        if frozen.is_empty() {
            agent.call(&GetHostName {}, soon())?;
        }
        assert_eq!(agent.call(&Thaw {}, soon())?, count);
        Ok(())
    };
    check(&["/mnt/d3"], &["d3"])?;
    check(&["/mnt/d3", "/mnt/d5", "/mnt/d3"], &["d3", "d5"])?;
    check(&["/mnt/bound"], &["d0"])?;
    check(&["/mnt/d3", "/mnt", "/nowhere"], &["d3"])?;
    check(&["/mnt/d3/", "//mnt/d4", "/mnt/d5/.", "/mnt/./d6//"], &["d3", "d4", "d5", "d6"])?;
    check(&["/mnt/link"], &["d7"])?;
    check(&["/mnt/link/../d8", "/mnt/link/"], &["d7", "d8"])?;
    check(&["/nowhere", "/mnt/d0/inner", "", "mnt/d1"], &[])?;
    check(&[], &[])?;
    assert_eq!(agent.call(&FreezeList::default(), soon())?, 10);
    assert_eq!(agent.call(&Thaw {}, soon())?, 10);
    vm.wait_console("no file system that can be frozen is mounted at \"/nowhere\"")?;
    Ok(())
}

pub(crate) fn left_out(builder: Builder<'_>) -> Result<()> {
    let (mut vm, _disks) = boot(builder, &[("a", Content::Ext4), ("b", Content::Ext4), ("c", Content::Xfs)])?;
    // What is hidden, read only or a single file is no trouble.
    vm.sh("mount -t tmpfs none /mnt/b")?;
    vm.sh("echo x >/mnt/a/file && touch /run/file && mount -o bind /mnt/a/file /run/file")?;
    vm.sh("umount /mnt/a && mount -t xfs -o remount,ro /mnt/c")?;
    let mut agent = answered(&vm)?;
    assert_eq!(agent.call(&Freeze::default(), soon())?, 3);
    assert_eq!(agent.call(&Thaw {}, soon())?, 3);
    drop(agent);
    configure(&mut vm, "fsfreeze-exclude=/run/*;btrfs;/mnt/b\n")?;
    let mut agent = answered(&vm)?;
    assert_eq!(agent.call(&Freeze::default(), soon())?, 1);
    vm.sh("echo y >/run/file")?;
    assert_eq!(agent.call(&Thaw {}, soon())?, 1);
    let excluded = FreezeList { mountpoints: Some(vec!["/mnt/b".into()]), lease: None };
    assert_eq!(agent.call(&excluded, soon())?, 0);
    Ok(())
}

pub(crate) fn disturbed(builder: Builder<'_>) -> Result<()> {
    let (mut vm, disks) = boot(builder, &[("a", Content::Ext4), ("b", Content::Ext4)])?;
    let mut agent = answered(&vm)?;
    vm.sh("fsfreeze --freeze /mnt/b")?;
    assert_eq!(agent.call(&Freeze::default(), soon())?, 1);
    assert_eq!(frozen_among(&mut vm, &["a", "b"])?, ["a", "b"]);
    // Another freeze's work is undone by a thaw, as hosts expect.
    assert_eq!(agent.call(&Thaw {}, soon())?, 2);
    vm.sh("echo x >/mnt/b/file")?;

    // The guard keeps what is frozen from being unmounted for good.
    assert_eq!(agent.call(&Freeze::default(), soon())?, 2);
    vm.sh("! umount /mnt/a")?;
    vm.sh("umount -l /mnt/a")?;
    // A disk that is plugged in during the freeze.
    let file = disks.file("late");
    fs::File::create(&file)?.set_len(16 << 20)?;
    let node = json!({"driver": "raw", "node-name": "late", "file": {"driver": "file", "filename": file}});
    vm.qmp.execute("blockdev-add", &node)?;
    vm.plug(&json!({"driver": "virtio-blk-pci", "id": "late", "drive": "late"}))?;
    vm.wait_until("grep vdc /proc/partitions")?;
    assert_eq!(agent.call(&Thaw {}, soon())?, 2);
    vm.wait_until("mount -t ext4 /dev/vda /mnt/a && echo x >/mnt/a/file")?;
    assert_eq!(agent.call(&Freeze::default(), soon())?, 2);
    assert_eq!(agent.call(&Thaw {}, soon())?, 2);
    Ok(())
}

/// A VM with disks that are mounted at `/mnt` and their name.
pub(super) fn boot(builder: Builder<'_>, contents: &[(&'static str, Content)]) -> Result<(Vm, Disks)> {
    let mut disks = Disks::new("pc")?;
    for (id, content) in contents {
        disks.add_virtio(id, *content)?;
    }
    let arguments = disks.qemu_arguments();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let mut vm = builder.qemu_arguments(&arguments).boot()?;
    vm.load_disk_modules()?;
    disks.mount_all(&mut vm)?;
    Ok((vm, disks))
}

/// Restarts the agent with a configuration.
pub(super) fn configure(vm: &mut Vm, general: &str) -> Result<()> {
    let pid = agent_pid(vm)?;
    vm.sh(&format!("mkdir -p /etc/qemu; printf '[general]\n{general}' >/etc/qemu/qemu-ga.conf; kill {pid}"))?;
    vm.wait_until(&format!("test \"$(cat /run/agent.pid)\" != {pid}"))?;
    Ok(())
}

/// A writer that leaves `/run/written/NAME` once it has written.
pub(super) fn start_writer(vm: &mut Vm, name: &str) -> Result<()> {
    vm.sh(&format!(
        "mkdir -p /run/written; sh -c 'echo $$ >/run/writer-{name}; echo data >/mnt/{name}/written; \
         touch /run/written/{name}' >/dev/null 2>&1 </dev/null &"
    ))?;
    vm.wait_until(&format!("test -s /run/writer-{name}"))?;
    Ok(())
}

/// Which of these file systems keep writers waiting: a freeze of one's own is refused as `busy`.
fn frozen_among(vm: &mut Vm, ids: &[&str]) -> Result<Vec<String>> {
    let script = format!(
        "for id in {}; do if fsfreeze --freeze /mnt/$id 2>/dev/null; then \
         fsfreeze --unfreeze /mnt/$id; else echo $id; fi; done",
        ids.join(" ")
    );
    Ok(vm.sh(&script)?.lines().map(ToOwned::to_owned).collect())
}

/// The commands of a frozen agent, with its own ones on jobs and figures, and the words for all others.
fn check_refusals(agent: &mut Agent) -> Result<()> {
    let info = agent.call(&Info {}, soon())?;
    let mut enabled: Vec<_> =
        info.supported_commands.iter().filter(|one| one.enabled).map(|one| one.name.as_str()).collect();
    enabled.sort_unstable();
    let (enabled, own): (Vec<&str>, Vec<&str>) = enabled.into_iter().partition(|name| name.starts_with("guest-"));
    let expected: Vec<_> = SERVED_WHILE_FROZEN[1..].iter().copied().chain(["guest-sync-delimited"]).collect();
    assert_eq!(enabled, expected);
    let is_served = |name: &&str| own.contains(name);
    assert!(["qgad-get-metrics", "qgad-job-read"].iter().all(is_served) && !is_served(&"qgad-job-start"), "{own:?}");
    check_frozen("guest-get-host-name", &refusal(agent.call(&GetHostName {}, soon()))?)?;
    check_frozen(SERVED_WHILE_FROZEN[0], &refusal(agent.call(&Freeze::default(), soon()))?)
}

/// The words that hosts match, and for how long the guest has been frozen.
pub(super) fn check_frozen(command: &str, refusal: &str) -> Result<()> {
    let words = format!("Command {command} has been disabled: the agent is in frozen state (for ");
    ensure!(refusal.starts_with(&words) && refusal.ends_with(" s)"), "{refusal}");
    Ok(())
}

/// What the agent refused a command with.
pub(super) fn refusal<T: std::fmt::Debug>(result: std::result::Result<T, Error>) -> Result<String> {
    match result {
        Err(Error::Refused { desc, .. }) => Ok(desc),
        other => bail!("{other:?} is no refusal"),
    }
}

fn hashes(disks: &Disks, ids: &[&str]) -> Result<Vec<Vec<u8>>> {
    ids.iter().map(|id| Ok(Sha256::digest(fs::read(disks.file(id))?).to_vec())).collect()
}

/// Tells how long something took.
fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = run();
    let took: Duration = started.elapsed();
    println!("{what}: {} ms", took.as_millis());
    result
}
