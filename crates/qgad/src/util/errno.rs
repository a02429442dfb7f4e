//! Texts of system errors, as the C library has them: hosts and administrators know these, and match them.

use std::io::{self, ErrorKind};

use qga::wire::message::Error;

/// The text of a system error, without its number.
pub(crate) fn describe(error: impl Into<io::Error>) -> String {
    let error = error.into();
    let text = error.to_string();
    match error.raw_os_error().and_then(|number| text.strip_suffix(&format!(" (os error {number})"))) {
        Some(text) => text.into(),
        None => text,
    }
}

/// Whether a disk or a quota is full. The agent and a freeze work on then: the host may be about to free space.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// The error of a command that cannot open a file or directory.
pub(crate) fn could_not_open(path: &str, error: impl Into<io::Error>) -> Error {
    Error::generic(format!("Could not open '{path}': {}", describe(error)))
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn the_texts_are_those_of_the_c_library() {
        assert_eq!(describe(Errno::EAGAIN), "Resource temporarily unavailable");
        assert_eq!(describe(Errno::EIO), "Input/output error");
        assert_eq!(describe(io::Error::other("the disk is gone")), "the disk is gone");
    }
}
