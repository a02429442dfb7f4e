//! Figures for monitoring.
//!
//! Each part is read once, from the kernel's files in memory, and none fails the others: what cannot be read is absent.
//! Only file systems can keep a caller waiting. They are asked as `guest-get-fsinfo` asks them, and one that does not
//! answer is left out and named. While file systems are frozen, none is asked and no path is followed that could lead
//! to one: what is not frozen may stand on what is.
//! The state of the clock is the kernel's and not that of a time service's files, which are private to each service and
//! may be on a frozen disk.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use nix::unistd::{SysconfVar, sysconf};
use qga::{
    commands::{
        metrics::{
            AgentMetrics, ClockMetrics, FileSystemLeftOut, FileSystemMetrics, GetMetrics, InterfaceMetrics,
            LeftOutReason, Metrics, MetricsPart, NetworkMetrics, PressureMetrics, ProcessMetrics,
        },
        storage::DiskStatsInfo,
    },
    kernel,
};

use super::{Result, Run, cpu, network, storage};
use crate::{
    guest::Guest,
    root::Root,
    storage::{
        capacity,
        device::BlockDevice,
        mounts::{self, Mount},
    },
    sys::clock::{self, ClockState},
};

/// A directory for each network interface.
const INTERFACES: &str = "/sys/class/net";

impl Run for GetMetrics {
    fn run(self, guest: &Guest) -> Result<Metrics> {
        let root = &guest.root;
        let read = |path: &str| root.read(path).ok();
        let wants = |part| self.parts.as_ref().is_none_or(|parts| parts.contains(&part));
        // These files serve two parts each.
        let read_for = |parts: [MetricsPart; 2], path| parts.into_iter().any(wants).then(|| read(path)).flatten();
        let stat = read_for([MetricsPart::Processors, MetricsPart::Processes], cpu::STATISTICS);
        let loadavg = read_for([MetricsPart::Load, MetricsPart::Processes], cpu::LOAD);
        let (file_systems, file_systems_left_out) =
            wants(MetricsPart::FileSystems).then(|| file_systems(guest)).flatten().unzip();
        Ok(Metrics {
            uptime: read("/proc/uptime").and_then(|contents| kernel::uptime(&contents)),
            boot_id: read("/proc/sys/kernel/random/boot_id")
                .map(|id| String::from_utf8_lossy(id.trim_ascii()).into_owned()),
            memory: wants(MetricsPart::Memory).then(|| Some(kernel::memory(&read("/proc/meminfo")?))).flatten(),
            pressure: wants(MetricsPart::Pressure).then(|| pressure(root)).flatten(),
            load: wants(MetricsPart::Load).then(|| kernel::load(loadavg.as_deref()?)).flatten(),
            processors: wants(MetricsPart::Processors)
                .then(|| Some(cpu::statistics(stat.as_deref()?, cpu::ticks_per_second())))
                .flatten(),
            disks: wants(MetricsPart::Disks).then(|| disks(root)).flatten(),
            file_systems,
            file_systems_left_out,
            network: wants(MetricsPart::Network).then(|| interfaces(guest)).flatten(),
            processes: wants(MetricsPart::Processes).then(|| processes(root, stat.as_deref(), loadavg.as_deref())),
            clock: (wants(MetricsPart::Clock) && root.is_machine())
                .then(|| clock::state().ok().map(clock_metrics))
                .flatten(),
            agent: wants(MetricsPart::Agent).then(|| agent(guest)),
        })
    }
}

/// The pressure on each resource. A kernel may have been built without it, or started with it off.
fn pressure(root: &Root) -> Option<PressureMetrics> {
    let read = |path: &str| Some(kernel::pressure(&root.read(path).ok()?));
    let pressure = PressureMetrics {
        cpu: read("/proc/pressure/cpu"),
        memory: read("/proc/pressure/memory"),
        io: read("/proc/pressure/io"),
    };
    (pressure != PressureMetrics::default()).then_some(pressure)
}

/// Disks that have had a request.
fn disks(root: &Root) -> Option<Vec<DiskStatsInfo>> {
    let mut disks = storage::statistics(root).ok()?;
    disks.retain(|disk| kernel::has_had_requests(&disk.stats));
    Some(disks)
}

