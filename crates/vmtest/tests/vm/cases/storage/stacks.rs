//! Devices that are made of others: mirrors, logical volumes, encrypted disks, one upon the other.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use qga::{
    client::Client,
    commands::storage::{BusType, GetDisks, GetFsinfo},
};
use vmtest::{
    transcript::Recorded,
    vm::{Builder, Vm},
};

use super::{
    super::{answered, reference, soon},
    check_capture, compare_with_reference,
    disks::{Content, Disks, Pci},
    load_disk_modules, write_udev,
};

/// `group-both` on two disks, `group-part` on the first, and what is encrypted: `whole` on the third disk, `secret` on
/// `group-part`. The tools are told that there is no udev, and a key is derived as fast as they allow.
const MAKE_VOLUMES: &str = r#"
set -e
export DM_DISABLE_UDEV=1
mkdir -p /run/lock/lvm /run/cryptsetup /etc/lvm
lvm() {
    /usr/sbin/lvm "$@" --config 'devices { use_devicesfile=0 obtain_device_list_from_udev=0 }
        activation { udev_sync=0 udev_rules=0 monitoring=0 } backup { backup=0 archive=0 }'
}
encrypt() {
    cryptsetup luksFormat --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /etc/hostname "$1"
    cryptsetup open --key-file /etc/hostname "$1" "$2"
}
lvm vgcreate group "$first" "$second"
lvm lvcreate --extents 6 --stripes 2 --zero n --wipesignatures n --name both group
lvm lvcreate --extents 8 --zero n --wipesignatures n --name part group "$first"
encrypt "$third" whole
encrypt /dev/mapper/group-part secret
for volume in group-both whole secret; do
    mke2fs -q /dev/mapper/$volume
    mkdir /mnt/$volume
    mount -t ext4 /dev/mapper/$volume /mnt/$volume
done"#;

pub(crate) fn of_volumes(builder: Builder<'_>) -> Result<()> {
    let mut disks = Disks::new("pc")?;
    let (virtio, nvme) = ((BusType::Virtio, [0; 3]), (BusType::Nvme, [0; 3]));
    let first = "virtio-blk-pci,id=first,addr=0x10,serial=FIRST-1";
    disks.add("first", Content::Nothing, first, Pci::Of("first"), virtio)?;
    disks.device("virtio-scsi-pci,id=scsi,addr=0x12");
    let second = "scsi-hd,bus=scsi.0,scsi-id=1,lun=4,serial=SECOND-2";
    disks.add("second", Content::Nothing, second, Pci::Of("scsi"), (BusType::Scsi, [0, 0, 4]))?;
    let third = "nvme,id=third,addr=0x13,serial=THIRD-3";
    disks.add("third", Content::Nothing, third, Pci::Of("third"), nvme)?;
    let arguments = disks.qemu_arguments();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let reference = builder.reference_program().map(ToOwned::to_owned);
    let mut vm = builder.qemu_arguments(&arguments).boot()?;
    load_disk_modules(&mut vm)?;
    let names = disks.iter().map(|disk| disk.name(&mut vm)).collect::<Result<Vec<_>>>()?;
    let [first, second, third] = &names[..] else { unreachable!("there are three disks") };
    vm.sh(&format!("first=/dev/{first} second=/dev/{second} third=/dev/{third}{MAKE_VOLUMES}"))?;
    write_udev(&mut vm)?;
    let volumes = vm.sh("cd /sys/block; for node in dm-*; do echo $(cat $node/dm/name) $node; done")?;
    let volumes: HashMap<_, _> = volumes.lines().filter_map(|line| line.split_once(' ')).collect();
    let volume = |name: &str| volumes.get(name).map(ToString::to_string).with_context(|| format!("{volumes:?}"));

    let mut agent = answered(&vm)?;
    for (name, parts) in [
        ("group-both", vec![first, second]),
        ("group-part", vec![first]),
        ("whole", vec![third]),
        ("secret", vec![&volume("group-part")?]),
    ] {
        check_disk(&mut agent, &volume(name)?, &parts, Some(name))?;
    }
    let file_systems = agent.call(&GetFsinfo {}, soon())?;
    let mount_points: Vec<_> = file_systems.iter().map(|one| one.mountpoint.as_str()).collect();
    assert_eq!(mount_points, ["/mnt/secret", "/mnt/whole", "/mnt/group-both"]);
    for (found, expected) in file_systems.iter().zip([&[0][..], &[2], &[0, 1]]) {
        let name = found.mountpoint.trim_start_matches("/mnt/");
        assert_eq!(found.name, volume(name)?);
        let serials = [Some("FIRST-1".into()), Some(format!("udev {second}")), None];
        let expected = disks.iter().zip(&names).zip(serials).enumerate().filter(|(index, _)| expected.contains(index));
        let mut expected = expected
            .map(|(_, ((disk, name), serial))| disk.address(&mut vm.qmp, name, serial))
            .collect::<Result<Vec<_>>>()?;
        let mut addresses = found.disk.clone();
        addresses.sort_by(|one, other| one.dev.cmp(&other.dev));
        expected.sort_by(|one, other| one.dev.cmp(&other.dev));
        assert_eq!(addresses, expected, "{name}");
    }
    if let Some(reference) = &reference {
        reference::start(&mut vm, reference)?;
        compare_with_reference(&mut vm, &mut agent)?;
    }
    check_capture(&mut vm, &disks, "volumes")
}

