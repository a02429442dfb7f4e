//! The small guest: an initramfs that is the whole file system.
//!
//! It holds busybox, the agents with their shared libraries, our init and the kernel's modules. Its operating system,
//! host name and time zone are inventions, so that a test can tell the guest's from the host's.

use std::path::Path;

use anyhow::Result;

use super::{DISK_MODULE_LIST, INIT_PATH, Image, MODULE_LIST, programs::Programs};
use crate::{cpio::Archive, needs::Needs};

/// The guest's host name.
pub const HOST_NAME: &str = "vmtest-guest";
/// The guest's `/etc/os-release`.
pub const OS_RELEASE: &str = "\
ID=vmtest
NAME=\"Throwaway VM\"
PRETTY_NAME=\"Throwaway VM 1 (Debian kernel, busybox)\"
VERSION=\"1 (busybox)\"
VERSION_ID=\"1\"
VARIANT=\"Initramfs\"
VARIANT_ID=initramfs
";
/// The abbreviation of the guest's time zone.
pub const ZONE: &str = "VMT";
/// How far east of UTC the guest's time zone is, in seconds: not a whole hour, and unlike any host's.
pub const ZONE_OFFSET: i32 = 5 * 3600 + 1800;

const MODULES: &[&str] = &["virtio_pci", "virtio_mmio", "virtio_console", "virtio_blk", "virtio_net", "vsock_loopback"];
/// Checksums first: the others request them by aliases, which only modprobe resolves.
const DISK_MODULES: &[&str] = &[
    "crc32c_generic",
    "crct10dif_generic",
    "crc64_rocksoft_generic",
    "ata_piix",
    "ahci",
    "sd_mod",
    "virtio_scsi",
    "nvme",
    "xhci_pci",
    "uhci_hcd",
    "usb_storage",
    "ext4",
    "xfs",
    "btrfs",
    "loop",
    "dm_mod",
    "raid1",
    "dm_crypt",
    "aes_generic",
    "ecb",
    "xts",
    "fuse",
    "overlay",
];
/// Tools that the guest gets if the host has them.
const TOOLS: &[&str] = &["/usr/sbin/dmsetup", "/usr/sbin/lvm", "/usr/sbin/cryptsetup"];

impl Image {
    /// Makes the small guest's initramfs.
    ///
    /// # Errors
    /// When something cannot be read, or the libraries of an agent cannot be found.
    pub fn build(needs: &Needs) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut archive = super::base(needs)?;
        archive.symlink(Path::new("/var/run"), Path::new("/run"))?;
        archive.symlink(Path::new("/etc/localtime"), Path::new("/usr/share/zoneinfo/Throwaway"))?;
        add_settings(&mut archive)?;
        super::add_modules(&mut archive, needs, &[(MODULE_LIST, MODULES), (DISK_MODULE_LIST, DISK_MODULES)])?;
        let mut programs = Programs::new(&mut archive, folder.path());
        programs.add(&needs.init, INIT_PATH)?;
        let agent = programs.add_agent(&needs.agent)?;
        let reference = match &needs.reference {
            Some(path) if *path == needs.agent => Some(agent.clone()),
            Some(path) => Some(programs.add_agent(path)?),
            None => None,
        };
        for tool in TOOLS.iter().filter(|tool| Path::new(tool).exists()) {
            programs.add(Path::new(tool), tool)?;
        }
        let image = Self {
            qemu: needs.qemu.clone(),
            kernel: needs.kernel.image.clone(),
            compressed_kernel: needs.kernel.compressed.clone(),
            agent,
            reference,
            disk: None,
            folder,
        };
        image.write_initramfs(archive)
    }
}

fn add_settings(archive: &mut Archive) -> Result<()> {
    let settings: &[(&str, &[u8])] = &[
        ("/etc/os-release", OS_RELEASE.as_bytes()),
        ("/etc/hostname", HOST_NAME.as_bytes()),
        ("/usr/share/zoneinfo/Throwaway", &time_zone()),
        ("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
        ("/etc/group", b"root:x:0:\n"),
        ("/etc/nsswitch.conf", b"passwd: files\ngroup: files\n"),
    ];
    settings.iter().try_for_each(|(path, content)| archive.file(Path::new(path), 0o644, content))
}

/// A time zone file (RFC 8536, version 1) with one zone that is always in force.
fn time_zone() -> Vec<u8> {
    let abbreviation = format!("{ZONE}\0");
    let mut file = b"TZif".to_vec();
    file.extend([0; 16]);
    // How many: UT indicators, standard time indicators, leap seconds, transitions, zones, bytes of abbreviations.
    for count in [0, 0, 0, 0, 1, 4] {
        file.extend(u32::to_be_bytes(count));
    }
    file.extend(ZONE_OFFSET.to_be_bytes());
    file.extend([0, 0]);
    file.extend(abbreviation.as_bytes());
    file
}
