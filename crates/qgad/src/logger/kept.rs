//! Lines that are kept in memory while nothing may be written.
//!
//! They stay in their order. Of the log and of the audit [`MAX_KEPT_BYTES`] are kept each, so that polls in the log do not
//! drive out what the audit has to tell. The oldest are dropped first, and counted.

use std::{collections::VecDeque, time::SystemTime};

use super::Kind;

/// Most bytes of the log, and as many of the audit, that are kept: more than a thousand lines of the audit.
pub(crate) const MAX_KEPT_BYTES: usize = 256 * 1024;

/// What is kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) lines: VecDeque<(SystemTime, Kind, String)>,
    pub(super) log: Share,
    pub(super) audit: Share,
}

/// What one of the two has.
#[derive(Debug, Default)]
pub(super) struct Share {
    bytes: usize,
    pub(super) dropped: u64,
}

impl Kept {
    pub(super) fn push(&mut self, time: SystemTime, kind: Kind, line: String) {
        let is_audit = |kind| kind == Kind::Audit;
        let share = if is_audit(kind) { &mut self.audit } else { &mut self.log };
        share.bytes += line.len();
        self.lines.push_back((time, kind, line));
        while share.bytes > MAX_KEPT_BYTES {
            let oldest = self.lines.iter().position(|(_, other, _)| is_audit(*other) == is_audit(kind));
            let Some((_, _, oldest)) = oldest.and_then(|index| self.lines.remove(index)) else { return };
            share.bytes -= oldest.len();
            share.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    const LOG: Kind = Kind::Log(Level::Info);

    fn numbers(kept: &Kept, kind: Kind) -> Vec<usize> {
        let lines = kept.lines.iter().filter(|(_, other, _)| *other == kind);
        lines.map(|(_, _, line)| line.split(' ').next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_is_dropped() {
        let mut kept = Kept::default();
        for number in 0..1000 {
            kept.push(SystemTime::now(), LOG, format!("{number} {}", "x".repeat(1000)));
        }
        let first = usize::try_from(kept.log.dropped).unwrap();
        assert!(kept.log.bytes <= MAX_KEPT_BYTES && first < 1000);
        assert_eq!(numbers(&kept, LOG), (first..1000).collect::<Vec<_>>());
    }

    #[test]
    fn the_log_does_not_drive_out_the_audit() {
        let mut kept = Kept::default();
        for number in 0..1000 {
            kept.push(SystemTime::now(), LOG, format!("{number} {}", "x".repeat(1000)));
            if number % 100 == 0 {
                kept.push(SystemTime::now(), Kind::Audit, number.to_string());
            }
        }
        assert_eq!(numbers(&kept, Kind::Audit), (0..10).map(|number| number * 100).collect::<Vec<_>>());
        assert_eq!(kept.audit.dropped, 0);
        // They stand among the lines that were logged at the same time.
        let last = kept.lines.iter().position(|(_, _, line)| line == "900").unwrap();
        assert!(kept.lines[last - 1].2.starts_with("900 "));
    }
}
