//! Which file systems are frozen, with hidden mount points, changed device names and removed devices.

use anyhow::Result;
use qga::commands::{
    freeze::{Freeze, FreezeList, Thaw},
    storage::{BusType, FileSystem, GetFsinfo},
};
use vmtest::vm::{Builder, Vm};

use super::{
    Agent, Content, Disks, answered, boot, configure, frozen_among, refusal, soon,
    stacks::{fail_mapped, map_plain},
};
use crate::cases::storage::disks::Pci;

/// A writer on the disk `home` that has opened its file before anything hides it.
const EARLY_WRITER: &str = "\
rm -f /run/early.*
(sh -c 'exec 4>>/home/u/disk/file; echo $$ >/run/early.pid; until [ -e /run/early.go ]; do sleep 0.1; done; \
 echo data >&4; touch /run/early.done' >/dev/null 2>&1 </dev/null &)
until [ -s /run/early.pid ]; do sleep 0.1; done";

/// A FUSE of a user that never answers, until `/run/fuse.pid` ends.
fn mount_fuse(user: u32, mount_point: &str) -> String {
    format!(
        "(sh -c 'exec 3<>/dev/fuse; echo $$ >/run/fuse.pid; \
         mount -t fuse -o fd=3,rootmode=40000,user_id={user},group_id=0 fuse {mount_point}; exec sleep 100000' \
         >/dev/null 2>&1 </dev/null &); until grep -q ' {mount_point} fuse' /proc/mounts; do sleep 0.1; done"
    )
}

pub(crate) fn hidden(builder: Builder<'_>) -> Result<()> {
    let (mut vm, _disks) = boot(builder, &[("home", Content::Ext4), ("plain", Content::Ext4)])?;
    // As with systemd: what is unmounted in one mount namespace is unmounted in all.
    vm.sh(
        "mkdir -p /home/u/disk && mount --make-rshared / && mount -o bind /mnt/home /home/u/disk && umount /mnt/home",
    )?;
    let mut agent = answered(&vm)?;
    let end_fuse = |mount_point: &str| format!("umount -l {mount_point} && kill $(cat /run/fuse.pid)");
    let covers = [
        // A user's own directory above the mount point, which nobody else may enter.
        (mount_fuse(12345, "/home/u"), end_fuse("/home/u")),
        // The same where everybody may, and waits for ever.
        (mount_fuse(0, "/home/u"), end_fuse("/home/u")),
        (mount_fuse(0, "/home/u/disk"), end_fuse("/home/u/disk")),
        // Several, of which the upper one has further ones on it.
        (
            "mount -t tmpfs none /home/u/disk && mount -t tmpfs none /home/u/disk && mount -t tmpfs none /home && \
             mkdir -p /home/u/disk && mount -t tmpfs none /home/u/disk"
                .into(),
            "umount -l /home && umount /home/u/disk && umount /home/u/disk".into(),
        ),
    ];
    for (cover, uncover) in covers {
        vm.sh(EARLY_WRITER)?;
        vm.sh(&cover)?;
        let mounts = vm.sh("cat /proc/self/mountinfo")?;
        assert_eq!(agent.call(&Freeze::default(), soon())?, 2, "{cover}");
        assert_eq!(agent.call(&Thaw {}, soon())?, 2, "{cover}");
        let mountpoints = Some(vec!["/home/u/disk".into()]);
        assert_eq!(agent.call(&FreezeList { mountpoints, lease: None }, soon())?, 1, "{cover}");
        vm.sh("touch /run/early.go")?;
        vm.wait_until("grep -q '^State:.D' /proc/$(cat /run/early.pid)/status")?;
        assert_eq!(agent.call(&Thaw {}, soon())?, 1, "{cover}");
        vm.wait_until("test -e /run/early.done")?;
        assert_eq!(vm.sh("cat /proc/self/mountinfo")?, mounts);
        vm.sh(&uncover)?;
        vm.sh("umount /home/u/disk && mount -t ext4 /dev/vda /home/u/disk && test -s /home/u/disk/file")?;
    }
    Ok(())
}

pub(crate) fn unopenable(builder: Builder<'_>) -> Result<()> {
    let (mut vm, _disks) = boot(builder, &[("a", Content::Ext4), ("b", Content::Ext4)])?;
    // All that is left of one is a pipe, which nobody can open without effects.
    vm.sh("mkfifo /mnt/b/pipe && touch /run/pipe && mount -o bind /mnt/b/pipe /run/pipe && umount /mnt/b")?;
    let mut agent = answered(&vm)?;
    let error = refusal(agent.call(&Freeze::default(), soon()))?;
    assert_eq!(error, "failed to open /run/pipe: neither a directory nor a file");
    assert_eq!(frozen_among(&mut vm, &["a"])?, [""; 0]);
    drop(agent);
    configure(&mut vm, "fsfreeze-exclude=/run/*\n")?;
    let mut agent = answered(&vm)?;
    assert_eq!(agent.call(&Freeze::default(), soon())?, 1);
    assert_eq!(agent.call(&Thaw {}, soon())?, 1);
    Ok(())
}

