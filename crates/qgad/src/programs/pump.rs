//! The thread that moves the programs' bytes.

use std::time::{Duration, Instant};

use nix::{
    errno::Errno,
    sys::epoll::{EpollEvent, EpollTimeout},
};

use super::Shared;
use crate::sys;

/// The thread's stack; its buffer is not on it.
pub(super) const STACK_BYTES: usize = 128 * 1024;
/// Bytes moved at a time: what a pipe holds. Between two pieces everybody else has a turn.
pub(super) const PIECE_BYTES: usize = 64 * 1024;
/// Events taken at a time.
const EVENTS: usize = 32;

/// Serves the programs for as long as the agent lives.
pub(super) fn run(shared: &Shared) {
    let mut piece = vec![0; PIECE_BYTES];
    let mut events = [EpollEvent::empty(); EVENTS];
    loop {
        let sleep = time_to_sleep(shared.table().next_deadline());
        let count = match shared.epoll.wait(&mut events, sleep) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => {
                log::error!("programs are no longer looked after: {error}");
                return;
            }
        };
        for event in &events[..count] {
            shared.table().handle(event.data(), &mut piece, Instant::now());
        }
        if shared.table().forget_old(Instant::now()) {
            sys::memory::give_back();
        }
    }
}

fn time_to_sleep(deadline: Option<Instant>) -> EpollTimeout {
    let Some(deadline) = deadline else { return EpollTimeout::NONE };
    // Rounded up, so that the deadline has passed then.
    let sleep = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    EpollTimeout::try_from(sleep).unwrap_or(EpollTimeout::MAX)
}
