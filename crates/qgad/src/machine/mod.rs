//! The machine itself: its power states, its hardware clock, and its network interfaces as the kernel lists them.

pub(crate) mod netlink;
pub(crate) mod power;
pub(crate) mod rtc;
