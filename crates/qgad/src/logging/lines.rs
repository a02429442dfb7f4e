//! Lines that are appended to a file, or to standard error.
//!
//! Where there is no room for a line it is lost, and nobody waits for room. The first line that gets through again has
//! one before it that says how many were lost and why, so that whoever reads the file knows of the gap. No line is joined
//! to the half of another one that had room for no more.

use std::io::{self, ErrorKind, Write};

use crate::util::errno;

/// Where lines go, and which of them did not get there.
#[derive(Debug)]
pub(super) struct Lines<W> {
    target: W,
    /// What was written last is the beginning of a line.
    is_torn: bool,
    lost: Option<Lost>,
}

/// Lines that are missing behind what was written last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) count: u64,
    /// Why the first of them is missing.
    pub(super) reason: String,
}

impl<W: Write> Lines<W> {
    pub(super) const fn new(target: W) -> Self {
        Self { target, is_torn: false, lost: None }
    }

    /// Appends a line, after what `tell` makes of those that are missing before it. Returns the reason if it is lost and
    /// none before it was.
    pub(super) fn append(&mut self, line: &str, tell: impl FnOnce(&Lost) -> String) -> Option<String> {
        let mut text = if self.is_torn { "\n".to_owned() } else { String::new() };
        if let Some(lost) = &self.lost {
            text += &tell(lost);
            text.push('\n');
        }
        let told = text.len();
        text += line;
        text.push('\n');
        let (written, result) = self.write(text.as_bytes());
        if written > 0 {
            self.is_torn = text.as_bytes()[written - 1] != b'\n';
        }
        if written >= told {
            self.lost = None;
        }
        let reason = errno::words(result.err()?);
        if let Some(lost) = &mut self.lost {
            lost.count += 1;
            return None;
        }
        self.lost = Some(Lost { count: 1, reason: reason.clone() });
        Some(reason)
    }

    /// Writes as much as there is room for, and returns how much that was.
    fn write(&mut self, text: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        while written < text.len() {
            match self.target.write(&text[written..]) {
                Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    /// A disk with so much room left.
    #[derive(Default)]
    struct Disk {
        contents: String,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(Errno::ENOSPC.into());
            }
            self.room -= count;
            self.contents += str::from_utf8(&bytes[..count]).unwrap();
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Appends the lines `1`, `2` and so on to a disk, each when the disk has been given so much more room.
    fn check(rooms: &[usize], contents: &str, complaints: usize) {
        let mut lines = Lines::new(Disk::default());
        let mut complained = 0;
        for (index, room) in rooms.iter().enumerate() {
            lines.target.room += room;
            let tell = |lost: &Lost| format!("({} lost: {})", lost.count, lost.reason);
            complained += usize::from(lines.append(&format!("line {}", index + 1), tell).is_some());
        }
        assert_eq!((lines.target.contents.as_str(), complained), (contents, complaints), "{rooms:?}");
    }

    #[test]
    fn lines_that_have_room_are_written() {
        check(&[7, 7], "line 1\nline 2\n", 0);
    }

    #[test]
    fn how_many_are_missing_stands_where_they_are_missing_and_is_complained_of_once() {
        check(&[7, 0, 0, 100], "line 1\n(2 lost: No space left on device)\nline 4\n", 1);
        check(&[0, 100, 0], "(1 lost: No space left on device)\nline 2\nline 3\n", 1);
    }

    #[test]
    fn half_a_line_is_lost_and_stands_alone() {
        check(&[3, 0, 100], "lin\n(2 lost: No space left on device)\nline 3\n", 1);
        // Only its end is missing.
        check(&[6, 100], "line 1\n(1 lost: No space left on device)\nline 2\n", 1);
    }

    #[test]
    fn what_was_told_of_is_not_counted_again() {
        let told = "(1 lost: No space left on device)\n";
        check(&[0, told.len(), 0, 100], &format!("{told}(2 lost: No space left on device)\nline 4\n"), 2);
    }
}
