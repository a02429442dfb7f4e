//! The commands on fake machines.

use qga::commands::storage::DiskAddress;

use super::*;
use crate::{guest, root::Root};

fn run<C: Run>(command: C, text: &str) -> Result<C::Reply> {
    let (root, directory) = Root::from_text(text);
    let guest = Guest { root, ..guest::tests::guest_at(directory.path()) };
    command.run(&guest)
}

fn check_statistics(line: &str, expected: Option<(&str, &str)>) {
    let found = read_statistics(line).map(|info| (info.name, serde_json::to_string(&info.stats).unwrap()));
    assert_eq!(found, expected.map(|(name, stats)| (name.to_owned(), stats.to_owned())), "{line}");
}

const ELEVEN: &str = "\"read-ios\":1,\"read-merges\":2,\"read-sectors\":3,\"read-ticks\":4,\
                      \"write-ios\":5,\"write-merges\":6,\"write-sectors\":7,\"write-ticks\":8";
const PROGRESS: &str = r#""ios-pgr":9,"total-ticks":10,"weight-ticks":11"#;
const DISCARDS: &str = r#""discard-ios":12,"discard-merges":13,"discard-sectors":14,"discard-ticks":15"#;

#[test]
fn the_number_of_columns_tells_which_statistics_there_are() {
    check_statistics(
        " 8 1 sda1 1 2 3 4",
        Some(("sda1", r#"{"read-ios":1,"read-sectors":2,"write-ios":3,"write-sectors":4}"#)),
    );
    check_statistics("8 0 sda 1 2 3 4 5 6 7 8 9 10 11", Some(("sda", &format!("{{{ELEVEN},{PROGRESS}}}"))));
    check_statistics(
        "8 0 sda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15",
        Some(("sda", &format!("{{{ELEVEN},{DISCARDS},{PROGRESS}}}"))),
    );
    check_statistics(
        "8 0 sda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17",
        Some(("sda", &format!("{{{ELEVEN},{DISCARDS},\"flush-ios\":16,\"flush-ticks\":17,{PROGRESS}}}"))),
    );
}

#[test]
fn half_a_group_of_statistics_means_nothing() {
    check_statistics("8 0 sda 1 2 3 4 5", Some(("sda", "{}")));
    check_statistics("8 0 sda 1 2 3 4 5 6 7 8 9 10", Some(("sda", "{}")));
    check_statistics("8 0 sda 1 2 3 4 5 6 7 8 9 10 11 12 13", Some(("sda", &format!("{{{ELEVEN},{PROGRESS}}}"))));
    check_statistics("8 0 sda 1 2 3", None);
    check_statistics("8 x sda 1 2 3 4", None);
    check_statistics("", None);
}

#[test]
fn without_statistics_there_is_an_error() {
    let error = run(GetDiskstats {}, "proc/\n").unwrap_err();
    assert_eq!(error.desc, "Could not open '/proc/diskstats': No such file or directory");
    let disks = run(GetDiskstats {}, "proc/diskstats:\n| 7 0 loop0 0 0 0 0\n| garbage\n| 8 0 sda 1 2 3 4\n").unwrap();
    let names: Vec<_> = disks.iter().map(|disk| (disk.major, disk.minor, disk.name.as_str())).collect();
    assert_eq!(names, [(7, 0, "loop0"), (8, 0, "sda")]);
}

/// A machine with a disk in two partitions, a mapped device on one of them, and an empty loop device.
const MACHINE: &str = "\
proc/self/mountinfo:
| 27 1 254:1 / / rw - ext4 /dev/vda1 rw
| 28 27 252:0 / /data rw - xfs /dev/mapper/vg-data rw
| 29 27 7:99 / /gone rw - squashfs /dev/loop99 ro
data/
sys/block/vda -> ../devices/pci0000:00/0000:00:05.0/virtio1/block/vda
sys/block/dm-0 -> ../devices/virtual/block/dm-0
sys/block/loop0 -> ../devices/virtual/block/loop0
sys/block/odd -> ../devices/odd
sys/block/file: no link
sys/dev/block/254:1 -> ../../devices/pci0000:00/0000:00:05.0/virtio1/block/vda/vda1
sys/dev/block/252:0 -> ../../devices/virtual/block/dm-0
sys/devices/pci0000:00/0000:00:05.0/driver -> ../../../bus/pci/drivers/virtio-pci
sys/devices/pci0000:00/0000:00:05.0/virtio1/block/vda/uevent:
| MAJOR=254
| MINOR=0
| DEVNAME=vda
| DEVTYPE=disk
sys/devices/pci0000:00/0000:00:05.0/virtio1/block/vda/size: 4096
sys/devices/pci0000:00/0000:00:05.0/virtio1/block/vda/serial: S1
sys/devices/pci0000:00/0000:00:05.0/virtio1/block/vda/slaves/
sys/devices/pci0000:00/0000:00:05.0/virtio1/block/vda/queue/
sys/devices/pci0000:00/0000:00:05.0/virtio1/block/vda/vda1/uevent:
| MAJOR=254
| MINOR=1
| DEVNAME=vda1
| DEVTYPE=partition
sys/devices/virtual/block/dm-0/uevent:
| MAJOR=252
| MINOR=0
| DEVNAME=dm-0
| DEVTYPE=disk
sys/devices/virtual/block/dm-0/size: 2048
sys/devices/virtual/block/dm-0/slaves/vda1 -> ../../../../pci0000:00/0000:00:05.0/virtio1/block/vda/vda1
sys/devices/virtual/block/loop0/uevent: DEVNAME=loop0
sys/devices/virtual/block/loop0/size: 0
run/udev/data/b252:0: E:DM_NAME=vg-data
";

fn virtio_disk(dev: &str) -> DiskAddress {
    let pci_controller = qga::commands::storage::PciAddress { domain: 0, bus: 0, slot: 5, function: 0 };
    let bus_type = BusType::Virtio;
    DiskAddress { pci_controller, bus_type, serial: Some("S1".into()), dev: Some(dev.into()), ..DiskAddress::UNKNOWN }
}

#[test]
fn the_file_system_mounted_last_comes_first_and_an_odd_one_costs_nothing() {
    let found = run(GetFsinfo {}, MACHINE).unwrap();
    let short: Vec<_> = found.iter().map(|one| [&one.name, &one.mountpoint, &one.kind].map(String::as_str)).collect();
    assert_eq!(short, [["7:99", "/gone", "squashfs"], ["dm-0", "/data", "xfs"], ["vda1", "/", "ext4"]]);
    assert_eq!(found[0].disk, []);
    assert_eq!((found[0].used_bytes, found[0].total_bytes, found[0].total_bytes_privileged), (None, None, None));
    // The leg, for a mapped device.
    assert_eq!(found[1].disk, [virtio_disk("/dev/vda1")]);
    assert_eq!(found[2].disk, [virtio_disk("/dev/vda1")]);
    for one in &found[1..] {
        let (used, total, privileged) =
            (one.used_bytes.unwrap(), one.total_bytes.unwrap(), one.total_bytes_privileged.unwrap());
        assert!(used <= total && total <= privileged, "{one:?}");
    }
}

#[test]
fn disks_are_listed_with_their_partitions_before_them() {
    let mut found = run(GetDisks {}, MACHINE).unwrap();
    let position = |name: &str| found.iter().position(|disk| disk.name == name).unwrap();
    assert!(position("/dev/vda1") < position("/dev/vda"));
    found.sort_by(|one, other| one.name.cmp(&other.name));
    let disk = |name: &str, dependencies: &[&str]| Disk {
        name: name.into(),
        partition: false,
        dependencies: Some(dependencies.iter().map(ToString::to_string).collect()),
        address: None,
        alias: None,
        smart: None,
    };
    assert_eq!(
        found,
        [
            Disk { alias: Some("vg-data".into()), ..disk("/dev/dm-0", &["/dev/vda1"]) },
            Disk { address: Some(virtio_disk("/dev/vda")), ..disk("/dev/vda", &[]) },
            Disk { partition: true, ..disk("/dev/vda1", &["/dev/vda"]) },
        ]
    );
}

#[test]
fn without_a_list_of_disks_there_is_an_error() {
    let error = run(GetDisks {}, "sys/\n").unwrap_err();
    assert_eq!(error.desc, "Can't open directory \"/sys/block\": No such file or directory");
}

#[test]
fn a_thousand_file_systems_are_listed() {
    use std::fmt::Write;
    let mut text = String::from("proc/self/mountinfo:\n");
    for number in 0..1000 {
        writeln!(text, "| {number} 1 259:{number} / /mnt/{number} rw - ext4 /dev/x rw").unwrap();
        writeln!(text, "| {number} 1 259:{number} / /bind/{number} rw - ext4 /dev/x rw").unwrap();
    }
    let found = run(GetFsinfo {}, &text).unwrap();
    assert_eq!(found.len(), 1000);
    assert_eq!((found[0].name.as_str(), found[999].mountpoint.as_str()), ("259:999", "/mnt/0"));
}

/// Of each file system, in the order of mounting: place, device and the disks beneath.
fn check_captured(text: &str, expected: &[[&str; 3]]) {
    let found = run(GetFsinfo {}, text).unwrap();
    // Those of one file system come in the order of a directory, which on a real sysfs is another.
    let disks = |one: &FileSystem| {
        let mut disks: Vec<_> = one.disk.iter().map(short).collect();
        disks.sort();
        disks.join(", ")
    };
    let found: Vec<_> = found.iter().rev().map(|one| [one.mountpoint.clone(), one.name.clone(), disks(one)]).collect();
    assert_eq!(found, expected);
}

/// Node, bus, PCI function or subchannel and device number, numbers and serial.
fn short(address: &DiskAddress) -> String {
    let DiskAddress { pci_controller: pci, bus, target, unit, .. } = address;
    let bus_type = serde_json::to_string(&address.bus_type).unwrap();
    let (node, serial) = (address.dev.as_deref().unwrap_or("-"), address.serial.as_deref().unwrap_or("-"));
    let function = match (&address.ccw_address, pci.domain) {
        (Some(ccw), _) => format!("{:x}.{:x}.{:04x}/{:04x}", ccw.cssid, ccw.ssid, ccw.subchno, ccw.devno),
        (None, -1) => "-".into(),
        (None, _) => format!("{:02x}:{:02x}.{:x}", pci.bus, pci.slot, pci.function),
    };
    format!("{node} {} {function} {bus}:{target}:{unit} {serial}", bus_type.trim_matches('"'))
}

#[test]
fn the_disks_of_a_captured_pc_are_found() {
    check_captured(
        include_str!("../../../tests/roots/pc.root"),
        &[
            ["/mnt/scsi", "sdb", "/dev/sdb scsi 00:12.0 0:0:2 udev sdb"],
            ["/mnt/ide", "sda", "/dev/sda ide 00:01.1 1:0:1 udev sda"],
            ["/mnt/nvme", "nvme0n1", "/dev/nvme0n1 nvme 00:13.0 0:0:0 -"],
            ["/mnt/multi", "nvme1n1", "/dev/nvme1n1 nvme 00:14.0 0:0:0 -"],
            ["/mnt/stick", "sdc", "/dev/sdc usb 00:15.0 0:0:0 udev sdc"],
            ["/mnt/slow-stick", "sdd", "/dev/sdd usb 00:16.0 0:0:0 udev sdd"],
            ["/mnt/upper", "dm-0", "/dev/vda virtio 00:10.0 0:0:0 WHOLE-1, /dev/vdb virtio 00:11.0 0:0:0 PART-2"],
        ],
    );
}

#[test]
fn the_disks_of_a_captured_q35_are_found() {
    check_captured(
        include_str!("../../../tests/roots/q35.root"),
        &[
            ["/mnt/behind-bridges", "sdb", "/dev/sdb scsi 03:04.0 0:0:5 udev sdb"],
            ["/mnt/upper", "dm-0", "/dev/sda sata 00:1f.2 0:0:3 udev sda, /dev/vda virtio 01:00.0 0:0:0 PORT-2"],
        ],
    );
}

#[test]
fn the_disks_of_a_captured_machine_without_pci_are_found() {
    check_captured(
        include_str!("../../../tests/roots/microvm.root"),
        &[
            ["/mnt/scsi", "sda", "/dev/sda scsi - 0:3:2 udev sda"],
            ["/mnt/upper", "dm-0", "/dev/vda virtio - 0:0:0 WHOLE-1, /dev/vdb virtio - 0:0:0 PART-2"],
        ],
    );
}

#[test]
fn the_disks_beneath_captured_volumes_are_found() {
    let text = include_str!("../../../tests/roots/volumes.root");
    let (first, third) = ("/dev/vda virtio 00:10.0 0:0:0 FIRST-1", "/dev/nvme0n1 nvme 00:13.0 0:0:0 -");
    let both = format!("/dev/sda scsi 00:12.0 0:0:4 udev sda, {first}");
    check_captured(
        text,
        &[["/mnt/group-both", "dm-0", &both], ["/mnt/whole", "dm-2", third], ["/mnt/secret", "dm-3", first]],
    );
    let disks = run(GetDisks {}, text).unwrap();
    for (name, alias, parts) in [
        ("/dev/dm-0", "group-both", &["/dev/sda", "/dev/vda"][..]),
        ("/dev/dm-1", "group-part", &["/dev/vda"]),
        ("/dev/dm-2", "whole", &["/dev/nvme0n1"]),
        ("/dev/dm-3", "secret", &["/dev/dm-1"]),
    ] {
        let disk = disks.iter().find(|disk| disk.name == name).unwrap();
        let mut dependencies = disk.dependencies.clone().unwrap();
        dependencies.sort();
        assert_eq!(
            (disk.alias.as_deref(), &dependencies[..]),
            (Some(alias), &parts.iter().map(ToString::to_string).collect::<Vec<_>>()[..]),
            "{name}"
        );
    }
}

#[test]
fn the_disks_of_a_captured_s390_are_found() {
    check_captured(
        include_str!("../../../tests/roots/s390.root"),
        &[
            ["/mnt/sda", "sda", "/dev/sda scsi 0.2.0000/0c03 0:3:2 -"],
            ["/mnt/vda", "vda", "/dev/vda virtio 0.0.0000/0a01 0:0:0 WHOLE-1"],
            ["/mnt/vdb1", "vdb1", "/dev/vdb1 virtio 0.1.0000/0b02 0:0:0 PART-2"],
        ],
    );
}
