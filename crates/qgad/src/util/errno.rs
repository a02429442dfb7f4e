//! What went wrong, in the words of the C library: those that hosts and administrators know, and match.

use std::io::{self, ErrorKind};

use qga::wire::message::Error;

/// The words for an error of the system, without its number.
pub(crate) fn words(error: impl Into<io::Error>) -> String {
    let error = error.into();
    let text = error.to_string();
    match error.raw_os_error().and_then(|number| text.strip_suffix(&format!(" (os error {number})"))) {
        Some(words) => words.into(),
        None => text,
    }
}

/// Whether a disk is full. That may pass, and is no reason to leave a host without an agent or a freeze: it may be about to
/// make room.
pub(crate) fn is_lack_of_room(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// The refusal of a command that needs a file, or a directory, which cannot be opened.
pub(crate) fn could_not_open(path: &str, error: impl Into<io::Error>) -> Error {
    Error::generic(format!("Could not open '{path}': {}", words(error)))
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn the_words_are_the_c_librarys() {
        assert_eq!(words(Errno::EAGAIN), "Resource temporarily unavailable");
        assert_eq!(words(Errno::EIO), "Input/output error");
        assert_eq!(words(io::Error::other("the disk is gone")), "the disk is gone");
    }
}