pub(crate) fn renamed_source(builder: Builder<'_>) -> Result<()> {
    let (mut vm, _disks) = boot(builder, &[("btrfs", Content::Btrfs), ("ext4", Content::Ext4)])?;
    let mut agent = answered(&vm)?;
    let before = agent.call(&GetFsinfo {}, soon())?;
    vm.sh("set -e; for kind in ext4 btrfs; do disk=$(grep \" /mnt/$kind \" /proc/mounts | cut -d' ' -f1); \
         umount /mnt/$kind; rm -f /dev/root; mknod /dev/root b $(tr : ' ' </sys/block/${disk#/dev/}/dev); \
         mount -t $kind /dev/root /mnt/$kind; done; rm /dev/root; grep -q '/dev/root /mnt/btrfs' /proc/mounts")?;
    let shape = |found: &[FileSystem]| {
        let mut shape: Vec<_> =
            found.iter().map(|one| (one.mountpoint.clone(), one.name.clone(), one.disk.clone())).collect();
        shape.sort_by(|one, other| one.0.cmp(&other.0));
        shape
    };
    assert_eq!(shape(&agent.call(&GetFsinfo {}, soon())?), shape(&before));
    let named = |mount_point: &str| FreezeList { mountpoints: Some(vec![mount_point.into()]), lease: None };
    for (count, list) in [(1, named("/mnt/btrfs")), (2, FreezeList::default())] {
        assert_eq!(agent.call(&list, soon())?, count);
        assert_eq!(frozen_among(&mut vm, &["btrfs"])?, ["btrfs"]);
        assert_eq!(agent.call(&Thaw {}, soon())?, count);
    }
    // The node is another disk by now.
    vm.sh("mknod /dev/root b $(tr : ' ' </sys/block/vdb/dev)")?;
    assert_eq!(shape(&agent.call(&GetFsinfo {}, soon())?), shape(&before));
    Ok(())
}

pub(crate) fn stacked_without_a_path(builder: Builder<'_>) -> Result<()> {
    let contents = [("outer", Content::Xfs), ("inner", Content::Ext4), ("plain", Content::Ext4)];
    let (mut vm, _disks) = boot(builder, &contents)?;
    configure(&mut vm, "fsfreeze-timeout=10\n")?;
    vm.sh("set -e; disk=$(grep ' /mnt/inner ' /proc/mounts | cut -d' ' -f1); umount /mnt/inner; \
         cat $disk >/mnt/outer/image; mount -t ext4 -o loop /mnt/outer/image /mnt/inner")?;
    let mut agent = answered(&vm)?;
    // The outer one is mounted again each time, so that by the order of mounting it would be the first to be frozen.
    let again = "disk=$(grep ' /mnt/outer ' /proc/mounts | cut -d' ' -f1); umount -l /mnt/outer; \
                 mount -t xfs $disk /mnt/outer";
    check_stack(&mut vm, &mut agent)?;
    for change in [
        again,
        "mount -t tmpfs none /mnt/outer",
        "umount /mnt/outer",
        &mount_fuse(0, "/mnt/outer"),
        "umount -l /mnt/outer && kill $(cat /run/fuse.pid) && rm /mnt/outer/image",
    ] {
        vm.sh(change)?;
        check_stack(&mut vm, &mut agent)?;
    }
    // A loop device on a loop device, and then an image in an overlay on the outer one.
    vm.sh("set -e; umount /mnt/inner; disk=$(grep ' /mnt/plain ' /proc/mounts | cut -d' ' -f1); umount /mnt/plain; \
         cat $disk >/mnt/outer/image; mount -t ext4 $disk /mnt/plain; \
         losetup /dev/loop6 /mnt/outer/image; losetup /dev/loop7 /dev/loop6; mount -t ext4 /dev/loop7 /mnt/inner")?;
    vm.sh(again)?;
    check_stack(&mut vm, &mut agent)?;
    vm.sh(
        "set -e; umount /mnt/inner; losetup -d /dev/loop7; losetup -d /dev/loop6; mkdir /mnt/outer/up /mnt/outer/work \
         /mnt/low /mnt/merged; mount -t overlay -o \
         lowerdir=/mnt/low,upperdir=/mnt/outer/up,workdir=/mnt/outer/work overlay /mnt/merged; \
         mv /mnt/outer/image /mnt/merged/image; mount -t ext4 -o loop /mnt/merged/image /mnt/inner",
    )?;
    vm.sh(again)?;
    check_stack(&mut vm, &mut agent)
}

