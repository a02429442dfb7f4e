//! Safe faces over system calls that `nix` has no safe face for. The only place with `unsafe`, one call a block.
#![allow(unsafe_code, reason = "the one place for it")]

pub(crate) mod fd;
pub(crate) mod freeze;
pub(crate) mod groups;
pub(crate) mod inheritance;
pub(crate) mod memory;
pub(crate) mod nvme;
pub(crate) mod pidfd;
pub(crate) mod process;
pub(crate) mod read;
pub(crate) mod rtc;
pub(crate) mod trim;
