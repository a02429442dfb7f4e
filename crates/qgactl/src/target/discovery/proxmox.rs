//! Which machines are Proxmox VE's, by the number of their pid file in its run directory.

use std::path::Path;

use super::qemu::Options;

/// Its run directory, by the end of its path: `/var/run` is a link to `/run`.
const DIRECTORY: &str = "run/qemu-server";

/// The number of a machine of Proxmox VE.
pub(super) fn number(options: &Options) -> Option<String> {
    let path = Path::new(options.last("pidfile")?);
    let number = path.file_name()?.to_str()?.strip_suffix(".pid")?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && path.parent()?.ends_with(DIRECTORY)).then(|| number.to_owned())
}
