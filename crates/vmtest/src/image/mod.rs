//! Images that a VM boots: a kernel and an initramfs.
//!
//! There are two: the small guest ([`Image::build`]), whose initramfs is all there is, and Debian with systemd
//! ([`Image::debian`]), whose initramfs leads to a disk. Both boot with our init, `vmtest-guest`.

mod debian;
mod programs;
mod small;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

pub use self::small::{HOST_NAME, OS_RELEASE, ZONE, ZONE_OFFSET};
use crate::{cpio::Archive, needs::Needs};

/// The path of our init in a guest.
pub const INIT_PATH: &str = "/init";
/// The guest's list of modules to load at its boot, a path a line.
pub const MODULE_LIST: &str = "/etc/vmtest/modules";
/// The small guest's list of modules for disks and file systems. A case that needs them loads them.
pub const DISK_MODULE_LIST: &str = "/etc/vmtest/disk-modules";
/// What the initramfs copies onto the guest's disk.
pub const PAYLOAD: &str = "/payload";
/// The Debian package of the agent in a guest that is to install it.
pub const PACKAGE: &str = "/var/cache/vmtest/qgad.deb";
/// The RPM package of the agent in such a guest.
pub const RPM: &str = "/var/cache/vmtest/qgad.rpm";

const DIRECTORIES: &[&str] = &["/dev", "/proc", "/sys", "/run", "/tmp", "/root", "/mnt", "/var/log"];

/// A kernel and an initramfs, ready to boot.
#[derive(Debug)]
pub struct Image {
    /// The path of QEMU.
    pub qemu: PathBuf,
    /// The file of the kernel.
    pub kernel: PathBuf,
    /// The file of the same kernel, compressed.
    pub compressed_kernel: PathBuf,
    /// The path of the agent under test in the guest.
    pub agent: String,
    /// The path of Debian's agent in the guest, if the host has it.
    pub reference: Option<String>,
    /// The guest's disk, unless the initramfs is all there is. It is never written to.
    pub disk: Option<PathBuf>,
    folder: TempDir,
}

impl Image {
    /// The file of the initramfs.
    pub fn initramfs(&self) -> PathBuf {
        self.folder.path().join("initramfs.cpio")
    }

    fn write_initramfs(self, archive: Archive) -> Result<Self> {
        fs::write(self.initramfs(), archive.finish()?).context("failed to write the initramfs")?;
        Ok(self)
    }

    /// An image of files that do not exist.
    #[cfg(test)]
    pub(crate) fn fake(disk: Option<&str>) -> Self {
        Self {
            qemu: "/qemu".into(),
            kernel: "/kernel".into(),
            compressed_kernel: "/compressed-kernel".into(),
            agent: "/usr/sbin/qgad".into(),
            reference: None,
            disk: disk.map(Into::into),
            folder: tempfile::tempdir().expect("a temporary directory"),
        }
    }
}

/// What both guests begin with: directories, a console and busybox.
fn base(needs: &Needs) -> Result<Archive> {
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.directory(Path::new(directory))?;
    }
    // The kernel opens it for init, before devtmpfs is mounted.
    archive.character_device(Path::new("/dev/console"), (5, 1))?;
    archive.file(Path::new("/bin/busybox"), 0o755, &read(&needs.busybox)?)?;
    let applets = output_of(Command::new(&needs.busybox).arg("--list"))?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        archive.symlink(&Path::new("/bin").join(applet), Path::new("busybox"))?;
    }
    Ok(archive)
}

/// Adds each module once, and the lists by which the guest loads them.
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

fn output_of(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("failed to run {command:?}"))?;
    // ldd fails on a static program, and says so on the output that is parsed.
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("failed to read {}", path.display()))
}
