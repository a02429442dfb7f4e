//! `qgactl fs`: the guest's mounted file systems.

use clap::Args;
use indicatif::BinaryBytes;
use qga::{
    Command,
    commands::storage::{BusType, DiskAddress, FileSystem, GetFsinfo, PciAddress},
};

use super::{AgentSubcommand, call, print};
use crate::{connect::Agent, table::table};

/// Show the guest's mounted file systems, their use, and the disks beneath them
#[derive(Args, Debug)]
pub(crate) struct Fs {}

impl AgentSubcommand for Fs {
    const HAS_JSON: bool = true;

    fn run_with(&self, agent: &mut Agent, json: bool) -> anyhow::Result<()> {
        if json {
            return call::print_received(agent, GetFsinfo::SPEC.name);
        }
        print(&file_systems(&agent.call(&GetFsinfo {})?))
    }
}

/// One row for each file system in the order of mounting, and one for each further disk beneath it.
fn file_systems(file_systems: &[FileSystem]) -> String {
    let mut rows = Vec::new();
    // Agents list the last one first.
    for one in file_systems.iter().rev() {
        let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".into(), |bytes| BinaryBytes(bytes).to_string());
        let mut disks = one.disk.iter().map(disk);
        rows.push(vec![
            one.mountpoint.clone(),
            one.kind.clone(),
            size(one.total_bytes),
            size(one.used_bytes),
            one.used_bytes.zip(one.total_bytes).map_or_else(|| "-".into(), |(used, total)| share(used, total)),
            one.name.clone(),
            disks.next().unwrap_or_else(|| "-".into()),
        ]);
        rows.extend(disks.map(|disk| [vec![String::new(); 6], vec![disk]].concat()));
    }
    table(&["mounted on", "type", "size", "used", "full", "device", "disk"], &rows)
}

/// In percent, rounded up as df(1) does.
fn share(used: u64, total: u64) -> String {
    let percent = (u128::from(used) * 100).div_ceil(u128::from(total.max(1)));
    format!("{percent} %")
}

/// A disk in a few words: node, bus, address and serial, as far as they are known.
pub(super) fn disk(address: &DiskAddress) -> String {
    let mut words: Vec<String> = address.dev.iter().cloned().collect();
    words.extend(location(address));
    words.extend(address.serial.iter().map(|serial| format!("serial {serial}")));
    words.join(" ")
}

/// The bus and the address on it.
pub(super) fn location(address: &DiskAddress) -> Option<String> {
    let mut words = Vec::new();
    if address.bus_type != BusType::Unknown {
        words.push(serde_json::to_value(address.bus_type).ok()?.as_str()?.to_owned());
    }
    let PciAddress { domain, bus, slot, function } = address.pci_controller;
    if address.pci_controller != PciAddress::UNKNOWN {
        words.push(format!("{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"));
    }
    if let Some(ccw) = address.ccw_address {
        words.push(format!("{:x}.{:x}.{:04x}", ccw.cssid, ccw.ssid, ccw.devno));
    }
    if matches!(address.bus_type, BusType::Ide | BusType::Sata | BusType::Scsi) {
        words.push(format!("{}:{}:{}", address.bus, address.target, address.unit));
    }
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_system_and_each_further_disk_has_a_row() {
        let scsi = DiskAddress {
            pci_controller: PciAddress { domain: 0, bus: 1, slot: 31, function: 2 },
            bus_type: BusType::Scsi,
            unit: 5,
            dev: Some("/dev/sda2".into()),
            serial: Some("S-1".into()),
            ..DiskAddress::UNKNOWN
        };
        let odd = DiskAddress { dev: Some("/dev/xvda".into()), ..DiskAddress::UNKNOWN };
        let one = |name: &str, mountpoint: &str, disk| FileSystem {
            name: name.into(),
            mountpoint: mountpoint.into(),
            kind: "ext4".into(),
            used_bytes: None,
            total_bytes: None,
            total_bytes_privileged: None,
            disk,
        };
        let root = FileSystem { used_bytes: Some(1), total_bytes: Some(2048), ..one("dm-0", "/", vec![scsi, odd]) };
        let expected = "\
mounted on  type  size      used  full  device  disk
/           ext4  2.00 KiB  1 B   1 %   dm-0    /dev/sda2 scsi 0000:01:1f.2 0:0:5 serial S-1
                                                /dev/xvda
/gone       ext4  -         -     -     7:99    -
";
        assert_eq!(file_systems(&[one("7:99", "/gone", Vec::new()), root]), expected);
    }

    #[test]
    fn an_empty_file_system_is_not_full() {
        assert_eq!(share(0, 0), "0 %");
        assert_eq!(share(u64::MAX, u64::MAX), "100 %");
    }
}
