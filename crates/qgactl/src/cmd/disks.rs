//! `qgactl disks`: the guest's disks, as a tree of what stands on what.

use std::collections::HashMap;

use clap::Args;
use qga::{
    Command,
    commands::storage::{Disk, DiskSmart, GetDisks},
};

use super::{call, fs::place, print};
use crate::{connect::Agent, table::table};

/// Show the guest's disks, their partitions, and what is made of them
#[derive(Args, Debug)]
pub(crate) struct Disks {}

impl Disks {
    pub(crate) fn run(&self, agent: &mut Agent, json: bool) -> anyhow::Result<()> {
        if json {
            return call::print_received(agent, GetDisks::SPEC.name);
        }
        print(&tree(&agent.call(&GetDisks {})?))
    }
}

/// How deep the tree is shown; an agent could name two disks as parts of each other.
const MAX_DEPTH: usize = 16;
/// What 0 °C is in Kelvin, as controllers count.
const FREEZING_POINT: u64 = 273;

/// A row a disk, below each that it is a part of or made of.
fn tree(disks: &[Disk]) -> String {
    let known: HashMap<&str, &Disk> = disks.iter().map(|disk| (disk.name.as_str(), disk)).collect();
    let mut upon: HashMap<&str, Vec<&Disk>> = HashMap::new();
    let mut bottom = Vec::new();
    for disk in disks {
        let mut dependencies =
            disk.dependencies.iter().flatten().filter(|name| known.contains_key(name.as_str())).peekable();
        if dependencies.peek().is_none() {
            bottom.push(disk);
        }
        dependencies.for_each(|name| upon.entry(name).or_default().push(disk));
    }
    upon.values_mut().for_each(|disks| disks.sort_by(|one, other| natural(&one.name).cmp(&natural(&other.name))));
    bottom.sort_by(|one, other| natural(&one.name).cmp(&natural(&other.name)));
    let mut rows = Vec::new();
    bottom.into_iter().for_each(|disk| grow(disk, &upon, 0, &mut rows));
    table(&["disk", "kind", "place", "serial", "health"], &rows)
}

fn grow(disk: &Disk, upon: &HashMap<&str, Vec<&Disk>>, depth: usize, rows: &mut Vec<Vec<String>>) {
    let dash = || "-".to_owned();
    let address = disk.address.as_ref();
    let kind = match (disk.partition, &disk.address) {
        (true, _) => "partition",
        (false, Some(_)) => "disk",
        (false, None) => "virtual",
    };
    let alias = disk.alias.as_ref().map(|alias| format!(" ({alias})")).unwrap_or_default();
    rows.push(vec![
        format!("{}{}{alias}", "  ".repeat(depth), disk.name),
        kind.into(),
        address.and_then(place).unwrap_or_else(dash),
        address.and_then(|address| address.serial.clone()).unwrap_or_else(dash),
        disk.smart.as_ref().map_or_else(dash, health),
    ]);
    if depth < MAX_DEPTH {
        upon.get(disk.name.as_str()).into_iter().flatten().for_each(|disk| grow(disk, upon, depth + 1, rows));
    }
}

fn health(smart: &DiskSmart) -> String {
    let DiskSmart::Nvme(smart) = smart;
    let warning = if smart.critical_warning == 0 { "good" } else { "WARNING" };
    format!(
        "{warning}, {} % used, {} °C",
        smart.percentage_used,
        i128::from(smart.temperature) - i128::from(FREEZING_POINT)
    )
}

/// Sorts `sda10` behind `sda9`.
fn natural(name: &str) -> (&str, u64) {
    let text = name.trim_end_matches(|character: char| character.is_ascii_digit());
    (text, name[text.len()..].parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use qga::commands::storage::{BusType, DiskAddress, NvmeSmart, PciAddress};

    use super::*;

    fn disk(name: &str, dependencies: &[&str]) -> Disk {
        Disk {
            name: name.into(),
            partition: false,
            dependencies: Some(dependencies.iter().map(ToString::to_string).collect()),
            address: None,
            alias: None,
            smart: None,
        }
    }

    #[test]
    fn what_is_made_of_a_disk_stands_below_it() {
        let address = DiskAddress {
            pci_controller: PciAddress { domain: 0, bus: 0, slot: 8, function: 0 },
            bus_type: BusType::Nvme,
            serial: Some("N-1".into()),
            ..DiskAddress::UNKNOWN
        };
        let smart = NvmeSmart { temperature: 323, percentage_used: 3, ..NvmeSmart::default() };
        let nvme = Disk { address: Some(address), smart: Some(DiskSmart::Nvme(smart)), ..disk("/dev/nvme0n1", &[]) };
        let partition = |name: &str| Disk { partition: true, ..disk(name, &["/dev/nvme0n1"]) };
        let mapped = Disk { alias: Some("vg-root".into()), ..disk("/dev/dm-0", &["/dev/nvme0n1p2", "/dev/hidden"]) };
        let expected = "\
disk                     kind       place              serial  health
/dev/nvme0n1             disk       nvme 0000:00:08.0  N-1     good, 3 % used, 50 °C
  /dev/nvme0n1p2         partition  -                  -       -
    /dev/dm-0 (vg-root)  virtual    -                  -       -
  /dev/nvme0n1p10        partition  -                  -       -
";
        let disks = [mapped, partition("/dev/nvme0n1p10"), partition("/dev/nvme0n1p2"), nvme];
        assert_eq!(tree(&disks), expected);
    }

    #[test]
    fn disks_that_are_made_of_each_other_end_somewhere() {
        let text = tree(&[disk("/dev/a", &["/dev/b"]), disk("/dev/b", &["/dev/a"]), disk("/dev/c", &[])]);
        assert_eq!(text.lines().count(), 2);
        let text = tree(&[disk("/dev/a", &[]), disk("/dev/b", &["/dev/b", "/dev/a"])]);
        assert!(text.lines().count() > 2, "{text}");
    }
}
