//! The guest's file systems, its disks, and what the kernel counts of them.
//!
//! Addresses are those of the hardware as the guest sees it, so that a host can tell which of its own disks is meant.
//! Where the guest cannot say, a number of the PCI address is -1 and the bus `unknown`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command::{Class, Command, Profile, Spec};

/// Lists the guest's mounted file systems that stand on block devices, each once, the last mounted first.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GetFsinfo {}

impl Command for GetFsinfo {
    const SPEC: Spec = Spec::new("guest-get-fsinfo", Class::Query);
    type Reply = Vec<FileSystem>;
}

/// A mounted file system. The sizes are absent when it does not answer in time, or another mount hides it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct FileSystem {
    /// The kernel's name of its device: `vda1`, `dm-0`; without one, the device's numbers: `254:1`.
    pub name: String,
    /// Where it is mounted.
    pub mountpoint: String,
    /// What it is: `ext4`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    /// Bytes in use, plus bytes free to any user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Bytes in total, including those reserved for the administrator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes_privileged: Option<u64>,
    /// The disks beneath it; empty if they are unknown.
    pub disk: Vec<DiskAddress>,
}

/// Longest that a trim may take: a large disk that was never trimmed has much to discard.
pub const TRIM_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Discards the unused blocks of the guest's mounted file systems, so that the host can reuse them.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Fstrim {
    /// Bytes below which free extents are passed over; 0 when absent. File systems round it up to their blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<i64>,
}

impl Command for Fstrim {
    const SPEC: Spec = Spec::new("guest-fstrim", Class::Control).profile(Profile::Backup).timeout(TRIM_TIMEOUT);
    type Reply = TrimReport;
}

/// The result of a trim.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TrimReport {
    /// Each file system once, the last mounted first.
    pub paths: Vec<TrimmedPath>,
}

/// The result for one file system: sizes, or an error.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TrimmedPath {
    /// Where it is mounted.
    pub path: String,
    /// Bytes that were reported to its disk as free. Some file systems report each block once, others every time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trimmed: Option<u64>,
    /// The minimum as the file system took it, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<u64>,
    /// Why it was not trimmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Lists the guest's disks and their partitions, partitions before their disk.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GetDisks {}

impl Command for GetDisks {
    const SPEC: Spec = Spec::new("guest-get-disks", Class::Query);
    type Reply = Vec<Disk>;
}

/// A disk or a partition.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Disk {
    /// Its device node: `/dev/vda`.
    pub name: String,
    /// Whether it is a partition of another.
    pub partition: bool,
    /// The device nodes of what it stands on: a partition's disk, the legs of a mapped device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dependencies: Option<Vec<String>>,
    /// Where it is; absent for a partition and for a device that is made of others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<DiskAddress>,
    /// What the device mapper calls it: `vg-root`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// What it says of its own health.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smart: Option<DiskSmart>,
}

/// Where a disk is.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct DiskAddress {
    /// The PCI function of its controller.
    pub pci_controller: PciAddress,
    /// How it is attached.
    pub bus_type: BusType,
    /// The controller's channel, where that matters.
    pub bus: i64,
    /// The device on that channel, where that matters.
    pub target: i64,
    /// The port or the logical unit, where that matters.
    pub unit: i64,
    /// The disk's serial as udev composes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The device node: of the partition, if that is what is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// The controller's address on an S/390 channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ccw_address: Option<CcwAddress>,
}

impl DiskAddress {
    /// A disk of which nothing is known.
    pub const UNKNOWN: Self = Self {
        pci_controller: PciAddress::UNKNOWN,
        bus_type: BusType::Unknown,
        bus: 0,
        target: 0,
        unit: 0,
        serial: None,
        dev: None,
        ccw_address: None,
    };
}

/// The address of a PCI function; -1 throughout for what is on no PCI bus.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PciAddress {
    /// The domain, mostly 0.
    pub domain: i64,
    /// The bus.
    pub bus: i64,
    /// The slot on the bus.
    pub slot: i64,
    /// The function in the slot.
    pub function: i64,
}

impl PciAddress {
    /// On no PCI bus.
    pub const UNKNOWN: Self = Self { domain: -1, bus: -1, slot: -1, function: -1 };
}

/// The address of a subchannel on an S/390 machine.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CcwAddress {
    /// The channel subsystem image.
    pub cssid: i64,
    /// The subchannel set.
    pub ssid: i64,
    /// The subchannel in the set.
    pub subchno: i64,
    /// The device's number.
    pub devno: i64,
}

/// How a disk is attached.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names of buses")]
pub enum BusType {
    Ide,
    Fdc,
    Scsi,
    Virtio,
    Xen,
    Usb,
    Uml,
    Sata,
    Sd,
    Ieee1394,
    Ssa,
    Fibre,
    Raid,
    Iscsi,
    Sas,
    Mmc,
    Virtual,
    FileBackedVirtual,
    Nvme,
    #[serde(other)]
    Unknown,
}

/// What a disk says of its own health.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum DiskSmart {
    /// The SMART and health log of an NVMe controller.
    Nvme(NvmeSmart),
}

