//! Disks on every bus and their file systems, compared with QEMU's command line and with the guest's kernel.
//!
//! Each disk has a size of its own, by which the guest's name of it is found: kernels name disks in the order they come
//! up. Both agents run in the same guest, ours on the port and the reference on vsock.

pub(super) mod disks;
mod stacks;
pub(crate) mod trim;

use anyhow::{Context, Result};
use qga::{
    client::Client,
    commands::storage::{BusType, Disk, DiskSmart, FileSystem, GetDisks, GetDiskstats, GetFsinfo},
};
use serde_json::{Value, json};
use vmtest::{
    transcript::Recorded,
    vm::{Builder, Vm},
};

use self::disks::{Content, Disks, Pci};
pub(crate) use self::stacks::of_volumes;
use super::{answered, captured, reference, reference::remove, soon, with_steady_truth};

pub(crate) fn of_a_pc(builder: Builder<'_>) -> Result<()> {
    let virtio = (BusType::Virtio, [0; 3]);
    let mut disks = Disks::new("pc")?;
    disks.add("whole", Content::Ext4, "virtio-blk-pci,id=whole,addr=0x10,serial=WHOLE-1", Pci::Of("whole"), virtio)?;
    disks.add(
        "part",
        Content::Ext4InPartition,
        "virtio-blk-pci,id=part,addr=0x11,serial=PART-2",
        Pci::Of("part"),
        virtio,
    )?;
    disks.device("virtio-scsi-pci,id=scsi,addr=0x12");
    let unit = (BusType::Scsi, [0, 0, 2]);
    disks.add("scsi", Content::Ext4, "scsi-hd,bus=scsi.0,scsi-id=3,lun=2,serial=SCSI-3", Pci::Of("scsi"), unit)?;
    let second_on_second = (BusType::Ide, [1, 0, 1]);
    disks.add(
        "ide",
        Content::Ext4,
        "ide-hd,bus=ide.1,unit=1,serial=IDE-4",
        Pci::Fixed([0, 0, 1, 1]),
        second_on_second,
    )?;
    let nvme = (BusType::Nvme, [0; 3]);
    disks.add("nvme", Content::Ext4, "nvme,id=nvme,addr=0x13,serial=NVME-5", Pci::Of("nvme"), nvme)?;
    disks.device("nvme-subsys,id=subsystem");
    disks.device("nvme,id=multi,subsys=subsystem,addr=0x14,serial=MULTI-6");
    disks.add("multi", Content::Ext4, "nvme-ns,bus=multi", Pci::Of("multi"), nvme)?;
    let usb = (BusType::Usb, [0; 3]);
    disks.device("qemu-xhci,id=usb,addr=0x15");
    disks.add("stick", Content::Ext4, "usb-storage,bus=usb.0,serial=USB-7", Pci::Of("usb"), usb)?;
    disks.device("piix3-usb-uhci,id=slow,addr=0x16");
    disks.add("slow-stick", Content::Ext4, "usb-storage,bus=slow.0,serial=USB-8", Pci::Of("slow"), usb)?;
    check(builder, &disks)
}

pub(crate) fn of_a_q35(builder: Builder<'_>) -> Result<()> {
    let virtio = (BusType::Virtio, [0; 3]);
    let mut disks = Disks::new("q35")?;
    let fourth_port = (BusType::Sata, [0, 0, 3]);
    disks.add("sata", Content::Ext4, "ide-hd,bus=ide.3,serial=SATA-1", Pci::Fixed([0, 0, 31, 2]), fourth_port)?;
    disks.device("pcie-root-port,id=root-port,addr=0x5,chassis=1");
    let behind_port = "virtio-blk-pci,id=behind-port,bus=root-port,serial=PORT-2";
    disks.add("behind-port", Content::Xfs, behind_port, Pci::Of("behind-port"), virtio)?;
    disks.device("pcie-pci-bridge,id=outer,addr=0x6");
    disks.device("pci-bridge,id=inner,bus=outer,addr=0x3,chassis_nr=2");
    disks.device("virtio-scsi-pci,id=scsi,bus=inner,addr=0x4");
    let behind_bridges = "scsi-hd,bus=scsi.0,scsi-id=1,lun=5,serial=BRIDGE-3";
    disks.add("behind-bridges", Content::Ext4, behind_bridges, Pci::Of("scsi"), (BusType::Scsi, [0, 0, 5]))?;
    check(builder, &disks)
}