/// The file systems that answer, and those that do not.
fn file_systems(guest: &Guest) -> Option<(Vec<FileSystemMetrics>, Vec<FileSystemLeftOut>)> {
    let root = &guest.root;
    if guest.freezer.refuses_commands() {
        let mounts = mounts::list_without_asking(root).ok()?;
        return Some((Vec::new(), mounts.iter().map(|mount| left_out(mount, LeftOutReason::Frozen)).collect()));
    }
    let mounts = mounts::list(root).ok()?;
    let capacities = capacity::measure(&guest.probes, root, &mounts);
    let (mut answered, mut others) = (Vec::new(), Vec::new());
    for (mount, capacity) in mounts.iter().zip(capacities) {
        match capacity {
            Some(capacity) => answered.push(FileSystemMetrics {
                mountpoint: mount.mount_point.to_string_lossy().into_owned(),
                name: BlockDevice::by_number(root, mount.device)
                    .map_or_else(|| mount.device.to_string(), |device| device.name()),
                kind: mount.kind.clone(),
                size: capacity.privileged,
                used: capacity.used,
                available: capacity.total.saturating_sub(capacity.used),
                inodes: capacity.inodes.map(|inodes| inodes.total),
                inodes_used: capacity.inodes.map(|inodes| inodes.used),
            }),
            None if mount.is_hidden => others.push(left_out(mount, LeftOutReason::Hidden)),
            None => others.push(left_out(mount, LeftOutReason::NoAnswer)),
        }
    }
    Some((answered, others))
}

fn left_out(mount: &Mount, reason: LeftOutReason) -> FileSystemLeftOut {
    FileSystemLeftOut { mountpoint: mount.mount_point.to_string_lossy().into_owned(), reason }
}

/// An interface is physical if it has a device on a bus.
fn interfaces(guest: &Guest) -> Option<NetworkMetrics> {
    let contents = guest.root.read(network::STATISTICS).ok()?;
    let (mut physical, mut other) = (Vec::new(), Vec::new());
    for (name, statistics) in kernel::interfaces(&contents) {
        if guest.interfaces_exclude.matches(name) {
            continue;
        }
        let directory = Path::new(INTERFACES).join(OsStr::from_bytes(name));
        let has_device = guest.root.read_link(directory.join("device")).is_ok();
        let name = String::from_utf8_lossy(name).into_owned();
        let list = if has_device { &mut physical } else { &mut other };
        list.push(InterfaceMetrics { name, statistics });
    }
    Some(NetworkMetrics { physical: Some(physical), other: Some(other) })
}

fn processes(root: &Root, stat: Option<&[u8]>, loadavg: Option<&[u8]>) -> ProcessMetrics {
    let is_process = |name: &&OsString| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    ProcessMetrics {
        processes: root.names("/proc").ok().map(|names| names.iter().filter(is_process).count() as u64),
        ..kernel::processes(stat.unwrap_or_default(), loadavg.unwrap_or_default())
    }
}

#[allow(clippy::cast_precision_loss, reason = "errors of centuries would be needed")]
fn clock_metrics(state: ClockState) -> ClockMetrics {
    let known = |seconds: f64| state.is_synchronized.then_some(seconds);
    ClockMetrics {
        synchronized: Some(state.is_synchronized),
        offset: state.offset.and_then(|nanoseconds| known(nanoseconds as f64 / 1e9)),
        maximum_error: known(state.maximum_error as f64 / 1e6),
        estimated_error: known(state.estimated_error as f64 / 1e6),
    }
}

fn agent(guest: &Guest) -> AgentMetrics {
    let counts = guest.activity.counts();
    AgentMetrics {
        version: Some(env!("CARGO_PKG_VERSION").into()),
        uptime: Some(counts.uptime.as_secs_f64()),
        requests: Some(counts.requests),
        refused: Some(counts.refused),
        timed_out: Some(counts.timed_out),
        stuck: Some(counts.stuck),
        frozen_for: guest.freezer.frozen_for().map(|time| time.as_secs_f64()),
        memory: resident_bytes(&guest.root),
    }
}

/// From the file with the numbers of pages: the one in words costs the kernel ten times as much.
fn resident_bytes(root: &Root) -> Option<u64> {
    let pages = root.read("/proc/self/statm").ok()?;
    let resident: u64 = str::from_utf8(&pages).ok()?.split(' ').nth(1)?.parse().ok()?;
    let page_bytes = sysconf(SysconfVar::PAGE_SIZE).ok()??;
    resident.checked_mul(page_bytes.try_into().ok()?)
}

#[cfg(test)]
mod tests;