macro_rules! counters {
    ($(#[$attributes:meta])* $name:ident { $($(#[$field_attributes:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$attributes])*
        #[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(rename_all = "kebab-case")]
        pub struct $name { $($(#[$field_attributes])* pub $field: $type,)* }
    };
}

counters! {
    /// The SMART and health log of an NVMe controller, as the NVM Express specification defines it (log page 02h).
    /// Counters of 128 bits come in two halves.
    NvmeSmart {
        /// Bits, each a warning of the controller.
        critical_warning: u64,
        /// In Kelvin.
        temperature: u64,
        /// Spare capacity that is left, in percent.
        available_spare: u64,
        /// Below this much spare capacity the controller warns.
        available_spare_threshold: u64,
        /// Of the device's life, in percent; may exceed 100.
        percentage_used: u64,
        /// Read, in thousands of 512 bytes: the lower half.
        data_units_read_lo: u64,
        /// The upper half.
        data_units_read_hi: u64,
        /// Written, in thousands of 512 bytes: the lower half.
        data_units_written_lo: u64,
        /// The upper half.
        data_units_written_hi: u64,
        /// Read commands: the lower half.
        host_read_commands_lo: u64,
        /// The upper half.
        host_read_commands_hi: u64,
        /// Write commands: the lower half.
        host_write_commands_lo: u64,
        /// The upper half.
        host_write_commands_hi: u64,
        /// Minutes the controller was busy: the lower half.
        controller_busy_time_lo: u64,
        /// The upper half.
        controller_busy_time_hi: u64,
        /// Power cycles: the lower half.
        power_cycles_lo: u64,
        /// The upper half.
        power_cycles_hi: u64,
        /// Hours under power: the lower half.
        power_on_hours_lo: u64,
        /// The upper half.
        power_on_hours_hi: u64,
        /// Shutdowns without notice: the lower half.
        unsafe_shutdowns_lo: u64,
        /// The upper half.
        unsafe_shutdowns_hi: u64,
        /// Data that could not be recovered: the lower half.
        media_errors_lo: u64,
        /// The upper half.
        media_errors_hi: u64,
        /// Errors that were logged: the lower half.
        number_of_error_log_entries_lo: u64,
        /// The upper half.
        number_of_error_log_entries_hi: u64,
    }
}

/// Returns what the kernel counts of each disk and partition since the boot.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GetDiskstats {}

impl Command for GetDiskstats {
    const SPEC: Spec = Spec::new("guest-get-diskstats", Class::Query);
    type Reply = Vec<DiskStatsInfo>;
}

/// What the kernel counts of one disk or partition.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiskStatsInfo {
    /// The kernel's name of the device: `vda1`.
    pub name: String,
    /// The major number of the device.
    pub major: u64,
    /// The minor number of the device.
    pub minor: u64,
    /// The counters.
    pub stats: DiskStats,
}

counters! {
    /// Counters of a disk or partition. Those that the kernel does not have are absent.
    DiskStats {
        /// Reads that were completed.
        #[serde(skip_serializing_if = "Option::is_none")]
        read_ios: Option<u64>,
        /// Reads that were merged with others.
        #[serde(skip_serializing_if = "Option::is_none")]
        read_merges: Option<u64>,
        /// Sectors of 512 bytes that were read.
        #[serde(skip_serializing_if = "Option::is_none")]
        read_sectors: Option<u64>,
        /// Milliseconds spent on reads.
        #[serde(skip_serializing_if = "Option::is_none")]
        read_ticks: Option<u64>,
        /// Writes that were completed.
        #[serde(skip_serializing_if = "Option::is_none")]
        write_ios: Option<u64>,
        /// Writes that were merged with others.
        #[serde(skip_serializing_if = "Option::is_none")]
        write_merges: Option<u64>,
        /// Sectors of 512 bytes that were written.
        #[serde(skip_serializing_if = "Option::is_none")]
        write_sectors: Option<u64>,
        /// Milliseconds spent on writes.
        #[serde(skip_serializing_if = "Option::is_none")]
        write_ticks: Option<u64>,
        /// Discards that were completed.
        #[serde(skip_serializing_if = "Option::is_none")]
        discard_ios: Option<u64>,
        /// Discards that were merged with others.
        #[serde(skip_serializing_if = "Option::is_none")]
        discard_merges: Option<u64>,
        /// Sectors of 512 bytes that were discarded.
        #[serde(skip_serializing_if = "Option::is_none")]
        discard_sectors: Option<u64>,
        /// Milliseconds spent on discards.
        #[serde(skip_serializing_if = "Option::is_none")]
        discard_ticks: Option<u64>,
        /// Flushes that were completed.
        #[serde(skip_serializing_if = "Option::is_none")]
        flush_ios: Option<u64>,
        /// Milliseconds spent on flushes.
        #[serde(skip_serializing_if = "Option::is_none")]
        flush_ticks: Option<u64>,
        /// Requests under way.
        #[serde(skip_serializing_if = "Option::is_none")]
        ios_pgr: Option<u64>,
        /// Milliseconds with requests under way.
        #[serde(skip_serializing_if = "Option::is_none")]
        total_ticks: Option<u64>,
        /// Milliseconds that requests were under way, each counted.
        #[serde(skip_serializing_if = "Option::is_none")]
        weight_ticks: Option<u64>,
    }
}
