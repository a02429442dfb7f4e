//! Timeouts for poll(2) and epoll(7).

use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

/// Until a deadline, if there is one: rounded up to milliseconds, so that it has passed when it is looked at.
pub(crate) fn until(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let time = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX)
}
