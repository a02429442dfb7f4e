//! Every metric, in the order in which they are printed. Each is defined here and nowhere else.
//!
//! Names follow those that administrators know from the exporter of Linux machines, with `guest_` in front. Sizes are
//! in bytes and times in seconds; the protocol's milliseconds and sectors are converted.

use qga::commands::{
    cpu::CpuStats,
    metrics::{
        AgentMetrics, ClockMetrics, FileSystemMetrics, LeftOutReason, MemoryMetrics, Metrics, Pressure, ProcessMetrics,
    },
    network::InterfaceStatistics,
    storage::DiskStats,
};

use super::{Family, Kind, Samples};
use crate::metrics::Machine;

/// Bytes of a sector in the kernel's counters, whatever the disk has.
const SECTOR_BYTES: u64 = 512;

macro_rules! families {
    ($($kind:ident $name:literal $help:literal $add:expr;)*) => {
        /// Every metric.
        pub(super) const FAMILIES: &[Family] =
            &[$(Family { name: concat!("guest_", $name), kind: Kind::$kind, help: $help, add: $add }),*];
    };
}

families! {
    Gauge "up" "Whether the agent of the machine answers."
        |machine, samples| samples.add(&[], Some(u8::from(machine.figures.is_ok())));
    Gauge "agent_info" "The version of the agent." agent_info;
    Gauge "agent_uptime_seconds" "Time since the agent was started."
        |machine, samples| samples.add(&[], agent(machine).and_then(|agent| agent.uptime));
    Counter "agent_requests_total" "Requests that the agent has read."
        |machine, samples| samples.add(&[], agent(machine).and_then(|agent| agent.requests));
    Counter "agent_refused_requests_total" "Requests that the configuration of the agent or a freeze has refused."
        |machine, samples| samples.add(&[], agent(machine).and_then(|agent| agent.refused));
    Counter "agent_timed_out_commands_total" "Commands that the agent has given up at their timeout."
        |machine, samples| samples.add(&[], agent(machine).and_then(|agent| agent.timed_out));
    Gauge "agent_stuck_commands" "Commands that the agent has given up and that have not ended."
        |machine, samples| samples.add(&[], agent(machine).and_then(|agent| agent.stuck));
    Gauge "agent_memory_bytes" "Resident memory of the agent."
        |machine, samples| samples.add(&[], agent(machine).and_then(|agent| agent.memory));
    Gauge "frozen" "Whether file systems are frozen." frozen;
    Gauge "frozen_seconds" "Time for which file systems have been frozen."
        |machine, samples| samples.add(&[], agent(machine).and_then(|agent| agent.frozen_for));
    Gauge "uptime_seconds" "Time since the guest was booted."
        |machine, samples| samples.add(&[], metrics(machine).and_then(|metrics| metrics.uptime));
    Gauge "boot_info" "The boot id of the guest: counters begin anew with another one." boot_info;
    Gauge "memory_total_bytes" "Usable memory."
        |machine, samples| samples.add(&[], memory(machine).and_then(|memory| memory.total));
    Gauge "memory_free_bytes" "Memory that is used for nothing."
        |machine, samples| samples.add(&[], memory(machine).and_then(|memory| memory.free));
    Gauge "memory_available_bytes" "Memory that programs can get without swapping."
        |machine, samples| samples.add(&[], memory(machine).and_then(|memory| memory.available));
    Gauge "memory_buffers_bytes" "Cached blocks of devices."
        |machine, samples| samples.add(&[], memory(machine).and_then(|memory| memory.buffers));
    Gauge "memory_cached_bytes" "Cached files, with those that exist in memory only."
        |machine, samples| samples.add(&[], memory(machine).and_then(|memory| memory.cached));
    Gauge "memory_slab_bytes" "Objects of the kernel."
        |machine, samples| samples.add(&[], memory(machine).and_then(|memory| memory.slab));
    Gauge "swap_total_bytes" "Swap space."
        |machine, samples| samples.add(&[], memory(machine).and_then(|memory| memory.swap_total));
    Gauge "swap_free_bytes" "Swap space that is unused."
        |machine, samples| samples.add(&[], memory(machine).and_then(|memory| memory.swap_free));
    Counter "pressure_waiting_seconds_total" "Time in which some program waited for the resource."
        |machine, samples| pressure(machine, samples, |pressure| pressure.some.as_ref()?.total);
    Counter "pressure_stalled_seconds_total" "Time in which all programs waited for the resource."
        |machine, samples| pressure(machine, samples, |pressure| pressure.full.as_ref()?.total);
    Gauge "load1" "Load average over one minute."
        |machine, samples| samples.add(&[], metrics(machine).and_then(|metrics| Some(metrics.load?.load1m)));
    Gauge "load5" "Load average over five minutes."
        |machine, samples| samples.add(&[], metrics(machine).and_then(|metrics| Some(metrics.load?.load5m)));
    Gauge "load15" "Load average over fifteen minutes."
        |machine, samples| samples.add(&[], metrics(machine).and_then(|metrics| Some(metrics.load?.load15m)));
    Counter "cpu_seconds_total" "Time that each processor has spent in each mode." processors;
    Counter "disk_reads_completed_total" "Reads that were completed."
        |machine, samples| disks(machine, samples, |stats| stats.read_ios);
    Counter "disk_read_bytes_total" "Bytes that were read."
        |machine, samples| disks(machine, samples, |stats| bytes(stats.read_sectors));
    Counter "disk_read_time_seconds_total" "Time spent on reads, each counted."
        |machine, samples| disks(machine, samples, |stats| seconds(stats.read_ticks));
    Counter "disk_writes_completed_total" "Writes that were completed."
        |machine, samples| disks(machine, samples, |stats| stats.write_ios);
    Counter "disk_written_bytes_total" "Bytes that were written."
        |machine, samples| disks(machine, samples, |stats| bytes(stats.write_sectors));
    Counter "disk_write_time_seconds_total" "Time spent on writes, each counted."
        |machine, samples| disks(machine, samples, |stats| seconds(stats.write_ticks));
    Counter "disk_io_time_seconds_total" "Time in which requests were under way."
        |machine, samples| disks(machine, samples, |stats| seconds(stats.total_ticks));
    Gauge "disk_io_now" "Requests that are under way."
        |machine, samples| disks(machine, samples, |stats| stats.ios_pgr);
    Gauge "filesystem_size_bytes" "Size of the file system."
        |machine, samples| file_systems(machine, samples, |one| Some(one.size));
    Gauge "filesystem_used_bytes" "Bytes of the file system in use."
        |machine, samples| file_systems(machine, samples, |one| Some(one.used));
    Gauge "filesystem_available_bytes" "Bytes of the file system that are free for all users."
        |machine, samples| file_systems(machine, samples, |one| Some(one.available));
    Gauge "filesystem_inodes" "Files that the file system can hold."
        |machine, samples| file_systems(machine, samples, |one| one.inodes);
    Gauge "filesystem_inodes_used" "Files that the file system holds."
        |machine, samples| file_systems(machine, samples, |one| one.inodes_used);
    Gauge "filesystem_left_out" "A file system of which nothing is known, with the reason." left_out;
    Counter "network_receive_bytes_total" "Bytes received."
        |machine, samples| interfaces(machine, samples, |statistics| statistics.rx_bytes);
    Counter "network_receive_packets_total" "Packets received."
        |machine, samples| interfaces(machine, samples, |statistics| statistics.rx_packets);
    Counter "network_receive_errors_total" "Errors in receiving."
        |machine, samples| interfaces(machine, samples, |statistics| statistics.rx_errs);
    Counter "network_receive_dropped_total" "Packets dropped in receiving."
        |machine, samples| interfaces(machine, samples, |statistics| statistics.rx_dropped);
    Counter "network_transmit_bytes_total" "Bytes sent."
        |machine, samples| interfaces(machine, samples, |statistics| statistics.tx_bytes);
    Counter "network_transmit_packets_total" "Packets sent."
        |machine, samples| interfaces(machine, samples, |statistics| statistics.tx_packets);
    Counter "network_transmit_errors_total" "Errors in sending."
        |machine, samples| interfaces(machine, samples, |statistics| statistics.tx_errs);
    Counter "network_transmit_dropped_total" "Packets dropped in sending."
        |machine, samples| interfaces(machine, samples, |statistics| statistics.tx_dropped);
    Gauge "processes" "Processes."
        |machine, samples| samples.add(&[], processes(machine).and_then(|processes| processes.processes));
    Gauge "threads" "Threads of all processes."
        |machine, samples| samples.add(&[], processes(machine).and_then(|processes| processes.threads));
    Gauge "threads_running" "Threads that run or wait for a processor."
        |machine, samples| samples.add(&[], processes(machine).and_then(|processes| processes.running));
    Gauge "threads_blocked" "Threads that wait for a disk."
        |machine, samples| samples.add(&[], processes(machine).and_then(|processes| processes.blocked));
    Counter "forks_total" "Processes and threads that were started."
        |machine, samples| samples.add(&[], processes(machine).and_then(|processes| processes.started));
    Gauge "clock_synchronized" "Whether a program in the guest keeps its clock right."
        |machine, samples| samples.add(&[], clock(machine).and_then(|clock| clock.synchronized).map(u8::from));
    Gauge "clock_offset_seconds" "By how much the clock is still to be moved."
        |machine, samples| samples.add(&[], clock(machine).and_then(|clock| clock.offset));
    Gauge "clock_maximum_error_seconds" "The largest error that the clock may have."
        |machine, samples| samples.add(&[], clock(machine).and_then(|clock| clock.maximum_error));
    Gauge "clock_estimated_error_seconds" "The error that the clock is thought to have."
        |machine, samples| samples.add(&[], clock(machine).and_then(|clock| clock.estimated_error));
}

