//! Memory that large messages have left free, and when it goes back to the kernel.
//!
//! It is kept for a moment, because a host that moves a file in pieces sends the next one at once.

use std::time::{Duration, Instant};

use crate::sys;

/// Bytes moved after which there may be memory worth giving back.
const MUCH_MOVED_BYTES: usize = 1024 * 1024;
/// How long it is kept for a next large message, which a host that moves a file in pieces sends at once.
const SPARE_MEMORY_AGE: Duration = Duration::from_secs(1);

/// What large messages have left free, and when it is given back.
#[derive(Debug, Default)]
pub(crate) struct SpareMemory {
    moved: usize,
    give_back_at: Option<Instant>,
}

impl SpareMemory {
    /// Bytes were read or sent, and with them buffers have become free.
    pub(crate) fn note(&mut self, moved: usize) {
        self.moved = self.moved.saturating_add(moved);
        if self.moved >= MUCH_MOVED_BYTES {
            self.give_back_at = Some(Instant::now() + SPARE_MEMORY_AGE);
        }
    }

    /// When [`Self::give_back_old`] has something to do.
    pub(crate) fn give_back_at(&self) -> Option<Instant> {
        self.give_back_at
    }

    /// Gives back what no further message has needed.
    pub(crate) fn give_back_old(&mut self, now: Instant) {
        if self.give_back_at.is_some_and(|at| at <= now) {
            *self = Self::default();
            sys::allocator::trim();
        }
    }
}
