//! The thread that moves the programs' bytes.

use std::time::Instant;

use nix::{errno::Errno, sys::epoll::EpollEvent};

use super::Shared;
use crate::{sys, util::timeout};

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
        let sleep = timeout::until(shared.table().next_deadline());
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
            sys::allocator::trim();
        }
    }
}