fn metrics(machine: &Machine) -> Option<&Metrics> {
    machine.figures.as_ref().ok().map(|figures| &figures.metrics)
}

fn agent(machine: &Machine) -> Option<&AgentMetrics> {
    metrics(machine)?.agent.as_ref()
}

fn memory(machine: &Machine) -> Option<&MemoryMetrics> {
    metrics(machine)?.memory.as_ref()
}

fn processes(machine: &Machine) -> Option<&ProcessMetrics> {
    metrics(machine)?.processes.as_ref()
}

fn clock(machine: &Machine) -> Option<&ClockMetrics> {
    metrics(machine)?.clock.as_ref()
}

fn agent_info(machine: &Machine, samples: &mut Samples<'_>) {
    if let Some(version) = agent(machine).and_then(|agent| agent.version.as_ref()) {
        samples.add(&[("version", version)], Some(1));
    }
}

fn boot_info(machine: &Machine, samples: &mut Samples<'_>) {
    if let Some(id) = metrics(machine).and_then(|metrics| metrics.boot_id.as_ref()) {
        samples.add(&[("boot_id", id)], Some(1));
    }
}

fn frozen(machine: &Machine, samples: &mut Samples<'_>) {
    let is_frozen = machine.figures.as_ref().ok().and_then(|figures| figures.is_frozen);
    samples.add(&[], is_frozen.map(u8::from));
}

