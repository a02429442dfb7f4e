//! Safe functions for system calls that `nix` offers only as `unsafe`, or not at all.
//!
//! The only place with `unsafe`, one call a block. Every function here is sound for all arguments: what a call needs to
//! hold, the function checks, or its types guarantee. A descriptor is owned only where the kernel has just made it.
#![allow(unsafe_code, reason = "the one place for it")]

pub(crate) mod allocator;
pub(crate) mod btrfs;
pub(crate) mod clock;
pub(crate) mod fd;
pub(crate) mod freeze;
pub(crate) mod groups;
pub(crate) mod io;
pub(crate) mod loop_device;
pub(crate) mod nvme;
pub(crate) mod pidfd;
pub(crate) mod process;
pub(crate) mod rtc;
pub(crate) mod socket;
pub(crate) mod terminal;
pub(crate) mod trim;
pub(crate) mod xattr;
