//! From the initramfs to the system on the first disk.
//!
//! A machine that was suspended to the given device is resumed, if there is one: then this never comes back. Otherwise
//! the payload is copied onto the disk, file by file, and the disk's own init takes over.

use std::{convert::Infallible, fs, os::unix::process::CommandExt, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use vmtest::image::PAYLOAD;

use crate::init;

const DISK: &str = "/dev/vda";
const PLACE: &str = "/mnt";
/// What the disk's init is to find mounted.
const MOVED: &[&str] = &["proc", "sys", "dev", "run"];

/// Hands process 1 over to the disk's init.
pub(crate) fn hand_over(resume: Option<&str>) -> Result<Infallible> {
    init::mount_file_systems()?;
    init::load_modules()?;
    if let Some(device) = resume {
        let number = fs::read_to_string(format!("/sys/block/{device}/dev"))?;
        // Fails where nothing was suspended.
        let _ = fs::write("/sys/power/resume", number.trim());
    }
    mount(Some(DISK), PLACE, Some("ext4"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("failed to mount {DISK}"))?;
    let copied = Command::new("/bin/cp").arg("-a").arg(format!("{PAYLOAD}/.")).arg(PLACE).status()?;
    if !copied.success() {
        bail!("failed to copy {PAYLOAD} onto {DISK}");
    }
    for name in MOVED {
        let (from, to) = (Path::new("/").join(name), Path::new(PLACE).join(name));
        mount(Some(&from), &to, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .with_context(|| format!("failed to move {}", from.display()))?;
    }
    Err(Command::new("/bin/switch_root").args([PLACE, "/sbin/init"]).exec()).context("failed to switch to the disk")
}