fn pressure(machine: &Machine, samples: &mut Samples<'_>, value: fn(&Pressure) -> Option<f64>) {
    let Some(pressure) = metrics(machine).and_then(|metrics| metrics.pressure.as_ref()) else { return };
    for (resource, one) in [("cpu", &pressure.cpu), ("memory", &pressure.memory), ("io", &pressure.io)] {
        samples.add(&[("resource", resource)], one.as_ref().and_then(value));
    }
}

/// The time of guests of the guest is counted in that of its programs, too, and therefore left out.
fn processors(machine: &Machine, samples: &mut Samples<'_>) {
    for one in metrics(machine).and_then(|metrics| metrics.processors.as_ref()).into_iter().flatten() {
        let CpuStats { user, nice, system, idle, iowait, irq, softirq, steal, .. } = *one;
        let modes = [
            ("user", Some(user)),
            ("nice", Some(nice)),
            ("system", Some(system)),
            ("idle", Some(idle)),
            ("iowait", iowait),
            ("irq", irq),
            ("softirq", softirq),
            ("steal", steal),
        ];
        for (mode, time) in modes {
            samples.add(&[("cpu", &one.cpu.to_string()), ("mode", mode)], seconds(time));
        }
    }
}

fn disks<T: std::fmt::Display>(machine: &Machine, samples: &mut Samples<'_>, value: fn(&DiskStats) -> Option<T>) {
    for disk in metrics(machine).and_then(|metrics| metrics.disks.as_ref()).into_iter().flatten() {
        samples.add(&[("device", &disk.name)], value(&disk.stats));
    }
}

fn file_systems(machine: &Machine, samples: &mut Samples<'_>, value: fn(&FileSystemMetrics) -> Option<u64>) {
    for one in metrics(machine).and_then(|metrics| metrics.file_systems.as_ref()).into_iter().flatten() {
        let labels = [("device", &*one.name), ("fstype", &*one.kind), ("mountpoint", &*one.mountpoint)];
        samples.add(&labels, value(one));
    }
}

fn left_out(machine: &Machine, samples: &mut Samples<'_>) {
    for one in metrics(machine).and_then(|metrics| metrics.file_systems_left_out.as_ref()).into_iter().flatten() {
        let reason = match one.reason {
            LeftOutReason::Frozen => "frozen",
            LeftOutReason::Hidden => "hidden",
            LeftOutReason::NoAnswer => "no-answer",
            LeftOutReason::Unknown => "unknown",
        };
        samples.add(&[("mountpoint", &one.mountpoint), ("reason", reason)], Some(1));
    }
}

fn interfaces(machine: &Machine, samples: &mut Samples<'_>, value: fn(&InterfaceStatistics) -> u64) {
    let Some(network) = metrics(machine).and_then(|metrics| metrics.network.as_ref()) else { return };
    for one in network.physical.iter().flatten() {
        samples.add(&[("device", &one.name), ("physical", "true")], Some(value(&one.statistics)));
    }
    // An empty label is one that is not there.
    let physical = if network.physical.is_some() { "false" } else { "" };
    for one in network.other.iter().flatten() {
        samples.add(&[("device", &one.name), ("physical", physical)], Some(value(&one.statistics)));
    }
}

fn bytes(sectors: Option<u64>) -> Option<u64> {
    sectors.map(|sectors| sectors.saturating_mul(SECTOR_BYTES))
}

#[allow(clippy::cast_precision_loss, reason = "a sample is such a number")]
fn seconds(milliseconds: Option<u64>) -> Option<f64> {
    milliseconds.map(|milliseconds| milliseconds as f64 / 1000.0)
}
