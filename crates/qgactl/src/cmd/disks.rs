//! `qgactl disks`: the guest's disks, as a tree.

use std::{
    collections::{HashMap, HashSet},
    ptr,
};

use clap::Args;
use qga::{
    Command,
    commands::storage::{Disk, DiskSmart, GetDisks},
};

use super::{AgentSubcommand, call, fs::location, print};
use crate::{
    connect::Agent,
    render::piece,
    table::{MAX_ROWS, table},
};

/// Show the guest's disks, their partitions, and the devices built on them
#[derive(Args, Debug)]
pub(crate) struct Disks {}

impl AgentSubcommand for Disks {
    const HAS_JSON: bool = true;

    fn run_with(&self, agent: &mut Agent, json: bool) -> anyhow::Result<()> {
        if json {
            return call::print_received(agent, GetDisks::SPEC.name);
        }
        print(&tree(&agent.call(&GetDisks {})?))
    }
}

/// Deepest nesting that is shown. A deeper disk begins a tree of its own.
const MAX_DEPTH: usize = 16;
/// 0 °C in Kelvin, the unit that controllers report.
const FREEZING_POINT: u64 = 273;

/// One row for each disk, below the first disk that it is built on, and a row with its name below each further one.
fn tree(disks: &[Disk]) -> String {
    let mut disks: Vec<&Disk> = disks.iter().collect();
    disks.sort_by(|one, other| natural(&one.name).cmp(&natural(&other.name)));
    let known: HashSet<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
    let mut tree = Tree::default();
    let mut bottom = Vec::new();
    for disk in &disks {
        let names = disk.dependencies.iter().flatten().map(String::as_str);
        let below: HashSet<&str> = names.filter(|name| known.contains(name)).collect();
        if below.is_empty() {
            bottom.push(disk);
        }
        below.into_iter().for_each(|name| tree.upon.entry(name).or_default().push(disk));
    }
    bottom.into_iter().for_each(|disk| tree.grow(disk, 0));
    for disk in disks {
        // It stands too high, or on one that stands on itself, as an agent could say.
        if !tree.shown.contains(&ptr::from_ref(disk)) {
            tree.grow(disk, 0);
        }
    }
    table(&["disk", "kind", "place", "serial", "health"], &tree.rows)
}

#[derive(Default)]
struct Tree<'a> {
    /// The disks that are built on a disk, until they are shown.
    upon: HashMap<&'a str, Vec<&'a Disk>>,
    /// By address: a name may be long, and is then compared once for each disk.
    shown: HashSet<*const Disk>,
    rows: Vec<Vec<String>>,
}

impl<'a> Tree<'a> {
    fn grow(&mut self, disk: &'a Disk, depth: usize) {
        // As many as the table shows, and one by which it knows of more.
        if self.rows.len() > MAX_ROWS {
            return;
        }
        let name = format!("{}{}", "  ".repeat(depth), piece(&disk.name));
        if !self.shown.insert(disk) {
            self.rows.push(vec![name]);
            return;
        }
        self.rows.push(row(name, disk));
        if depth < MAX_DEPTH {
            let upon = self.upon.remove(disk.name.as_str()).unwrap_or_default();
            upon.into_iter().for_each(|disk| self.grow(disk, depth + 1));
        }
    }
}

fn row(name: String, disk: &Disk) -> Vec<String> {
    let dash = || "-".to_owned();
    let address = disk.address.as_ref();
    let kind = match (disk.partition, address) {
        (true, _) => "partition",
        (false, Some(_)) => "disk",
        (false, None) => "virtual",
    };
    let alias = disk.alias.as_ref().map(|alias| format!(" ({alias})")).unwrap_or_default();
    vec![
        name + &alias,
        kind.into(),
        address.and_then(location).unwrap_or_else(dash),
        address.and_then(|address| address.serial.clone()).unwrap_or_else(dash),
        disk.smart.as_ref().map_or_else(dash, health),
    ]
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

/// The sort key by which `sda10` follows `sda9`.
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

    fn names(disks: &[Disk]) -> Vec<String> {
        tree(disks).lines().skip(1).map(|line| line.split(" v").next().unwrap().trim_end().into()).collect()
    }

    #[test]
    fn a_disk_that_is_made_of_two_stands_below_both() {
        let disks = [disk("a", &[]), disk("b", &[]), disk("md", &["b", "a", "a"]), disk("lv", &["md"])];
        assert_eq!(names(&disks), ["a", "  md", "    lv", "b", "  md"]);
    }

    #[test]
    fn disks_that_are_made_of_each_other_end_somewhere() {
        let disks = [disk("a", &["b"]), disk("b", &["a"]), disk("c", &[]), disk("d", &["d", "c"])];
        assert_eq!(names(&disks), ["c", "  d", "    d", "a", "  b", "    a"]);
        let all: Vec<_> = (0..13).map(|number| format!("d{number}")).collect();
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        let disks: Vec<_> = all.iter().map(|name| disk(name, &[&all[..], &["root"]].concat())).collect();
        let disks = [disks, vec![disk("root", &[])]].concat();
        assert_eq!(names(&disks).len(), 1 + 13 + 13 * 13);
    }

    #[test]
    fn a_tower_of_disks_is_shown_in_pieces_and_not_without_end() {
        let name = |number: usize| format!("d{number}");
        let floor = |number: usize| disk(&name(number + 1), &[&name(number)]);
        let tower: Vec<_> = [disk("d0", &[])].into_iter().chain((0..100).map(floor)).collect();
        let shown = names(&tower);
        assert_eq!((shown.len(), shown[16].trim_start(), shown[17].as_str()), (101, "d16", "d17"));
        assert_eq!(shown[16].len(), 2 * MAX_DEPTH + 3);
        let tower: Vec<_> = (0..100_000).map(floor).collect();
        assert_eq!(names(&tower).len(), MAX_ROWS + 1);
    }
}
