//! Figures for monitoring, in one round trip. A command of our own.
//!
//! Sizes are in bytes and times in seconds, except in types that the protocol has for another command: these keep their
//! units. Counters count since the guest was booted. Lists have the kernel's order, which stays the same between two
//! requests. What the kernel does not tell is absent: no pressure, swap or processor time is guessed.
//! Figures of a group of processes, such as a container's limits, are missing on purpose: these are the guest's own.

use serde::{Deserialize, Serialize};

use super::{
    cpu::{CpuStats, Load},
    network::InterfaceStatistics,
    storage::DiskStatsInfo,
};
use crate::command::{Class, Command, Spec, WhileFrozen};

/// Returns figures about the guest and its agent, for monitoring.
///
/// While file systems are frozen, none of them is asked.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GetMetrics {
    /// Only these parts, beside the uptime and the boot id. All parts if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parts: Option<Vec<MetricsPart>>,
}

impl Command for GetMetrics {
    const SPEC: Spec = Spec::new("qgad-get-metrics", Class::Query).while_frozen(WhileFrozen::Served);
    type Reply = Metrics;
}

/// A part of the figures, named as the member of [`Metrics`] that holds it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names of members that are documented")]
pub enum MetricsPart {
    Memory,
    Pressure,
    Load,
    Processors,
    Disks,
    FileSystems,
    Network,
    Processes,
    Clock,
    Agent,
}

