//! Extended attributes of files.

use std::{
    ffi::{CStr, CString},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use nix::libc;

/// Whether a file has an attribute with the value `1`.
pub(crate) fn is_true(path: &Path, name: &CStr) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let mut value = [0_u8; 1];
    // SAFETY: the strings end with a NUL, and the kernel writes at most the length of `value`; all outlive the call.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    length == 1 && value == *b"1"
}
