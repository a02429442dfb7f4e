//! Places in sysfs as kernels lay them out.

use super::*;
use crate::storage::device::Number;

/// Links to drivers, as a function's directory holds them.
const DRIVERS: &str = "\
sys/devices/pci0000:00/0000:00:01.1/driver -> ../../../bus/pci/drivers/ata_piix
sys/devices/pci0000:00/0000:00:01.1/ata1/
sys/devices/pci0000:00/0000:00:01.1/ata2/
sys/devices/pci0000:00/0000:00:1f.2/driver -> ../../../bus/pci/drivers/ahci
sys/devices/pci0000:00/0000:00:1f.2/ata9/
sys/devices/pci0000:00/0000:00:1f.2/ata10/
sys/devices/pci0000:00/0000:00:1f.2/ata11/
sys/devices/pci0000:00/0000:00:1e.2/driver -> ../../../bus/pci/drivers/ahci
sys/devices/pci0000:00/0000:00:1e.2/host4/
sys/devices/pci0000:00/0000:00:1e.2/host5/
sys/devices/pci0000:00/0000:00:05.0/driver -> ../../../bus/pci/drivers/virtio-pci
sys/devices/pci0000:00/0000:00:02.0/driver -> ../../../bus/pci/drivers/pcieport
sys/devices/pci0000:00/0000:00:02.0/0000:01:00.0/driver -> ../../../../bus/pci/drivers/virtio-pci
sys/devices/pci0000:00/0000:00:03.0/0000:02:01.0/0000:03:1f.7/driver -> ../../../../../bus/pci/drivers/virtio-pci
sys/devices/pci0000:00/0000:00:06.0/driver -> ../../../bus/pci/drivers/nvme
sys/devices/pci0000:00/0000:00:07.0/driver -> ../../../bus/pci/drivers/xhci_hcd
sys/devices/pci0000:00/0000:00:07.2/driver -> ../../../bus/pci/drivers/uhci_hcd
sys/devices/pci0000:00/0000:00:08.0/driver -> ../../../bus/pci/drivers/sym53c8xx
sys/devices/pci0000:00/0000:00:09.0/driver -> ../../../bus/pci/drivers/megaraid_sas
sys/devices/pci0000:00/0000:00:0e.0/driver -> ../../../bus/pci/drivers/vmd
sys/devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/driver -> ../../../../../bus/pci/drivers/nvme
sys/devices/virtual/nvme-subsystem/nvme-subsys1/nvme4 -> ../../../pci0000:00/0000:00:06.0/nvme/nvme4
sys/devices/virtual/nvme-subsystem/nvme-subsys1/nvme4n1/
sys/devices/virtual/nvme-subsystem/nvme-subsys2/nvme5 -> ../../../virtual/nvme-fabrics/ctl/nvme5
";

type Expected = Option<([i64; 4], BusType, [i64; 3])>;

/// Domain, bus, slot and function; the kind of bus; bus, target and unit.
fn check(path: &str, expected: Expected) {
    let (root, _directory) = Root::from_text(DRIVERS);
    let found = of_path(&root, &format!("/sys/devices/{path}"));
    let found = found.map(|address| {
        assert_eq!(address.ccw_address, None, "{path}");
        let PciAddress { domain, bus, slot, function } = address.pci_controller;
        ([domain, bus, slot, function], address.bus_type, [address.bus, address.target, address.unit])
    });
    assert_eq!(found, expected, "{path}");
}

const NO_PCI: [i64; 4] = [-1; 4];

#[test]
fn a_virtio_disk_is_known_by_its_function_and_so_are_its_partitions() {
    check("pci0000:00/0000:00:05.0/virtio1/block/vda", Some(([0, 0, 5, 0], BusType::Virtio, [0; 3])));
    check("pci0000:00/0000:00:05.0/virtio1/block/vda/vda1", Some(([0, 0, 5, 0], BusType::Virtio, [0; 3])));
}

#[test]
fn bridges_and_root_ports_are_passed() {
    check("pci0000:00/0000:00:02.0/0000:01:00.0/virtio4/block/vdb", Some(([0, 1, 0, 0], BusType::Virtio, [0; 3])));
    check(
        "pci0000:00/0000:00:03.0/0000:02:01.0/0000:03:1f.7/virtio4/block/vdb",
        Some(([0, 3, 31, 7], BusType::Virtio, [0; 3])),
    );
    check(
        "pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/nvme/nvme0/nvme0n1",
        Some(([65536, 224, 6, 0], BusType::Nvme, [0; 3])),
    );
}

#[test]
fn a_virtio_scsi_disk_on_pci_is_known_by_its_unit_alone() {
    check(
        "pci0000:00/0000:00:05.0/virtio2/host2/target2:0:3/2:0:3:7/block/sda/sda2",
        Some(([0, 0, 5, 0], BusType::Scsi, [0, 0, 7])),
    );
}

