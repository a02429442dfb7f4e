//! The hardware address of a disk, by which a host knows it, from its path in sysfs.
//!
//! A path such as `/sys/devices/pci0000:00/0000:00:05.0/virtio2/host2/target2:0:1/2:0:1:3/block/sda` contains the whole
//! address. Among the PCI functions in the path, the first one with a driver for disks is the controller; those
//! before it are bridges. What cannot be determined stays unknown, and is no error.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use qga::commands::storage::{BusType, CcwAddress, DiskAddress, PciAddress};

use super::device::{BlockDevice, follow};
use crate::root::Root;

/// How deep devices may be nested: in practice a few levels.
const MAX_DEPTH: usize = 16;

/// The addresses of the disks below devices, or of the devices themselves. Each once, in reverse order.
pub(crate) fn of_disks_beneath(root: &Root, devices: &[BlockDevice<'_>]) -> Vec<DiskAddress> {
    let (mut addresses, mut seen) = (Vec::new(), HashSet::new());
    for device in devices {
        collect(root, device, &mut addresses, &mut seen, MAX_DEPTH);
    }
    addresses.reverse();
    addresses
}

fn collect(
    root: &Root,
    device: &BlockDevice<'_>,
    addresses: &mut Vec<DiskAddress>,
    seen: &mut HashSet<PathBuf>,
    depth: usize,
) {
    if !seen.insert(device.path().to_owned()) {
        return;
    }
    if !device.is_virtual() {
        addresses.extend(of_disk(root, device));
    } else if depth > 0 {
        for underlying in device.underlying().unwrap_or_default() {
            collect(root, &underlying, addresses, seen, depth - 1);
        }
    }
}

/// The address of a disk or partition on hardware. `None` if nothing is known.
pub(crate) fn of_disk(root: &Root, device: &BlockDevice<'_>) -> Option<DiskAddress> {
    let hardware = device.path().to_str().and_then(|path| of_path(root, path));
    let (serial, dev) = (device.serial(), device.node());
    if hardware.is_none() && serial.is_none() && dev.is_none() {
        return None;
    }
    Some(DiskAddress { serial, dev, ..hardware.unwrap_or(DiskAddress::UNKNOWN) })
}

/// The address in a path of sysfs.
fn of_path(root: &Root, path: &str) -> Option<DiskAddress> {
    let subsystem = path.strip_prefix("/sys/devices/virtual/nvme-subsystem/");
    if let Some(name) = subsystem.and_then(|rest| rest.split('/').next()) {
        let controller = controller_of_subsystem(root, name)?;
        return of_path(root, &controller);
    }
    let components: Vec<_> = path.strip_prefix("/sys/devices/")?.split('/').collect();
    let kind = components.first()?;
    if kind.starts_with("pci") {
        of_pci(root, &components)
    } else if kind.starts_with("css") {
        of_channel(&components)
    } else {
        of_plain_virtio(&components, DiskAddress::UNKNOWN)
    }
}

/// A namespace with several paths belongs to a subsystem. Its directory has links to the controllers.
fn controller_of_subsystem(root: &Root, name: &str) -> Option<String> {
    let subsystem = format!("/sys/devices/virtual/nvme-subsystem/{name}");
    let mut names = root.names(&subsystem).ok()?;
    names.sort();
    let is_controller = |name: &&OsString| {
        let number = name.to_str().and_then(|name| name.strip_prefix("nvme"));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let controllers = names.iter().filter(is_controller);
    let mut paths = controllers.filter_map(|name| follow(root, &Path::new(&subsystem).join(name)));
    paths.find_map(|path| path.to_str().filter(|path| path.starts_with("/sys/devices/pci")).map(Into::into))
}

fn of_pci(root: &Root, components: &[&str]) -> Option<DiskAddress> {
    for (index, name) in components.iter().enumerate() {
        let Some(pci_controller) = parse_pci(name) else { continue };
        let directory = format!("/sys/devices/{}", components[..=index].join("/"));
        let Ok(driver) = root.read_link(format!("{directory}/driver")) else { continue };
        let scsi = scsi_address(components);
        let (bus_type, unit) = match driver.file_name().and_then(OsStr::to_str).unwrap_or_default() {
            "virtio-pci" => scsi.map_or((BusType::Virtio, 0), |scsi| (BusType::Scsi, scsi.unit)),
            "sym53c8xx" => (BusType::Scsi, scsi.map_or(0, |scsi| scsi.target)),
            "nvme" => (BusType::Nvme, 0),
            "xhci_hcd" | "ehci-pci" | "uhci_hcd" | "ohci-pci" => (BusType::Usb, 0),
            driver @ ("ahci" | "ata_piix") => {
                let target = scsi?.target;
                let port = position_of_ata_port(root, &directory, &components[index..])?;
                let address = DiskAddress { pci_controller, ..DiskAddress::UNKNOWN };
                return Some(match driver {
                    "ahci" => DiskAddress { bus_type: BusType::Sata, unit: port, ..address },
                    _ => DiskAddress { bus_type: BusType::Ide, bus: port, unit: target, ..address },
                });
            }
            _ => continue,
        };
        return Some(DiskAddress { pci_controller, bus_type, unit, ..DiskAddress::UNKNOWN });
    }
    None
}

/// The port of its controller that a disk is on, from 0. The kernel numbers the ports of all controllers together.
fn position_of_ata_port(root: &Root, controller: &str, below: &[&str]) -> Option<i64> {
    let number_of = |name: &str, prefix| name.strip_prefix(prefix)?.parse::<u32>().ok();
    // Old kernels have no directory for a port, but one SCSI host for each.
    let (prefix, port) = ["ata", "host"]
        .into_iter()
        .find_map(|prefix| Some((prefix, below.iter().find_map(|name| number_of(name, prefix))?)))?;
    let ports = root.names(controller).ok()?;
    let numbers = ports.iter().filter_map(|name| number_of(name.to_str()?, prefix));
    i64::try_from(numbers.filter(|&other| other < port).count()).ok()
}

/// A disk on a channel of S/390, with virtio or without.
fn of_channel(components: &[&str]) -> Option<DiskAddress> {
    let subchannel = parse_channel(components.get(1)?)?;
    let device = parse_channel(components.get(2)?)?;
    let ccw_address =
        CcwAddress { cssid: subchannel[0], ssid: subchannel[1], subchno: subchannel[2], devno: device[2] };
    let address = DiskAddress { ccw_address: Some(ccw_address), ..DiskAddress::UNKNOWN };
    Some(of_plain_virtio(components, address.clone()).unwrap_or(address))
}

/// A virtio disk without PCI.
fn of_plain_virtio(components: &[&str], address: DiskAddress) -> Option<DiskAddress> {
    components.iter().find(|name| name.starts_with("virtio"))?;
    Some(match scsi_address(components) {
        Some(scsi) => {
            DiskAddress { bus_type: BusType::Scsi, bus: scsi.channel, target: scsi.target, unit: scsi.unit, ..address }
        }
        None => DiskAddress { bus_type: BusType::Virtio, ..address },
    })
}

/// The address of a device at its SCSI host.
struct ScsiAddress {
    channel: i64,
    target: i64,
    unit: i64,
}

/// Reads the components `targetH:C:T` and `H:C:T:L`.
fn scsi_address(components: &[&str]) -> Option<ScsiAddress> {
    let position = components.iter().position(|name| name.starts_with("target") && name.contains(':'))?;
    let mut numbers = components.get(position + 1)?.split(':').skip(1).map(|number| number.parse().ok());
    let address = ScsiAddress { channel: numbers.next()??, target: numbers.next()??, unit: numbers.next()?? };
    numbers.next().is_none().then_some(address)
}

/// Reads `0000:00:1f.2`.
fn parse_pci(name: &str) -> Option<PciAddress> {
    let (domain, rest) = name.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (slot, function) = rest.split_once('.')?;
    Some(PciAddress {
        domain: hexadecimal(domain)?,
        bus: hexadecimal(bus)?,
        slot: hexadecimal(slot)?,
        function: hexadecimal(function)?,
    })
}

/// Reads `0.0.01a0`.
fn parse_channel(name: &str) -> Option<[i64; 3]> {
    let mut numbers = name.split('.').map(hexadecimal);
    let address = [numbers.next()??, numbers.next()??, numbers.next()??];
    numbers.next().is_none().then_some(address)
}

fn hexadecimal(digits: &str) -> Option<i64> {
    u32::from_str_radix(digits, 16).ok().map(Into::into)
}

#[cfg(test)]
mod tests;
