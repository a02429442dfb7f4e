//! Disks for a VM: files on the host, and QEMU's devices for them.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use qga::commands::storage::{BusType, DiskAddress, PciAddress};
use serde_json::{Value, json};
use tempfile::TempDir;
use vmtest::{qmp::Qmp, vm::Vm};

const MIB: u64 = 1024 * 1024;
const SECTOR_BYTES: u64 = 512;
/// Where the partition begins, as partitioning tools have it.
const PARTITION_START: u64 = MIB;
/// The smallest that mkfs.xfs makes.
const SMALLEST_XFS: u64 = 300 * MIB;
/// The smallest that mkfs.btrfs makes, and a little more.
const SMALLEST_BTRFS: u64 = 128 * MIB;
/// The header of an encrypted disk takes 16 MiB.
const SMALLEST_FOR_VOLUMES: u64 = 64 * MIB;

/// What is on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Ext4,
    /// With room for an image of another one.
    RoomyExt4,
    Ext4InPartition,
    Xfs,
    Btrfs,
    /// The guest makes something of it.
    Nothing,
}

/// Which PCI function a disk hangs on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pci {
    /// The one that QEMU made for the device with this id, wherever it put that.
    Of(&'static str),
    /// Domain, bus, slot and function of what is part of the machine.
    Fixed([i64; 4]),
    /// The machine has no PCI bus.
    Absent,
}

/// A disk, and where the guest ought to see it.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) id: &'static str,
    pub(crate) content: Content,
    pub(crate) pci: Pci,
    pub(crate) bus_type: BusType,
    /// Bus, target and unit.
    pub(crate) numbers: [i64; 3],
    pub(crate) serial: String,
    bytes: u64,
}

/// The disks of a VM, and their files.
#[derive(Debug)]
pub(crate) struct Disks {
    machine: &'static str,
    folder: TempDir,
    drive_options: &'static str,
    devices: Vec<String>,
    disks: Vec<Attached>,
}

impl Disks {
    pub(crate) fn new(machine: &'static str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        Ok(Self { machine, folder, drive_options: "", devices: Vec::new(), disks: Vec::new() })
    }

    /// QEMU's machine type.
    pub(crate) fn machine(&self) -> &'static str {
        self.machine
    }

    /// Adds a device that is no disk, such as a bridge.
    pub(crate) fn device(&mut self, device: &str) {
        self.devices.extend(["-device".into(), device.into()]);
    }

    /// What the drives of all further disks are to have, each option with a comma before it.
    pub(crate) fn drive_options(&mut self, options: &'static str) {
        self.drive_options = options;
    }

    /// The file of a disk on the host.
    pub(crate) fn file(&self, id: &str) -> PathBuf {
        self.folder.path().join(id)
    }

    /// Adds a disk on virtio, which is all that matters to some cases.
    pub(crate) fn add_virtio(&mut self, id: &'static str, content: Content) -> Result<()> {
        self.add(id, content, &format!("virtio-blk-pci,id={id},serial={id}"), Pci::Of(id), (BusType::Virtio, [0; 3]))
    }

    /// Bytes that the host keeps for a disk.
    pub(crate) fn allocated(&self, id: &str) -> Result<u64> {
        Ok(fs::metadata(self.folder.path().join(id))?.blocks() * SECTOR_BYTES)
    }

    /// Adds a disk as QEMU's device, which lacks its drive. The guest ought to see it on this function
    /// and bus, with these numbers of bus, target and unit.
    pub(crate) fn add(
        &mut self,
        id: &'static str,
        content: Content,
        device: &str,
        pci: Pci,
        (bus_type, numbers): (BusType, [i64; 3]),
    ) -> Result<()> {
        // A size of its own for each, by which the guest's name of it is found.
        let smallest = match content {
            Content::Xfs => SMALLEST_XFS,
            Content::Btrfs => SMALLEST_BTRFS,
            Content::RoomyExt4 => 64 * MIB,
            Content::Nothing => SMALLEST_FOR_VOLUMES,
            Content::Ext4 | Content::Ext4InPartition => 16 * MIB,
        };
        let bytes = smallest + self.disks.len() as u64 * MIB;
        let file = self.folder.path().join(id);
        content.make(&file, bytes)?;
        let (_, serial) = device.split_once("serial=").unwrap_or_default();
        let serial = serial.split(',').next().unwrap_or_default().into();
        let drive = format!("if=none,id=drive-{id},format=raw,file={}{}", file.display(), self.drive_options);
        self.devices.extend(["-drive".into(), drive]);
        self.device(&format!("{device},drive=drive-{id}"));
        self.disks.push(Attached { id, content, pci, bus_type, numbers, serial, bytes });
        Ok(())
    }

    pub(crate) fn qemu_arguments(&self) -> Vec<String> {
        self.devices.clone()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Attached> {
        self.disks.iter()
    }

    /// Mounts every disk, in order, and returns what the guest calls them.
    pub(crate) fn mount_all(&self, vm: &mut Vm) -> Result<Vec<String>> {
        let mount = |disk: &Attached| {
            let name = disk.name(vm)?;
            let (node, mount_point, kind) = (disk.content.node(&name), disk.mount_point(), disk.content.kind());
            vm.wait_until(&format!("test -b /dev/{node}"))?;
            vm.sh(&format!("mkdir {mount_point} && mount -t {kind} /dev/{node} {mount_point}"))?;
            Ok(name)
        };
        self.disks.iter().map(mount).collect()
    }
}