pub(crate) fn of_a_microvm(builder: Builder<'_>) -> Result<()> {
    let mut disks = Disks::new("microvm")?;
    let virtio = (BusType::Virtio, [0; 3]);
    disks.add("whole", Content::Ext4, "virtio-blk-device,serial=WHOLE-1", Pci::Absent, virtio)?;
    disks.add("part", Content::Ext4InPartition, "virtio-blk-device,serial=PART-2", Pci::Absent, virtio)?;
    disks.device("virtio-scsi-device,id=scsi");
    let unit = (BusType::Scsi, [0, 3, 2]);
    disks.add("scsi", Content::Ext4, "scsi-hd,bus=scsi.0,scsi-id=3,lun=2,serial=SCSI-3", Pci::Absent, unit)?;
    check(builder, &disks)
}

fn check(builder: Builder<'_>, disks: &Disks) -> Result<()> {
    let arguments = disks.qemu_arguments();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let reference = builder.reference_program().map(ToOwned::to_owned);
    let mut vm = builder.machine(disks.machine()).qemu_arguments(&arguments).boot()?;
    load_disk_modules(&mut vm)?;
    let names = disks.mount_all(&mut vm)?;
    let mut agent = answered(&vm)?;

    let mount_points: String = disks.iter().map(|disk| format!(" {}", disk.mount_point())).collect();
    let sizes = format!("stat -f -c '%b %f %a %S'{mount_points}");
    let (file_systems, sizes) = with_steady_truth(&mut vm, &sizes, || Ok(agent.call(&GetFsinfo {}, soon())?))?;
    let listed = agent.call(&GetDisks {}, soon())?;
    check_order(&file_systems, disks);
    for ((disk, name), size) in disks.iter().zip(&names).zip(sizes.lines()) {
        // Without udev only virtio disks have one.
        let serial = (disk.bus_type == BusType::Virtio).then(|| disk.serial.clone());
        let mounted = disk.content.node(name);
        let found = file_systems.iter().find(|one| one.mountpoint == disk.mount_point()).context(disk.id)?;
        assert_eq!(found.disk, [disk.address(&mut vm.qmp, &mounted, serial.clone())?], "{}", disk.id);
        assert_eq!((found.name.as_str(), found.kind.as_str()), (mounted.as_str(), disk.content.kind()), "{}", disk.id);
        let whole = listed.iter().find(|one| one.name == format!("/dev/{name}")).context(disk.id)?;
        assert_eq!(whole.address, Some(disk.address(&mut vm.qmp, name, serial)?), "{}", disk.id);
        assert_eq!((whole.partition, whole.dependencies.as_deref()), (false, Some(&[][..])), "{}", disk.id);
        assert_eq!(whole.smart.is_some(), disk.bus_type == BusType::Nvme, "{}", disk.id);
        if disk.content == Content::Ext4InPartition {
            let partition = listed.iter().find(|one| one.name == format!("/dev/{mounted}")).context(disk.id)?;
            assert_eq!((partition.partition, &partition.dependencies), (true, &Some(vec![whole.name.clone()])));
        }
        check_size(found, size)?;
    }
    check_smart(&listed);
    check_statistics(&mut vm, &mut agent)?;
    if let Some(reference) = &reference {
        write_udev(&mut vm)?;
        reference::start(&mut vm, reference)?;
        compare_with_reference(&mut vm, &mut agent)?;
    }
    stacks::check(&mut vm, &mut agent, disks, &names)?;
    if reference.is_some() {
        compare_with_reference(&mut vm, &mut agent)?;
    }
    check_capture(&mut vm, disks, disks.machine())
}

/// The serials that the guest's kernel tells are in its description, too.
fn check_capture(vm: &mut Vm, disks: &Disks, name: &str) -> Result<()> {
    let text = captured(vm, name)?;
    for disk in disks.iter().filter(|disk| disk.bus_type == BusType::Virtio) {
        assert!(text.contains(&format!("/serial: {}\n", disk.serial)), "{text}");
    }
    Ok(())
}

/// Last mounted first.
fn check_order(file_systems: &[FileSystem], disks: &Disks) {
    let mut mount_points: Vec<_> = file_systems.iter().map(|one| one.mountpoint.clone()).collect();
    mount_points.reverse();
    assert_eq!(mount_points, disks.iter().map(disks::Attached::mount_point).collect::<Vec<_>>());
}

