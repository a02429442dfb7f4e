//! What a VM boots: a kernel, and an initramfs that is the guest's whole file system or the way to it.
//!
//! The small guest's holds busybox, the agents with the shared libraries they need, our init and the modules it loads.
//! Its operating system, host name and time zone are inventions, so that a test can tell the guest's from the host's.
//! That of Debian ([`Image::debian`]) puts onto its disk what a package of the agent would, and goes on there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{
    cpio::Archive,
    needs::{Needs, Packages},
};

/// Where the guest finds the list of modules to load, a path a line.
pub const MODULE_LIST: &str = "/etc/vmtest/modules";
/// Where the guest finds the list of modules for disks and what is on them, which a case loads that needs them.
pub const DISK_MODULE_LIST: &str = "/etc/vmtest/disk-modules";
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
/// Checksums first: the others ask for them by names that only a modprobe with its tables knows.
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
];
/// Tools that the guest gets where the host has them.
const TOOLS: &[&str] = &["/usr/sbin/dmsetup", "/usr/sbin/lvm", "/usr/sbin/cryptsetup"];
/// Of the guest on a disk: that disk, the ports, and what the file system asks for by names that only modprobe knows.
/// The way to itself by vsock is for a case.
const DEBIAN_MODULES: &[&str] =
    &["virtio_pci", "virtio_blk", "virtio_console", "crc32c_generic", "ext4", "vsock_loopback"];
const DIRECTORIES: &[&str] = &["/dev", "/proc", "/sys", "/run", "/tmp", "/root", "/mnt", "/var/log"];

/// What is put onto the disk of the guest that has one, in its initramfs.
pub const PAYLOAD: &str = "/payload";
/// Where a guest finds the packages of the agent, if it is to install one.
pub const PACKAGE: &str = "/var/cache/vmtest/qgad.deb";
/// The same for the other family of systems.
pub const RPM: &str = "/var/cache/vmtest/qgad.rpm";
/// The control channel as a service; `qgad` is not in its way, nor the other way round.
const CONTROL_UNIT: &str = "\
[Service]
ExecStart=/usr/lib/vmtest/vmtest-guest control
OOMScoreAdjust=-1000
";

/// Starts that service once its port is there.
const CONTROL_RULE: &str = r#"
SUBSYSTEM=="virtio-ports", ATTR{name}=="vmtest.control", TAG+="systemd", ENV{SYSTEMD_WANTS}="vmtest-control.service"
"#;

/// A kernel and an initramfs, ready to boot.
#[derive(Debug)]
pub struct Image {
    /// The emulator they are for.
    pub qemu: PathBuf,
    /// The file of the kernel.
    pub kernel: PathBuf,
    /// The same, packed.
    pub packed_kernel: PathBuf,
    /// Where the agent under test stands in the guest.
    pub agent: String,
    /// Where Debian's agent stands in the guest, if the host has it.
    pub reference: Option<String>,
    /// The guest's disk, unless the initramfs is all there is. It is never written to.
    pub disk: Option<PathBuf>,
    folder: TempDir,
}

impl Image {
    /// Makes the small guest's initramfs.
    ///
    /// # Errors
    /// When something cannot be read, or the libraries of an agent cannot be found.
    pub fn build(needs: &Needs) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut archive = Archive::default();
        for directory in DIRECTORIES {
            archive.directory(Path::new(directory))?;
        }
        // The kernel opens it for init before there is a /dev.
        archive.character_device(Path::new("/dev/console"), (5, 1))?;
        archive.symlink(Path::new("/var/run"), Path::new("/run"))?;
        archive.symlink(Path::new("/etc/localtime"), Path::new("/usr/share/zoneinfo/Throwaway"))?;
        add_settings(&mut archive)?;
        add_busybox(&mut archive, &needs.busybox)?;
        add_modules(&mut archive, needs, &[(MODULE_LIST, MODULES), (DISK_MODULE_LIST, DISK_MODULES)])?;
        let mut programs = Programs { archive: &mut archive, libraries: BTreeSet::new(), scratch: folder.path() };
        programs.add(&needs.init, "/init")?;
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
            packed_kernel: needs.kernel.packed.clone(),
            agent,
            reference,
            disk: None,
            folder,
        };
        image.write_initramfs(archive)
    }

    /// Makes the initramfs for Debian on a disk that `tools/make-debian` made.
    ///
    /// The agent is installed with the files of `packaging`, and nothing enables it; or packages of it are put where the
    /// guest can install them, at [`PACKAGE`] and [`RPM`]. Beside them the disk gets a service for the control channel. The agent and our
    /// init use the disk's own libraries, so they must not be newer than those.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn debian(needs: &Needs, disk: &Path, packages: Option<&Packages>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut archive = Archive::default();
        for directory in DIRECTORIES {
            archive.directory(Path::new(directory))?;
        }
        archive.character_device(Path::new("/dev/console"), (5, 1))?;
        add_busybox(&mut archive, &needs.busybox)?;
        add_modules(&mut archive, needs, &[(MODULE_LIST, DEBIAN_MODULES)])?;
        let mut programs = Programs { archive: &mut archive, libraries: BTreeSet::new(), scratch: folder.path() };
        programs.add(&needs.init, "/init")?;
        let agent = programs.stripped(&needs.agent)?;
        let init = programs.stripped(&needs.init)?;
        let mut install = |path: &str, permissions, content: &[u8]| {
            archive.file(&Path::new(PAYLOAD).join(path.trim_start_matches('/')), permissions, content)
        };
        match packages {
            Some(packages) => {
                install(PACKAGE, 0o644, &read(&packages.deb)?)?;
                install(RPM, 0o644, &read(&packages.rpm)?)?;
            }
            None => {
                let unit = include_bytes!("../../../packaging/systemd/qgad.service");
                let rule = include_bytes!("../../../packaging/udev/60-qgad.rules");
                install("/usr/sbin/qgad", 0o755, &agent)?;
                install("/usr/lib/systemd/system/qgad.service", 0o644, unit)?;
                install("/usr/lib/udev/rules.d/60-qgad.rules", 0o644, rule)?;
            }
        }
        install("/usr/lib/vmtest/vmtest-guest", 0o755, &init)?;
        install("/etc/systemd/system/vmtest-control.service", 0o644, CONTROL_UNIT.as_bytes())?;
        install("/etc/udev/rules.d/60-vmtest.rules", 0o644, CONTROL_RULE.as_bytes())?;
        let image = Self {
            qemu: needs.qemu.clone(),
            kernel: needs.kernel.image.clone(),
            packed_kernel: needs.kernel.packed.clone(),
            agent: "/usr/sbin/qgad".into(),
            reference: None,
            disk: Some(disk.into()),
            folder,
        };
        image.write_initramfs(archive)
    }

    fn write_initramfs(self, archive: Archive) -> Result<Self> {
        fs::write(self.initramfs(), archive.finish()?).context("failed to write the initramfs")?;
        Ok(self)
    }

    /// The file of the initramfs.
    pub fn initramfs(&self) -> PathBuf {
        self.folder.path().join("initramfs.cpio")
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

fn add_busybox(archive: &mut Archive, busybox: &Path) -> Result<()> {
    archive.file(Path::new("/bin/busybox"), 0o755, &read(busybox)?)?;
    let applets = output_of(Command::new(busybox).arg("--list"))?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        archive.symlink(&Path::new("/bin").join(applet), Path::new("busybox"))?;
    }
    Ok(())
}

