//! Mounted file systems, their block devices, and the hardware addresses of these.
//!
//! All facts come from files of the kernel and from the udev database, if there is one. No library is needed. One odd
//! device is no reason to fail: what is unknown about it is left out. Requests to a device itself, which may be
//! suspended or dead, go through [`Probes`].

pub(crate) mod address;
pub(crate) mod backing;
pub(crate) mod btrfs;
pub(crate) mod capacity;
pub(crate) mod device;
pub(crate) mod lookup;
pub(crate) mod mount_table;
pub(crate) mod mounts;
pub(crate) mod probes;
pub(crate) mod smart;

pub(crate) use self::probes::{Limits, Probes};
