//! The way to Debian with systemd, which stands on a disk that `tools/make-debian` made.
//!
//! The initramfs holds what is copied onto that disk, as a package of the agent would install it, and the init that
//! copies it and then starts the disk's own. The disk itself is not written to: QEMU keeps the changes.

use std::path::Path;

use anyhow::Result;

use super::{INIT_PATH, Image, MODULE_LIST, PACKAGE, PAYLOAD, RPM, programs::Programs, read};
use crate::needs::{Needs, Packages};

/// The modules of the disk, of the ports and of vsock within the guest, and those that the file system requests by
/// aliases.
const MODULES: &[&str] =
    &["virtio_pci", "virtio_blk", "virtio_console", "crc32c_generic", "ext4", "loop", "vsock_loopback"];
/// The control channel as a service, which is independent of `qgad`. The kernel does not kill it when memory runs out.
const CONTROL_UNIT: &str = "\
[Service]
ExecStart=/usr/lib/vmtest/vmtest-guest control
OOMScoreAdjust=-1000
";

/// Starts that service once its port exists.
const CONTROL_RULE: &str = r#"
SUBSYSTEM=="virtio-ports", ATTR{name}=="vmtest.control", TAG+="systemd", ENV{SYSTEMD_WANTS}="vmtest-control.service"
"#;

impl Image {
    /// Makes the initramfs for Debian on a disk that `tools/make-debian` made.
    ///
    /// Without packages, the agent is installed with the files of `packaging`, and its unit is not enabled. With
    /// packages, the guest finds them at [`PACKAGE`] and [`RPM`]. The disk also gets a service for the control channel.
    /// The agent and our init use the disk's libraries, so they must not need newer ones.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn debian(needs: &Needs, disk: &Path, packages: Option<&Packages>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut archive = super::base(needs)?;
        super::add_modules(&mut archive, needs, &[(MODULE_LIST, MODULES)])?;
        let mut programs = Programs::new(&mut archive, folder.path());
        programs.add(&needs.init, INIT_PATH)?;
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
                let unit = include_bytes!("../../../../packaging/systemd/qgad.service");
                let rule = include_bytes!("../../../../packaging/udev/60-qgad.rules");
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
            compressed_kernel: needs.kernel.compressed.clone(),
            agent: "/usr/sbin/qgad".into(),
            reference: None,
            disk: Some(disk.into()),
            folder,
        };
        image.write_initramfs(archive)
    }
}
