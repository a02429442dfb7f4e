//! What a loop device reads and writes.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::{errno::Errno, libc};

/// `LOOP_GET_STATUS64` of linux/loop.h.
const GET_STATUS: libc::Ioctl = 0x4C05;

/// `struct loop_info64` of linux/loop.h, of which only the beginning matters here.
#[repr(C)]
struct Status {
    device: u64,
    inode: u64,
    device_of_node: u64,
    rest: [u8; 208],
}

/// The file behind a loop device, as stat(2) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BackingFile {
    /// `st_dev`.
    pub(crate) device: libc::dev_t,
    /// `st_ino`.
    pub(crate) inode: libc::ino_t,
    /// `st_rdev`: the device, if it is the node of one.
    pub(crate) device_of_node: libc::dev_t,
}

/// Asks a loop device for its file; `ENXIO` if it has none.
pub(crate) fn backing_file(device: BorrowedFd<'_>) -> nix::Result<BackingFile> {
    let mut status = Status { device: 0, inode: 0, device_of_node: 0, rest: [0; 208] };
    // SAFETY: the kernel writes the structure, which outlives the call. Other devices and files refuse the request.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), GET_STATUS, &raw mut status) };
    Errno::result(result)?;
    let Status { device, inode, device_of_node, .. } = status;
    Ok(BackingFile { device, inode, device_of_node })
}
