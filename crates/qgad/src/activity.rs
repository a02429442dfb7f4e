//! What the agent has done since its start, counted for monitoring.
//!
//! The numbers are independent of each other: a reader may see a request counted whose refusal is not counted yet.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// Counts since the start.
#[derive(Debug)]
pub(crate) struct Activity {
    started: Instant,
    requests: AtomicU64,
    refused: AtomicU64,
    timed_out: AtomicU64,
    stuck: AtomicUsize,
}

/// The counts at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Time since the start.
    pub(crate) uptime: Duration,
    /// Requests that were read, invalid ones included.
    pub(crate) requests: u64,
    /// Requests that the configuration or a freeze has refused.
    pub(crate) refused: u64,
    /// Commands that were given up at their timeout.
    pub(crate) timed_out: u64,
    /// Those of them that have not ended.
    pub(crate) stuck: u64,
}

impl Activity {
    /// For an agent that starts now.
    pub(crate) fn begin() -> Self {
        Self {
            started: Instant::now(),
            requests: AtomicU64::default(),
            refused: AtomicU64::default(),
            timed_out: AtomicU64::default(),
            stuck: AtomicUsize::default(),
        }
    }

    /// A request was read.
    pub(crate) fn has_read_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was refused by the policy.
    pub(crate) fn has_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Commands were given up or have ended after that; so many are stuck now.
    pub(crate) fn has_given_up(&self, newly: usize, stuck: usize) {
        self.timed_out.fetch_add(newly as u64, Ordering::Relaxed);
        self.stuck.store(stuck, Ordering::Relaxed);
    }

    /// The counts now.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            uptime: self.started.elapsed(),
            requests: self.requests.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            timed_out: self.timed_out.load(Ordering::Relaxed),
            stuck: self.stuck.load(Ordering::Relaxed) as u64,
        }
    }
}