fn check_stack(vm: &mut Vm, agent: &mut Agent) -> Result<()> {
    vm.sh("dd if=/dev/urandom of=/mnt/inner/data bs=64k count=16 2>/dev/null")?;
    assert_eq!(agent.call(&Freeze::default(), soon())?, 3);
    assert_eq!(agent.call(&Thaw {}, soon())?, 3);
    Ok(())
}

pub(crate) fn dead_disk(builder: Builder<'_>) -> Result<()> {
    let mut disks = Disks::new("pc")?;
    disks.device("virtio-scsi-pci,id=scsi,addr=0x12");
    let unit = (BusType::Scsi, [0, 0, 2]);
    disks.add("dying", Content::Ext4, "scsi-hd,bus=scsi.0,scsi-id=3,lun=2,serial=DYING-1", Pci::Of("scsi"), unit)?;
    let unit = (BusType::Scsi, [0, 0, 3]);
    disks.add("pool", Content::Btrfs, "scsi-hd,bus=scsi.0,scsi-id=3,lun=3,serial=POOL-2", Pci::Of("scsi"), unit)?;
    disks.add_virtio("plain", Content::Ext4)?;
    disks.add_virtio("failing", Content::Ext4)?;
    let arguments = disks.qemu_arguments();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let mut vm = builder.qemu_arguments(&arguments).boot()?;
    vm.load_disk_modules()?;
    let names = disks.mount_all(&mut vm)?;
    let mut agent = answered(&vm)?;
    assert_eq!(agent.call(&Freeze::default(), soon())?, 4);
    assert_eq!(agent.call(&Thaw {}, soon())?, 4);

    vm.sh("echo data >/mnt/dying/data; echo data >/mnt/pool/data")?;
    for name in &names[..2] {
        vm.sh(&format!("echo 1 >/sys/block/{name}/device/delete"))?;
    }
    assert_eq!(agent.call(&Freeze::default(), soon())?, 2);
    assert_eq!(agent.call(&Thaw {}, soon())?, 2);
    // The host learns of it as qgactl's doctor does.
    let file_systems = agent.call(&GetFsinfo {}, soon())?;
    for (mount_point, major) in [("/mnt/dying", "8:"), ("/mnt/pool", "0:")] {
        vm.wait_console(&format!("{mount_point} is not frozen: its device is gone"))?;
        let found = file_systems.iter().find(|one| one.mountpoint == mount_point).expect("it is mounted");
        assert!(found.name.starts_with(major) && found.disk.is_empty(), "{found:?}");
    }

    // A device that only fails may come back, and what is on it is not known to be lost.
    if map_plain(&mut vm, "failing")? {
        fail_mapped(&mut vm, "failing")?;
        let error = refusal(agent.call(&Freeze::default(), soon()))?;
        assert_eq!(error, "failed to freeze /mnt/mapped: Input/output error");
        assert_eq!(frozen_among(&mut vm, &["plain"])?, [""; 0]);
    }
    Ok(())
}

pub(crate) fn sizes(builder: Builder<'_>) -> Result<()> {
    let (mut vm, _disks) = boot(builder, &[("o", Content::Ext4), ("btrfs", Content::Btrfs)])?;
    let mut agent = answered(&vm)?;
    let sizes = |agent: &mut Agent| -> Result<Vec<_>> {
        let found = agent.call(&GetFsinfo {}, soon())?;
        Ok(found.into_iter().map(|one| (one.mountpoint, one.total_bytes_privileged)).collect())
    };
    let before = sizes(&mut agent)?;
    assert!(before.iter().all(|(_, size)| size.is_some()), "{before:?}");
    vm.sh("for name in o btrfs; do mount -t tmpfs -o size=7m none /mnt/$name; done")?;
    assert_eq!(sizes(&mut agent)?, [("/mnt/btrfs".into(), None), ("/mnt/o".into(), None)]);
    vm.sh("umount /mnt/o && umount /mnt/btrfs")?;
    assert_eq!(sizes(&mut agent)?, before);
    // What hides a mount point is not asked, not even if it would never answer.
    vm.sh("mkdir -p /home/u/disk && mount -o bind /mnt/o /home/u/disk && umount /mnt/o")?;
    vm.sh(&mount_fuse(0, "/home/u"))?;
    assert_eq!(sizes(&mut agent)?, [("/home/u/disk".into(), None), before[0].clone()]);
    assert!(!vm.console().text()?.contains("did not answer"));
    Ok(())
}
