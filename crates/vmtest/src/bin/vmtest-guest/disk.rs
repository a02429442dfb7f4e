//! From the initramfs to the system on the first disk.
//!
//! If a device is given that a machine was suspended to, the kernel resumes that machine and this code never returns.
//! Otherwise the payload is copied onto the disk, file by file, and the disk's own init takes over.

use std::{convert::Infallible, fs, os::unix::process::CommandExt, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use vmtest::image::{MODULE_LIST, PAYLOAD};

use crate::init;

const DISK: &str = "/dev/vda";
const MOUNT_POINT: &str = "/mnt";
/// The mount points that the disk's init takes over.
const MOVED: &[&str] = &["proc", "sys", "dev", "run"];

/// Replaces process 1 by the disk's init.
pub(crate) fn hand_over(resume: Option<&str>) -> Result<Infallible> {
    init::mount_file_systems()?;
    init::load_modules(Path::new(MODULE_LIST))?;
    if let Some(device) = resume {
        let number = fs::read_to_string(format!("/sys/block/{device}/dev"))?;
        // Fails where nothing was suspended.
        let _ = fs::write("/sys/power/resume", number.trim());
    }
    mount(Some(DISK), MOUNT_POINT, Some("ext4"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("failed to mount {DISK}"))?;
    let copied = Command::new("/bin/cp").arg("-a").arg(format!("{PAYLOAD}/.")).arg(MOUNT_POINT).status()?;
    if !copied.success() {
        bail!("failed to copy {PAYLOAD} onto {DISK}");
    }
    for name in MOVED {
        let (from, to) = (Path::new("/").join(name), Path::new(MOUNT_POINT).join(name));
        mount(Some(&from), &to, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .with_context(|| format!("failed to move {}", from.display()))?;
    }
    Err(Command::new("/bin/switch_root").args([MOUNT_POINT, "/sbin/init"]).exec())
        .context("failed to switch to the disk")
}