/// Defines objects all of whose members are absent where they are not known.
macro_rules! facts {
    ($($(#[$attributes:meta])* $name:ident { $($(#[$field_attributes:meta])* $field:ident: $type:ty,)* })*) => { $(
        $(#[$attributes])*
        #[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(rename_all = "kebab-case")]
        pub struct $name { $(
            $(#[$field_attributes])*
            #[serde(skip_serializing_if = "Option::is_none")]
            pub $field: Option<$type>,
        )* }
    )* };
}

facts! {
    /// Figures about the guest and its agent. A part that was not asked for is absent.
    Metrics {
        /// Seconds since the guest was booted, time asleep included.
        uptime: f64,
        /// A random UUID of this boot. Counters begin at 0 when it changes.
        boot_id: String,
        /// Memory and swap.
        memory: MemoryMetrics,
        /// How long programs have waited for what they needed. Absent in a kernel without pressure stall information.
        pressure: PressureMetrics,
        /// The load averages.
        load: Load,
        /// What each processor that is on line has spent its time with, in milliseconds as in `guest-get-cpustats`.
        processors: Vec<CpuStats>,
        /// Counters of disks and partitions, as in `guest-get-diskstats`. One that has had no request since the boot
        /// is left out.
        disks: Vec<DiskStatsInfo>,
        /// The file systems on block devices, each once with its first mount point, in the order of mounting.
        file_systems: Vec<FileSystemMetrics>,
        /// File systems whose figures are not known, with the reason. Comes with `file-systems`.
        file_systems_left_out: Vec<FileSystemLeftOut>,
        /// What network interfaces have carried. Those that the agent's `interfaces-exclude` names are left out.
        network: NetworkMetrics,
        /// Processes and threads.
        processes: ProcessMetrics,
        /// How well the kernel's clock is kept right.
        clock: ClockMetrics,
        /// The agent itself.
        agent: AgentMetrics,
    }

    /// Memory and swap, in bytes. The kernel's proc(5) describes them under `meminfo`.
    MemoryMetrics {
        /// Usable memory.
        total: u64,
        /// Memory that is used for nothing.
        free: u64,
        /// What programs can get without swapping, as the kernel estimates it: `total` less this is what is in use.
        available: u64,
        /// Cached blocks of devices.
        buffers: u64,
        /// Cached files, with those that exist in memory only.
        cached: u64,
        /// The kernel's own objects, part of which can be reclaimed.
        slab: u64,
        /// Swap space. 0 without swap.
        swap_total: u64,
        /// Swap space that is unused.
        swap_free: u64,
    }

    /// Pressure stall information: how long programs have waited for what they needed.
    PressureMetrics {
        /// Waiting for a processor.
        cpu: Pressure,
        /// Waiting for memory.
        memory: Pressure,
        /// Waiting for disks.
        io: Pressure,
    }

    /// Waiting for one resource.
    Pressure {
        /// The time in which some program waited.
        some: Stall,
        /// The time in which all programs waited that had something to do.
        full: Stall,
    }

    /// Time that was lost by waiting.
    Stall {
        /// Percent of the last ten seconds.
        avg10: f64,
        /// Percent of the last minute.
        avg60: f64,
        /// Percent of the last five minutes.
        avg300: f64,
        /// Seconds since the boot.
        total: f64,
    }

    /// What network interfaces have carried.
    NetworkMetrics {
        /// Interfaces of devices.
        physical: Vec<InterfaceMetrics>,
        /// All others: the loopback interface, bridges, tunnels, those of containers.
        other: Vec<InterfaceMetrics>,
    }

    /// Processes and threads.
    ProcessMetrics {
        /// How many processes there are.
        processes: u64,
        /// How many threads they have in all.
        threads: u64,
        /// How many threads run or wait for a processor.
        running: u64,
        /// How many threads wait for a disk.
        blocked: u64,
        /// How many processes and threads were started since the boot.
        started: u64,
    }

    /// How well the kernel's clock is kept right, as adjtimex(2) tells it.
    ClockMetrics {
        /// Whether a program keeps it right, such as chrony or systemd-timesyncd. If not, the rest is absent.
        synchronized: bool,
        /// By how much it is still to be moved, in seconds. Absent if the program moves it without telling the kernel.
        offset: f64,
        /// The largest error it may have, in seconds.
        maximum_error: f64,
        /// The error it is thought to have, in seconds.
        estimated_error: f64,
    }

    /// The agent itself.
    AgentMetrics {
        /// Its version.
        version: String,
        /// Seconds since it was started.
        uptime: f64,
        /// Requests that it has read.
        requests: u64,
        /// Requests that its configuration or a freeze has refused.
        refused: u64,
        /// Commands that it has given up at their timeout.
        timed_out: u64,
        /// Those of them that have not ended, each with a thread.
        stuck: u64,
        /// Seconds for which file systems have been frozen. Absent if none is.
        frozen_for: f64,
        /// Its memory in bytes: what the kernel calls its resident set.
        memory: u64,
    }
}

/// A file system on a block device.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileSystemMetrics {
    /// Its first mount point. Bytes that are no UTF-8 are replaced.
    pub mountpoint: String,
    /// The kernel's name of its device: `vda1`. Its number if the kernel has no such device.
    pub name: String,
    /// Its type: `ext4`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that are free for all users.
    pub available: u64,
    /// How many files it can hold. Absent where it has no such limit, as in btrfs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes: Option<u64>,
    /// How many files it holds. Absent with `inodes`.
    #[serde(rename = "inodes-used", skip_serializing_if = "Option::is_none")]
    pub inodes_used: Option<u64>,
}

/// A file system whose figures are not known.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileSystemLeftOut {
    /// Its first mount point. Bytes that are no UTF-8 are replaced.
    pub mountpoint: String,
    /// Why it is left out.
    pub reason: LeftOutReason,
}

/// Why a file system is left out.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LeftOutReason {
    /// File systems are frozen, this one or others, and none is asked.
    Frozen,
    /// Its mount point leads to another mount.
    Hidden,
    /// It did not answer in time, or with an error.
    NoAnswer,
    /// For another reason, which a client does not know.
    #[serde(other)]
    Unknown,
}

/// What a network interface has carried since it exists.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InterfaceMetrics {
    /// Its name: `eth0`.
    pub name: String,
    /// What it has carried.
    pub statistics: InterfaceStatistics,
}
