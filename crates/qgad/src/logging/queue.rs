//! Lines that wait to be written, in order.
//!
//! The log and the audit have a limit each, so that polls in the log do not displace lines of the audit. The oldest
//! lines are dropped first. A line in their place says how many.

use std::{collections::VecDeque, time::SystemTime};

use super::{Kind, lines::Lost};

/// Most bytes of the log that are held while file systems are frozen, and as many of the audit: more than a thousand
/// lines of the audit.
pub(crate) const MAX_HELD_BYTES: usize = 256 * 1024;
/// Most bytes of each that wait for a slow log: the held lines, and as many again while those are written.
const MAX_WAITING_BYTES: usize = 2 * MAX_HELD_BYTES;

/// The lines, and who writes them.
#[derive(Debug)]
pub(super) struct Queue {
    lines: VecDeque<(SystemTime, Kind, String)>,
    log: Share,
    audit: Share,
    /// Nothing may be written.
    pub(super) is_held: bool,
    /// The line that was taken last is being written.
    pub(super) is_writing: bool,
    pub(super) writer: Writer,
}

/// Who writes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// The thread that logs.
    Caller,
    /// The writer thread, which the next line starts.
    ThreadToStart,
    /// The writer thread.
    Thread,
}

/// How much of the queue one of the two has.
#[derive(Debug)]
struct Share {
    bytes: usize,
    dropped: Option<Lost>,
}

/// What to write next.
#[derive(Debug)]
pub(super) enum Next {
    Line(SystemTime, Kind, String),
    /// Lines of the log that were dropped.
    LogGap(Lost),
    /// Lines of the audit that were dropped.
    AuditGap(Lost),
}

impl Queue {
    pub(super) const fn new() -> Self {
        const NOTHING: Share = Share { bytes: 0, dropped: None };
        Self {
            lines: VecDeque::new(),
            log: NOTHING,
            audit: NOTHING,
            is_held: false,
            is_writing: false,
            writer: Writer::Caller,
        }
    }

    pub(super) fn push(&mut self, time: SystemTime, kind: Kind, line: String) {
        let is_audit = |kind| kind == Kind::Audit;
        let share = if is_audit(kind) { &mut self.audit } else { &mut self.log };
        share.bytes += line.len();
        self.lines.push_back((time, kind, line));
        let (room, reason) = match self.is_held {
            true => (MAX_HELD_BYTES, "file systems were frozen"),
            false => (MAX_WAITING_BYTES, "the log was too slow"),
        };
        while share.bytes > room {
            let oldest = self.lines.iter().position(|(_, other, _)| is_audit(*other) == is_audit(kind));
            let Some((_, _, oldest)) = oldest.and_then(|index| self.lines.remove(index)) else { return };
            share.bytes -= oldest.len();
            share.dropped.get_or_insert_with(|| Lost { count: 0, reason: reason.into() }).count += 1;
        }
    }

    /// Whether something may be written now.
    pub(super) fn has_work(&self) -> bool {
        !self.is_held && !self.lines.is_empty()
    }

    /// What to write next, if anything may be written. The writer asks again when that is done.
    pub(super) fn take(&mut self) -> Option<Next> {
        self.is_writing = self.has_work();
        if !self.is_writing {
            return None;
        }
        if let Some(lost) = self.log.dropped.take() {
            return Some(Next::LogGap(lost));
        }
        if let Some(lost) = self.audit.dropped.take() {
            return Some(Next::AuditGap(lost));
        }
        let (time, kind, line) = self.lines.pop_front()?;
        let share = if kind == Kind::Audit { &mut self.audit } else { &mut self.log };
        share.bytes -= line.len();
        Some(Next::Line(time, kind, line))
    }

    pub(super) fn clear(&mut self) {
        let writer = std::mem::replace(&mut self.writer, Writer::Caller);
        *self = Self { writer, is_held: self.is_held, is_writing: self.is_writing, ..Self::new() };
    }
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    const LOG: Kind = Kind::Log(Level::Info);

    /// The numbers of the lines of a kind, and how many were dropped before them.
    fn taken(mut queue: Queue, of: Kind) -> (Vec<u64>, u64) {
        let (mut numbers, mut dropped) = (Vec::new(), 0);
        while let Some(next) = queue.take() {
            match next {
                Next::Line(_, kind, line) if kind == of => {
                    numbers.push(line.split(' ').next().unwrap().parse().unwrap());
                }
                Next::Line(..) => {}
                Next::LogGap(lost) => dropped += if of == LOG { lost.count } else { 0 },
                Next::AuditGap(lost) => dropped += if of == LOG { 0 } else { lost.count },
            }
        }
        assert!(!queue.is_writing && queue.log.bytes == 0 && queue.audit.bytes == 0);
        (numbers, dropped)
    }

    #[test]
    fn the_queue_is_bounded_and_the_oldest_lines_are_dropped() {
        let mut queue = Queue::new();
        for number in 0..1000 {
            queue.push(SystemTime::now(), LOG, format!("{number} {}", "x".repeat(1000)));
        }
        assert!(queue.log.bytes <= MAX_WAITING_BYTES);
        let (numbers, dropped) = taken(queue, LOG);
        assert!(dropped < 1000);
        assert_eq!(numbers, (dropped..1000).collect::<Vec<_>>());
    }

    #[test]
    fn the_log_does_not_displace_the_audit() {
        let mut queue = Queue::new();
        for number in 0..1000 {
            queue.push(SystemTime::now(), LOG, format!("{number} {}", "x".repeat(1000)));
            if number % 100 == 0 {
                queue.push(SystemTime::now(), Kind::Audit, number.to_string());
            }
        }
        // They are between the lines that were logged at the same time.
        let last = queue.lines.iter().position(|(_, _, line)| line == "900").unwrap();
        assert!(queue.lines[last - 1].2.starts_with("900 "));
        assert_eq!(taken(queue, Kind::Audit), ((0..10).map(|number| number * 100).collect(), 0));
    }

    #[test]
    fn nothing_is_taken_while_lines_are_held() {
        let mut queue = Queue { is_held: true, ..Queue::new() };
        queue.push(SystemTime::now(), LOG, "1".into());
        assert!(queue.take().is_none() && !queue.is_writing);
        queue.is_held = false;
        assert!(queue.take().is_some() && queue.is_writing);
        assert!(queue.take().is_none() && !queue.is_writing);
    }
}
