//! Block devices: what is mounted, what it stands on, and where that is.
//!
//! All of it is read from the kernel's own files and from udev's database, where there is one; no library is needed.
//! Nothing here fails because of one odd device: what cannot be told of it is left out. What is asked of a device
//! itself, which may be suspended or dead, goes through [`Probes`].

pub(crate) mod address;
pub(crate) mod capacity;
pub(crate) mod device;
pub(crate) mod mounts;
pub(crate) mod probes;
pub(crate) mod smart;

pub(crate) use self::probes::{Limits, Probes};