/// Devices made of others: a mirror of two disks by the kernel's own switches, and a mapped device on the mirror.
pub(super) fn check(vm: &mut Vm, agent: &mut Client<Recorded>, disks: &Disks, names: &[String]) -> Result<()> {
    let legs: Vec<_> = names.iter().take(2).collect();
    for disk in disks.iter().take(2) {
        vm.sh(&format!("umount {}", disk.mount_point()))?;
    }
    vm.sh(&format!(
        "set -e; echo md7 >/sys/module/md_mod/parameters/new_array; cd /sys/block/md7/md; echo none >metadata_version; \
         echo raid1 >level; echo 2 >raid_disks; echo 16384 >component_size; slot=0; \
         for leg in {} {}; do cat /sys/block/$leg/dev >new_dev; echo $slot >dev-$leg/slot; slot=$((slot + 1)); done; \
         echo active >array_state",
        legs[0], legs[1]
    ))
    .context("the mirror")?;
    check_disk(agent, "md7", &legs, None)?;
    vm.sh(
        "dmsetup create --noudevsync --noudevrules upper --table \"0 $(cat /sys/block/md7/size) linear /dev/md7 0\"",
    )?;
    write_udev(vm)?;
    check_disk(agent, "dm-0", &[&"md7".to_owned()], Some("upper"))?;
    vm.sh("mkdir /mnt/upper && mount -t ext4 -o ro,noload /dev/dm-0 /mnt/upper")?;
    let found = agent.call(&GetFsinfo {}, soon())?;
    let upper = found.first().context("no file system")?;
    assert_eq!((upper.name.as_str(), upper.mountpoint.as_str()), ("dm-0", "/mnt/upper"));
    let mut nodes: Vec<_> = upper.disk.iter().map(|disk| disk.dev.clone().unwrap_or_default()).collect();
    nodes.sort();
    let mut expected: Vec<_> = legs.iter().map(|leg| format!("/dev/{leg}")).collect();
    expected.sort();
    assert_eq!(nodes, expected);
    ensure!(upper.used_bytes.is_some());
    // Nothing that goes to it comes back until it is resumed.
    vm.sh("dmsetup suspend --noudevsync upper")?;
    let while_suspended = agent.call(&GetFsinfo {}, soon());
    vm.sh("dmsetup resume --noudevsync upper")?;
    assert_eq!(while_suspended?.len(), found.len());
    Ok(())
}

/// What is said of a device that is made of others.
fn check_disk(agent: &mut Client<Recorded>, name: &str, parts: &[&String], alias: Option<&str>) -> Result<()> {
    let listed = agent.call(&GetDisks {}, soon())?;
    let found = listed.iter().find(|one| one.name == format!("/dev/{name}")).with_context(|| format!("{listed:?}"))?;
    let mut dependencies = found.dependencies.clone().unwrap_or_default();
    let mut expected: Vec<_> = parts.iter().map(|name| format!("/dev/{name}")).collect();
    dependencies.sort();
    expected.sort();
    assert_eq!(dependencies, expected);
    assert_eq!((&found.address, found.alias.as_deref(), found.partition), (&None, alias, false));
    Ok(())
}
