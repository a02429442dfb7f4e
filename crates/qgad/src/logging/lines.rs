//! Lines that are appended to a file, or to standard error.
//!
//! A line is lost if it does not fit; nothing waits for room. Before the first line that fits again, another one says
//! how many were lost and why, so that readers of the file see the gap. If only half of a line fitted, the next one
//! still begins on a new line.

use std::io::{self, ErrorKind, Write};

use crate::util::errno;

/// Where lines go, and how many were lost.
#[derive(Debug)]
pub(super) struct Lines<W> {
    target: W,
    /// The last write ended in the middle of a line.
    is_torn: bool,
    lost: Option<Lost>,
}

/// Lines that are missing after the last write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) count: u64,
    /// Why the first of them was lost.
    pub(super) reason: String,
}

impl<W: Write> Lines<W> {
    pub(super) const fn new(target: W) -> Self {
        Self { target, is_torn: false, lost: None }
    }

    /// Where the lines go.
    pub(super) fn target(&self) -> &W {
        &self.target
    }

    /// Appends a line, after one that `report` makes of the lines that are missing before it. Returns the reason if
    /// this line is the first one that is lost.
    pub(super) fn append(&mut self, line: &str, report: impl FnOnce(&Lost) -> String) -> Option<String> {
        let mut text = if self.is_torn { "\n".to_owned() } else { String::new() };
        if let Some(lost) = &self.lost {
            text += &report(lost);
            text.push('\n');
        }
        let reported = text.len();
        text += line;
        text.push('\n');
        let (written, result) = self.write(text.as_bytes());
        if written > 0 {
            self.is_torn = text.as_bytes()[written - 1] != b'\n';
        }
        if written >= reported {
            self.lost = None;
        }
        let reason = errno::describe(result.err()?);
        if let Some(lost) = &mut self.lost {
            lost.count += 1;
            return None;
        }
        self.lost = Some(Lost { count: 1, reason: reason.clone() });
        Some(reason)
    }

    /// Writes as many bytes as fit, and returns how many.
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

    /// A disk with this many free bytes.
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

    /// Appends the lines `line 1`, `line 2` and so on to a disk, which gets this many free bytes before each.
    fn check(rooms: &[usize], contents: &str, reports: usize) {
        let mut lines = Lines::new(Disk::default());
        let mut reported = 0;
        for (index, room) in rooms.iter().enumerate() {
            lines.target.room += room;
            let report = |lost: &Lost| format!("({} lost: {})", lost.count, lost.reason);
            reported += usize::from(lines.append(&format!("line {}", index + 1), report).is_some());
        }
        assert_eq!((lines.target.contents.as_str(), reported), (contents, reports), "{rooms:?}");
    }

    #[test]
    fn lines_that_have_room_are_written() {
        check(&[7, 7], "line 1\nline 2\n", 0);
    }

    #[test]
    fn a_gap_is_counted_in_its_place_and_reported_once() {
        check(&[7, 0, 0, 100], "line 1\n(2 lost: No space left on device)\nline 4\n", 1);
        check(&[0, 100, 0], "(1 lost: No space left on device)\nline 2\nline 3\n", 1);
    }

    #[test]
    fn half_a_line_counts_as_lost_and_stands_alone() {
        check(&[3, 0, 100], "lin\n(2 lost: No space left on device)\nline 3\n", 1);
        // Only its end is missing.
        check(&[6, 100], "line 1\n(1 lost: No space left on device)\nline 2\n", 1);
    }

    #[test]
    fn reported_lines_are_not_counted_again() {
        let told = "(1 lost: No space left on device)\n";
        check(&[0, told.len(), 0, 100], &format!("{told}(2 lost: No space left on device)\nline 4\n"), 2);
    }
}
