//! Freezing file systems, and thawing them.

pub(crate) mod hooks;