impl Attached {
    /// What the guest calls it, once it is there.
    pub(crate) fn name(&self, vm: &mut Vm) -> Result<String> {
        let sectors = self.bytes / SECTOR_BYTES;
        vm.wait_until(&format!(
            "cd /sys/block && for name in [a-z]*; do \
             [ $(cat $name/size) != {sectors} ] || ! [ -b /dev/$name ] || echo $name; done | grep ."
        ))
    }

    /// Where the agent ought to say that it is, or a partition of it.
    pub(crate) fn address(&self, qmp: &mut Qmp, node: &str, serial: Option<String>) -> Result<DiskAddress> {
        let [bus, target, unit] = self.numbers;
        Ok(DiskAddress {
            pci_controller: self.pci.resolve(qmp)?,
            bus_type: self.bus_type,
            bus,
            target,
            unit,
            serial,
            dev: Some(format!("/dev/{node}")),
            ccw_address: None,
        })
    }

    /// Where it is mounted.
    pub(crate) fn mount_point(&self) -> String {
        format!("/mnt/{}", self.id)
    }
}

impl Content {
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Ext4 | Self::RoomyExt4 | Self::Ext4InPartition => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Nothing => "none",
        }
    }

    /// The device with the file system, on the disk of this name.
    pub(crate) fn node(self, disk: &str) -> String {
        match self {
            Self::Ext4 | Self::RoomyExt4 | Self::Xfs | Self::Btrfs | Self::Nothing => disk.into(),
            Self::Ext4InPartition => format!("{disk}1"),
        }
    }

    fn make(self, file: &Path, bytes: u64) -> Result<()> {
        let start = if self == Self::Ext4InPartition { PARTITION_START } else { 0 };
        File::create(file)?.set_len(bytes - start)?;
        if self == Self::Nothing {
            return Ok(());
        }
        run(Command::new(format!("mkfs.{}", self.kind())).arg("-q").arg(file))?;
        if self == Self::Ext4InPartition {
            partition(file, bytes)?;
        }
        Ok(())
    }
}

/// Moves a file system into the only partition of a disk (MBR).
fn partition(file: &Path, bytes: u64) -> Result<()> {
    let file_system = fs::read(file)?;
    let mut disk = File::create(file)?;
    disk.set_len(bytes)?;
    let mut entry = [0; 16];
    // A file system of Linux.
    entry[4] = 0x83;
    entry[8..12].copy_from_slice(&u32::try_from(PARTITION_START / SECTOR_BYTES)?.to_le_bytes());
    entry[12..].copy_from_slice(&u32::try_from((bytes - PARTITION_START) / SECTOR_BYTES)?.to_le_bytes());
    disk.seek(SeekFrom::Start(446))?;
    disk.write_all(&entry)?;
    disk.seek(SeekFrom::Start(510))?;
    disk.write_all(&[0x55, 0xAA])?;
    disk.seek(SeekFrom::Start(PARTITION_START))?;
    disk.write_all(&file_system)?;
    Ok(())
}

/// The path of a tool is not a user's, where the tests are not an administrator's.
fn run(command: &mut Command) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let output = command.env("PATH", std::env::join_paths(folders)?).output();
    let output = output.with_context(|| format!("failed to run {command:?} (run tools/install-needs disks)"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

impl Pci {
    /// The address, as QEMU and the guest's firmware have agreed on it.
    pub(crate) fn resolve(self, qmp: &mut Qmp) -> Result<PciAddress> {
        match self {
            Self::Fixed([domain, bus, slot, function]) => Ok(PciAddress { domain, bus, slot, function }),
            Self::Absent => Ok(DiskAddress::UNKNOWN.pci_controller),
            Self::Of(id) => {
                let buses = qmp.execute("query-pci", &json!({}))?;
                let buses = buses.as_array().context("query-pci gave no list")?;
                let device = buses.iter().find_map(|bus| find(&bus["devices"], id)).context(id)?;
                let number = |name: &str| device[name].as_i64().context("no number");
                Ok(PciAddress { domain: 0, bus: number("bus")?, slot: number("slot")?, function: number("function")? })
            }
        }
    }
}

/// The device with an id, also below bridges.
fn find<'a>(devices: &'a Value, id: &str) -> Option<&'a Value> {
    devices.as_array()?.iter().find_map(|device| {
        if device["qdev_id"] == id { Some(device) } else { find(&device["pci_bridge"]["devices"], id) }
    })
}