#[test]
fn an_ide_disk_is_known_by_its_channel_and_its_place_there() {
    check(
        "pci0000:00/0000:00:01.1/ata1/host0/target0:0:1/0:0:1:0/block/sda",
        Some(([0, 0, 1, 1], BusType::Ide, [0, 0, 1])),
    );
    check(
        "pci0000:00/0000:00:01.1/ata2/host1/target1:0:0/1:0:0:0/block/sdb/sdb1",
        Some(([0, 0, 1, 1], BusType::Ide, [1, 0, 0])),
    );
}

#[test]
fn a_sata_disk_is_known_by_its_port() {
    for (port, unit) in [(9, 0), (10, 1), (11, 2)] {
        check(
            &format!("pci0000:00/0000:00:1f.2/ata{port}/host{port}/target{port}:0:0/{port}:0:0:0/block/sda"),
            Some(([0, 0, 31, 2], BusType::Sata, [0, 0, unit])),
        );
    }
    // As before Linux 3.2.
    check(
        "pci0000:00/0000:00:1e.2/host5/target5:0:0/5:0:0:0/block/sda",
        Some(([0, 0, 30, 2], BusType::Sata, [0, 0, 1])),
    );
}

#[test]
fn an_ata_disk_without_port_or_target_is_not_known() {
    check("pci0000:00/0000:00:1f.2/ata9/block/sda", None);
    check("pci0000:00/0000:00:1f.2/target1:0:0/1:0:0:0/block/sda", None);
}

#[test]
fn nvme_usb_and_old_scsi_disks_are_known_by_their_function() {
    check("pci0000:00/0000:00:06.0/nvme/nvme0/nvme0n1/nvme0n1p1", Some(([0, 0, 6, 0], BusType::Nvme, [0; 3])));
    check(
        "pci0000:00/0000:00:07.0/usb1/1-1/1-1:1.0/host6/target6:0:0/6:0:0:0/block/sdc",
        Some(([0, 0, 7, 0], BusType::Usb, [0; 3])),
    );
    check(
        "pci0000:00/0000:00:07.2/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0/block/sdc",
        Some(([0, 0, 7, 2], BusType::Usb, [0; 3])),
    );
    check(
        "pci0000:00/0000:00:08.0/host2/target2:0:4/2:0:4:0/block/sda",
        Some(([0, 0, 8, 0], BusType::Scsi, [0, 0, 4])),
    );
}

#[test]
fn an_nvme_disk_of_several_paths_is_known_by_the_first_that_is_on_pci() {
    check("virtual/nvme-subsystem/nvme-subsys1/nvme4n1", Some(([0, 0, 6, 0], BusType::Nvme, [0; 3])));
    check("virtual/nvme-subsystem/nvme-subsys2/nvme5n1", None);
    check("virtual/nvme-subsystem/nvme-subsys3/nvme6n1", None);
}

#[test]
fn what_no_known_driver_serves_is_not_known() {
    check("pci0000:00/0000:00:09.0/host2/target2:2:0/2:2:0:0/block/sda", None);
    check("pci0000:00/0000:00:1d.0/odd/block/sda", None);
    check("pci0000:00", None);
    check("vbd-51712/block/xvda", None);
    check("platform/soc/mmc_host/mmc0/mmc0:0001/block/mmcblk0", None);
}

#[test]
fn virtio_without_pci_has_the_whole_scsi_address() {
    check("platform/a003e00.virtio_mmio/virtio3/block/vda", Some((NO_PCI, BusType::Virtio, [0; 3])));
    check(
        "platform/a003e00.virtio_mmio/virtio3/host0/target0:1:2/0:1:2:3/block/sda",
        Some((NO_PCI, BusType::Scsi, [1, 2, 3])),
    );
}

fn check_channel(path: &str, ccw: [i64; 4], bus_type: BusType, numbers: [i64; 3]) {
    let (root, _directory) = Root::from_text("sys/\n");
    let [cssid, ssid, subchno, devno] = ccw;
    let [bus, target, unit] = numbers;
    let ccw_address = Some(CcwAddress { cssid, ssid, subchno, devno });
    let expected = DiskAddress { ccw_address, bus_type, bus, target, unit, ..DiskAddress::UNKNOWN };
    assert_eq!(of_path(&root, &format!("/sys/devices/{path}")), Some(expected), "{path}");
}

#[test]
fn a_disk_on_a_channel_is_known_by_subchannel_and_device() {
    check_channel("css0/0.0.0001/0.0.1a2b/virtio1/block/vda/vda1", [0, 0, 1, 0x1a2b], BusType::Virtio, [0; 3]);
    check_channel(
        "css0/fe.1.00ff/fe.1.0002/virtio2/host0/target0:1:2/0:1:2:3/block/sda",
        [0xfe, 1, 0xff, 2],
        BusType::Scsi,
        [1, 2, 3],
    );
    check_channel("css0/0.0.0003/0.0.0100/block/dasda", [0, 0, 3, 0x100], BusType::Unknown, [0; 3]);
}

