//! File systems and disks.
//!
//! The mounted file systems are those of [`mounts`], last mounted first, each with its size and the disks beneath it.
//! If a device is unusual, suspended or dead, only its own members are absent: hosts discard a whole reply for one bad
//! entry.
//! Disks are listed in the reverse of the kernel's order, partitions before their disk; empty disks are left out.

mod trim;

use std::path::{Path, PathBuf};

use qga::{
    commands::storage::{
        BusType, Disk, DiskSmart, DiskStats, DiskStatsInfo, FileSystem, GetDisks, GetDiskstats, GetFsinfo,
    },
    wire::message::Error,
};

use super::{Result, Run};
use crate::{
    guest::Guest,
    root::Root,
    storage::{address, btrfs, capacity, device::BlockDevice, mounts, smart},
    util::errno::{self, could_not_open},
};

/// The kernel's list of disks.
const DISKS: &str = "/sys/block";
/// The kernel's counters of disks.
const STATISTICS: &str = "/proc/diskstats";

impl Run for GetFsinfo {
    fn run(self, guest: &Guest) -> Result<Vec<FileSystem>> {
        let mounts = mounts::list(&guest.root)?;
        let capacities = capacity::measure(&guest.probes, &guest.root, &mounts);
        let ids = btrfs::ids(&guest.probes, &guest.root, &mounts);
        let file_systems = mounts.into_iter().zip(capacities).zip(ids).map(|((mount, capacity), id)| {
            let devices = match &*mount.kind {
                btrfs::KIND => btrfs::devices(&guest.root, id.as_deref(), mount.device),
                _ => BlockDevice::by_number(&guest.root, mount.device).into_iter().collect(),
            };
            FileSystem {
                name: devices.first().map_or_else(|| mount.device.to_string(), BlockDevice::name),
                mountpoint: mount.mount_point.to_string_lossy().into_owned(),
                kind: mount.kind,
                used_bytes: capacity.map(|capacity| capacity.used),
                total_bytes: capacity.map(|capacity| capacity.total),
                total_bytes_privileged: capacity.map(|capacity| capacity.privileged),
                disk: address::of_disks_beneath(&guest.root, &devices),
            }
        });
        Ok(file_systems.rev().collect())
    }
}

impl Run for GetDisks {
    fn run(self, guest: &Guest) -> Result<Vec<Disk>> {
        let mut disks = disks(&guest.root)?;
        let is_nvme = |disk: &&mut Disk| disk.address.as_ref().is_some_and(|address| address.bus_type == BusType::Nvme);
        let controllers: Vec<_> = disks.iter_mut().filter(is_nvme).collect();
        let nodes = controllers.iter().map(|disk| PathBuf::from(&disk.name)).collect();
        let logs = smart::ask(&guest.probes, &guest.root, nodes);
        for (disk, log) in controllers.into_iter().zip(logs) {
            disk.smart = log.map(DiskSmart::Nvme);
        }
        Ok(disks)
    }
}

/// All disks with their partitions, without SMART data.
fn disks(root: &Root) -> Result<Vec<Disk>> {
    let names = root
        .names(DISKS)
        .map_err(|error| Error::generic(format!("Can't open directory \"{DISKS}\": {}", errno::describe(error))))?;
    let mut disks = Vec::new();
    for name in names {
        let Some(device) = BlockDevice::by_link(root, &Path::new(DISKS).join(name)) else { continue };
        let Some(node) = device.node().filter(|_| !device.is_empty()) else { continue };
        let parts = device.underlying();
        disks.push(Disk {
            name: node.clone(),
            partition: false,
            dependencies: parts.map(|parts| parts.iter().rev().filter_map(BlockDevice::node).collect()),
            address: if device.is_virtual() { None } else { address::of_disk(root, &device) },
            alias: device.alias(),
            smart: None,
        });
        disks.extend(device.partitions().iter().filter_map(|partition| {
            let dependencies = Some(vec![node.clone()]);
            Some(Disk {
                name: partition.node()?,
                partition: true,
                dependencies,
                address: None,
                alias: None,
                smart: None,
            })
        }));
    }
    disks.reverse();
    Ok(disks)
}

impl Run for GetDiskstats {
    fn run(self, guest: &Guest) -> Result<Vec<DiskStatsInfo>> {
        statistics(&guest.root)
    }
}

/// The kernel's counters of all disks and partitions.
pub(super) fn statistics(root: &Root) -> Result<Vec<DiskStatsInfo>> {
    let contents = root.read(STATISTICS).map_err(|error| could_not_open(STATISTICS, error))?;
    Ok(String::from_utf8_lossy(&contents).lines().filter_map(read_statistics).collect())
}

/// A line of diskstats. Newer kernels have more counters, and their number determines their meaning.
fn read_statistics(line: &str) -> Option<DiskStatsInfo> {
    let mut columns = line.split_ascii_whitespace();
    let (major, minor) = (columns.next()?.parse().ok()?, columns.next()?.parse().ok()?);
    let name = columns.next()?.into();
    let counters: Vec<u64> = columns.map_while(|column| column.parse().ok()).collect();
    let stats = match counters[..] {
        // A partition in an old kernel.
        [read_ios, read_sectors, write_ios, write_sectors] => DiskStats {
            read_ios: Some(read_ios),
            read_sectors: Some(read_sectors),
            write_ios: Some(write_ios),
            write_sectors: Some(write_sectors),
            ..DiskStats::default()
        },
        [_, _, _, _, ..] => read_counters(&counters),
        _ => return None,
    };
    Some(DiskStatsInfo { name, major, minor, stats })
}

fn read_counters(counters: &[u64]) -> DiskStats {
    // Kernels added counters in groups; a part of a group means something else.
    let of_group = |end: usize, index: usize| if counters.len() < end { None } else { counters.get(index).copied() };
    let (basic, discard, flush) =
        (|index| of_group(11, index), |index| of_group(15, index), |index| of_group(17, index));
    DiskStats {
        read_ios: basic(0),
        read_merges: basic(1),
        read_sectors: basic(2),
        read_ticks: basic(3),
        write_ios: basic(4),
        write_merges: basic(5),
        write_sectors: basic(6),
        write_ticks: basic(7),
        ios_pgr: basic(8),
        total_ticks: basic(9),
        weight_ticks: basic(10),
        discard_ios: discard(11),
        discard_merges: discard(12),
        discard_sectors: discard(13),
        discard_ticks: discard(14),
        flush_ios: flush(15),
        flush_ticks: flush(16),
    }
}

#[cfg(test)]
mod tests;
