//! Utilities for all modules. They import only `sys`.

pub(crate) mod errno;
pub(crate) mod file_lock;
#[cfg(test)]
pub(crate) mod gate;
pub(crate) mod glob;
pub(crate) mod in_use;
pub(crate) mod key_file;
pub(crate) mod keyed_lock;
pub(crate) mod threads;
pub(crate) mod timeout;