/// Two virtio disks, the second with a partition, and devices made of them.
const STACK: &str = "\
sys/devices/pci0000:00/0000:00:05.0/driver -> ../../../bus/pci/drivers/virtio-pci
sys/devices/pci0000:00/0000:00:05.0/virtio1/block/vda/uevent: DEVNAME=vda
sys/devices/pci0000:00/0000:00:06.0/driver -> ../../../bus/pci/drivers/virtio-pci
sys/devices/pci0000:00/0000:00:06.0/virtio2/block/vdb/vdb1/uevent: DEVNAME=vdb1
sys/devices/virtual/block/dm-0/uevent: DEVNAME=dm-0
sys/devices/virtual/block/dm-0/slaves/vda -> ../../../../pci0000:00/0000:00:05.0/virtio1/block/vda
sys/devices/virtual/block/dm-1/slaves/dm-0 -> ../../dm-0
sys/devices/virtual/block/dm-1/slaves/vdb1 -> ../../../../pci0000:00/0000:00:06.0/virtio2/block/vdb/vdb1
sys/devices/virtual/block/dm-2/slaves/dm-0 -> ../../dm-0
sys/devices/virtual/block/dm-2/slaves/dm-1 -> ../../dm-1
sys/devices/virtual/block/md0/slaves/dm-0 -> ../../dm-0
sys/devices/virtual/block/md0/md0p1/uevent: DEVTYPE=partition
sys/devices/virtual/block/loop0/uevent: DEVNAME=loop0
sys/devices/virtual/block/dm-8/slaves/dm-9 -> ../../dm-9
sys/devices/virtual/block/dm-9/slaves/dm-8 -> ../../dm-8
sys/devices/virtual/block/dm-9/slaves/gone -> ../../gone
sys/dev/block/1:0 -> ../../devices/pci0000:00/0000:00:05.0/virtio1/block/vda
sys/dev/block/1:1 -> ../../devices/virtual/block/dm-0
sys/dev/block/1:2 -> ../../devices/virtual/block/dm-1
sys/dev/block/1:3 -> ../../devices/virtual/block/dm-2
sys/dev/block/1:4 -> ../../devices/virtual/block/md0/md0p1
sys/dev/block/1:5 -> ../../devices/virtual/block/loop0
sys/dev/block/1:6 -> ../../devices/virtual/block/dm-8
";

/// Slot and node of each disk, in the order of slots.
fn check_stack(minor: u32, expected: &[(i64, &str)]) {
    let (root, _directory) = Root::from_text(STACK);
    let device = BlockDevice::by_number(&root, Number { major: 1, minor }).unwrap();
    let addresses = of_disks_beneath(&root, &[device]);
    let mut disks: Vec<_> =
        addresses.iter().map(|address| (address.pci_controller.slot, address.dev.as_deref().unwrap())).collect();
    disks.sort_unstable();
    assert_eq!(disks, expected);
}

#[test]
fn a_device_made_of_others_has_their_disks() {
    check_stack(0, &[(5, "/dev/vda")]);
    check_stack(1, &[(5, "/dev/vda")]);
    check_stack(2, &[(5, "/dev/vda"), (6, "/dev/vdb1")]);
}

#[test]
fn a_disk_that_is_reached_in_two_ways_is_listed_once() {
    check_stack(3, &[(5, "/dev/vda"), (6, "/dev/vdb1")]);
}

#[test]
fn a_partition_of_a_device_made_of_others_has_their_disks() {
    check_stack(4, &[(5, "/dev/vda")]);
}

#[test]
fn a_device_made_of_no_disk_or_of_itself_has_none() {
    check_stack(5, &[]);
    // The missing one is not known at all.
    let (root, _directory) = Root::from_text(STACK);
    let device = BlockDevice::by_number(&root, Number { major: 1, minor: 6 }).unwrap();
    assert_eq!(of_disks_beneath(&root, &[device]), []);
}

#[test]
fn a_disk_in_an_unknown_place_is_known_by_its_node() {
    let (root, _directory) = Root::from_text(
        "sys/dev/block/202:0 -> ../../devices/vbd-51712/block/xvda\n\
         sys/devices/vbd-51712/block/xvda/uevent: DEVNAME=xvda\n\
         sys/dev/block/202:1 -> ../../devices/vbd-51712/block/odd\n",
    );
    let at = |minor| BlockDevice::by_number(&root, Number { major: 202, minor }).unwrap();
    let expected = DiskAddress { dev: Some("/dev/xvda".into()), ..DiskAddress::UNKNOWN };
    assert_eq!(of_disks_beneath(&root, &[at(0)]), [expected]);
    assert_eq!(of_disks_beneath(&root, &[at(1)]), []);
}
