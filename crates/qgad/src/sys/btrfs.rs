//! The identity of a btrfs.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::{errno::Errno, libc, request_code_read};

/// `struct btrfs_ioctl_fs_info_args` of linux/btrfs.h, of which only the beginning matters here.
#[repr(C)]
struct Information {
    largest_device_id: u64,
    device_count: u64,
    id: [u8; 16],
    rest: [u8; 992],
}

/// The id of the btrfs that a file is on. It is the one in its superblock, or what it was mounted under instead.
pub(crate) fn file_system_id(file: BorrowedFd<'_>) -> nix::Result<[u8; 16]> {
    let mut information = Information { largest_device_id: 0, device_count: 0, id: [0; 16], rest: [0; 992] };
    let request = request_code_read!(0x94, 31, size_of::<Information>());
    // SAFETY: the kernel writes the structure, which outlives the call. Other file systems refuse the request.
    let status = unsafe { libc::ioctl(file.as_raw_fd(), request, &raw mut information) };
    Errno::result(status)?;
    Ok(information.id)
}
