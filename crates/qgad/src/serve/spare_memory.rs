//! Memory that large messages have left free, and when it is returned to the kernel.
//!
//! It is kept for a moment, because a host that moves a file in pieces sends the next piece at once.

use std::time::{Duration, Instant};

use crate::sys;

/// Bytes of messages after which returning memory may be worth it. A parsed message may take thirty times its size.
const MUCH_FREED_BYTES: usize = 64 * 1024;
/// How long memory is kept for the next large message.
const SPARE_MEMORY_AGE: Duration = Duration::from_secs(1);

/// What large messages have left free, and when it is given back.
#[derive(Debug, Default)]
pub(crate) struct SpareMemory {
    /// Since it was last decided when to give memory back.
    freed: usize,
    give_back_at: Option<Instant>,
}

impl SpareMemory {
    /// Buffers of this many bytes may have become free: they were sent, read, or dropped.
    ///
    /// Small messages do not put off what large ones have left: a host may poll without a pause.
    pub(crate) fn note(&mut self, freed: usize, now: Instant) {
        self.freed = self.freed.saturating_add(freed);
        if self.freed >= MUCH_FREED_BYTES {
            *self = Self { freed: 0, give_back_at: Some(now + SPARE_MEMORY_AGE) };
        }
    }

    /// When [`Self::give_back_old`] has something to do.
    pub(crate) fn give_back_at(&self) -> Option<Instant> {
        self.give_back_at
    }

    /// Gives back what no further message has needed.
    pub(crate) fn give_back_old(&mut self, now: Instant) {
        if self.give_back_at.is_some_and(|at| at <= now) {
            self.give_back_at = None;
            sys::allocator::trim();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_a_while_after_the_last_large_message() {
        let (mut spare, now) = (SpareMemory::default(), Instant::now());
        spare.note(MUCH_FREED_BYTES - 1, now);
        assert_eq!(spare.give_back_at(), None);
        spare.note(1, now);
        assert_eq!(spare.give_back_at(), Some(now + SPARE_MEMORY_AGE));
        let later = now + SPARE_MEMORY_AGE / 2;
        spare.note(30, later);
        assert_eq!(spare.give_back_at(), Some(now + SPARE_MEMORY_AGE));
        spare.note(MUCH_FREED_BYTES, later);
        assert_eq!(spare.give_back_at(), Some(later + SPARE_MEMORY_AGE));
        spare.give_back_old(later + SPARE_MEMORY_AGE);
        assert_eq!(spare.give_back_at(), None);
    }
}