/// Compares with the guest's statfs: the number of blocks, free ones, those free for every user, and their size.
fn check_size(found: &FileSystem, numbers: &str) -> Result<()> {
    let numbers: Vec<u64> = numbers.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [blocks, free, available, size] = numbers[..] else { anyhow::bail!("{numbers:?}") };
    let used = blocks - free;
    let expected = [used * size, (used + available) * size, blocks * size];
    assert_eq!([found.used_bytes, found.total_bytes, found.total_bytes_privileged], expected.map(Some), "{found:?}");
    Ok(())
}

/// QEMU's controller is in good health, at 323 K, and knows what was read.
fn check_smart(disks: &[Disk]) {
    for smart in disks.iter().filter_map(|disk| disk.smart.as_ref()) {
        let DiskSmart::Nvme(smart) = smart;
        assert_eq!((smart.critical_warning, smart.temperature), (0, 323));
        assert_ne!(smart.host_read_commands_lo, 0);
    }
}

/// Names and numbers in the kernel's order.
fn check_statistics(vm: &mut Vm, agent: &mut Client<Recorded>) -> Result<()> {
    let expected = vm.sh("awk '{ print $1, $2, $3 }' /proc/diskstats")?;
    let found = agent.call(&GetDiskstats {}, soon())?;
    let found: Vec<_> = found.iter().map(|one| format!("{} {} {}", one.major, one.minor, one.name)).collect();
    assert_eq!(found.join("\n"), expected);
    Ok(())
}

/// A database of udev for SCSI disks and mapped devices, which both agents read.
fn write_udev(vm: &mut Vm) -> Result<()> {
    vm.sh("mkdir -p /run/udev/data && cd /sys/block && for name in sd?; do \
           printf 'I:1\nE:ID_SERIAL=udev %s\n' $name >/run/udev/data/b$(cat $name/dev); done; \
           for name in dm-*; do if [ -e $name/dev ]; then \
           echo E:DM_NAME=$(cat $name/dm/name) >/run/udev/data/b$(cat $name/dev); fi; done")?;
    Ok(())
}

fn load_disk_modules(vm: &mut Vm) -> Result<()> {
    vm.load_disk_modules()?;
    Ok(())
}

fn compare_with_reference(vm: &mut Vm, agent: &mut Client<Recorded>) -> Result<()> {
    for command in ["guest-get-fsinfo", "guest-get-disks"] {
        reference::compare(vm, agent, command, &json!({}), |theirs, ours| {
            assert!(ours.to_string().contains("udev sd"), "{ours}");
            let (theirs, ours) = (theirs.as_array_mut(), ours.as_array_mut());
            settle_differences(theirs.expect("a list"), ours.expect("a list"));
        })?;
    }
    Ok(())
}

/// All that may differ: what came after 7.2 or is ours alone, and the serials of virtio disks, for which the reference
/// needs udev.
fn settle_differences(theirs: &mut [Value], ours: &mut [Value]) {
    for (their_entry, our_entry) in theirs.iter_mut().zip(ours.iter_mut()) {
        remove(our_entry, "total-bytes-privileged");
        // The reference asks no controller that it does not know to be one.
        if their_entry.get("smart").is_none() && their_entry["address"]["bus-type"] == "unknown" {
            remove(our_entry, "smart");
        }
        for entry in [&mut *their_entry, &mut *our_entry] {
            // Counts the question.
            if let Some(smart) = entry.get_mut("smart").and_then(Value::as_object_mut) {
                smart.retain(|name, _| !name.ends_with("-lo"));
            }
        }
        for (their_address, our_address) in addresses(their_entry).into_iter().zip(addresses(our_entry)) {
            // Disks on USB, since 8.1; on UHCI, and on an NVMe subsystem.
            if their_address["bus-type"] == "unknown" {
                for address in [&mut *their_address, &mut *our_address] {
                    remove(address, "bus-type");
                    remove(address, "pci-controller");
                }
            }
            if our_address["bus-type"] == "virtio" {
                remove(our_address, "serial");
            }
        }
    }
}

fn addresses(entry: &mut Value) -> Vec<&mut Value> {
    let members = entry.as_object_mut().expect("an object").iter_mut();
    members
        .flat_map(|(name, value)| match name.as_str() {
            "disk" => value.as_array_mut().expect("a list").iter_mut().collect(),
            "address" => vec![value],
            _ => Vec::new(),
        })
        .collect()
}