/// Each module once, and the lists by which the guest loads them.
fn add_modules(archive: &mut Archive, needs: &Needs, lists: &[(&str, &[&str])]) -> Result<()> {
    let mut added = BTreeSet::new();
    for (list_path, names) in lists {
        let mut list = String::new();
        for module in needs.kernel.modules(names)? {
            let path = format!("/lib/modules/{}/{}", needs.kernel.release, module.path);
            if added.insert(path.clone()) {
                archive.file(Path::new(&path), 0o644, &module.content)?;
                list += &format!("{path}\n");
            }
        }
        archive.file(Path::new(list_path), 0o644, list.as_bytes())?;
    }
    Ok(())
}

/// Puts programs into an archive, and each library they need once.
struct Programs<'a> {
    archive: &'a mut Archive,
    libraries: BTreeSet<PathBuf>,
    scratch: &'a Path,
}

impl Programs<'_> {
    fn add_agent(&mut self, program: &Path) -> Result<String> {
        let name = program.file_name().and_then(|name| name.to_str()).context("an agent without a name")?;
        let path = format!("/usr/sbin/{name}");
        self.add(program, &path)?;
        Ok(path)
    }

    fn add(&mut self, program: &Path, guest_path: &str) -> Result<()> {
        self.archive.file(Path::new(guest_path), 0o755, &self.stripped(program)?)?;
        for library in libraries_of(program)? {
            if self.libraries.insert(library.clone()) {
                self.archive.file(&library, 0o755, &read(&library)?)?;
            }
        }
        Ok(())
    }

    /// The program without its debug information, which is most of it and takes the guest a while to unpack.
    fn stripped(&self, program: &Path) -> Result<Vec<u8>> {
        let stripped = self.scratch.join("stripped");
        let is_stripped = Command::new("strip").arg("-o").arg(&stripped).arg(program).status();
        read(if is_stripped.is_ok_and(|status| status.success()) { &stripped } else { program })
    }
}

/// The shared libraries of a program, its loader included, where the loader finds them.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let listing = output_of(Command::new("ldd").arg(program))?;
    parse_libraries(&listing).with_context(|| format!("failed to find the libraries of {}", program.display()))
}

fn parse_libraries(listing: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in listing.lines().map(str::trim) {
        let (name, found) = line.split_once(" => ").unwrap_or((line, line));
        if found.starts_with("not found") {
            bail!("{name} is missing");
        }
        // The kernel's own library has no path, and a static program has none at all.
        if let Some(path) = found.split(' ').next().filter(|path| path.starts_with('/')) {
            libraries.push(path.into());
        }
    }
    Ok(libraries)
}

fn output_of(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("failed to run {command:?}"))?;
    // ldd fails on a static program, and says so on the output that is parsed.
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("failed to read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listing: &str, expected: &[&str]) {
        let found = parse_libraries(listing).unwrap();
        assert_eq!(found, expected.iter().map(PathBuf::from).collect::<Vec<_>>());
    }

    #[test]
    fn libraries_and_the_loader_are_found_by_path() {
        check(
            "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f00)\n\
             \t/lib64/ld-linux-x86-64.so.2 (0x00007f01)\n",
            &["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"],
        );
        check("\tstatically linked\n", &[]);
        check("\tnot a dynamic executable\n", &[]);
    }

    #[test]
    fn a_missing_library_is_named() {
        let error = parse_libraries("\tlibudev.so.1 => not found\n").unwrap_err();
        assert_eq!(error.to_string(), "libudev.so.1 is missing");
    }
}
