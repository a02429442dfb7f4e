//! The way out of a terminal: `~.` at the beginning of a line, as with ssh(1).
//!
//! Every other key belongs to the guest, so that no signal of the keyboard ends qgactl. `~~` there sends one tilde. A
//! tilde is held back until the next key says what it means.

/// What was typed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    LineBegin,
    Tilde,
    WithinLine,
}

/// Looks for the way out in what is typed.
#[derive(Debug)]
pub(super) struct Escape(State);

impl Escape {
    pub(super) fn new() -> Self {
        Self(State::LineBegin)
    }

    /// Adds what is for the guest to `kept`, and returns whether the way out was typed; what follows it is dropped.
    pub(super) fn filter(&mut self, typed: &[u8], kept: &mut Vec<u8>) -> bool {
        for &byte in typed {
            match (self.0, byte) {
                (State::LineBegin, b'~') => {
                    self.0 = State::Tilde;
                    continue;
                }
                (State::Tilde, b'.') => return true,
                (State::Tilde, b'~') => kept.push(b'~'),
                (State::Tilde, _) => kept.extend([b'~', byte]),
                _ => kept.push(byte),
            }
            self.0 = if matches!(byte, b'\r' | b'\n') { State::LineBegin } else { State::WithinLine };
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(typed: &str, kept: &str, leaves: bool) {
        // In one piece and byte by byte.
        for size in [typed.len(), 1] {
            let (mut escape, mut found) = (Escape::new(), Vec::new());
            let left = typed.as_bytes().chunks(size).any(|piece| escape.filter(piece, &mut found));
            assert_eq!((String::from_utf8(found).unwrap().as_str(), left), (kept, leaves), "{typed:?}");
        }
    }

    #[test]
    fn a_tilde_and_a_dot_at_the_beginning_of_a_line_are_the_way_out() {
        check("~.", "", true);
        check("ls\r~.rest", "ls\r", true);
        check("a\n~.", "a\n", true);
    }

    #[test]
    fn all_else_is_for_the_guest() {
        check("a~.", "a~.", false);
        check("cd ~\r", "cd ~\r", false);
        check("~/bin/x\r", "~/bin/x\r", false);
        check("~\r~\r", "~\r~\r", false);
        check("\x03\x1a\x1c", "\x03\x1a\x1c", false);
    }

    #[test]
    fn a_tilde_is_sent_by_two() {
        check("~~.", "~.", false);
        check("~~~.\r", "~~.\r", false);
    }
}
