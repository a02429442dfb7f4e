//! The requests of hardware clocks.

use std::os::fd::{AsFd, AsRawFd};

use nix::{errno::Errno, libc, request_code_read, request_code_write};

/// `struct rtc_time` of linux/rtc.h: a date and a time of day, with the month from 0 and the year from 1900.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RtcTime {
    pub(crate) second: i32,
    pub(crate) minute: i32,
    pub(crate) hour: i32,
    pub(crate) day: i32,
    pub(crate) month: i32,
    pub(crate) year: i32,
    /// Day of the week, day of the year, daylight saving time: the kernel ignores them.
    pub(crate) unused: [i32; 3],
}

/// Reads the clock.
pub(crate) fn read(device: &impl AsFd) -> nix::Result<RtcTime> {
    let mut time = RtcTime::default();
    let request = request_code_read!(b'p', 0x09, size_of::<RtcTime>());
    // SAFETY: the kernel writes the structure, which outlives the call. Files that are no clocks refuse the request.
    let status = unsafe { libc::ioctl(device.as_fd().as_raw_fd(), request, &raw mut time) };
    Errno::result(status).map(|_| time)
}

/// Sets the clock.
pub(crate) fn set(device: &impl AsFd, time: &RtcTime) -> nix::Result<()> {
    let request = request_code_write!(b'p', 0x0a, size_of::<RtcTime>());
    // SAFETY: the kernel reads the structure, which outlives the call. Files that are no clocks refuse the request.
    let status = unsafe { libc::ioctl(device.as_fd().as_raw_fd(), request, std::ptr::from_ref(time)) };
    Errno::result(status).map(drop)
}
