//! The thread that moves the input and output of programs.

use std::time::Instant;

use nix::{errno::Errno, sys::epoll::EpollEvent};

use super::Shared;
use crate::{sys, util::timeout};

/// The stack of the thread. Its buffer is on the heap.
pub(super) const STACK_BYTES: usize = 128 * 1024;
/// Bytes moved at a time: the capacity of a pipe. After each piece, the other programs have their turn.
pub(super) const PIECE_BYTES: usize = 64 * 1024;
/// Freed memory, in bytes, that is worth giving back to the kernel. No program needs what another one has left.
const MUCH_FREED_BYTES: usize = 1024 * 1024;
/// Events handled at a time: a few programs, with three pipes each.
const EVENTS: usize = 32;

/// Moves bytes and reaps programs until the process ends.
pub(super) fn run(shared: &Shared) {
    let mut piece = vec![0; PIECE_BYTES];
    let mut freed = 0;
    let mut events = [EpollEvent::empty(); EVENTS];
    loop {
        let timeout = timeout::until(shared.table().next_deadline());
        let count = match shared.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => {
                log::error!("programs are no longer served: {error}");
                return;
            }
        };
        for event in &events[..count] {
            shared.table().handle(event.data(), &mut piece, Instant::now());
        }
        shared.table().forget_old(Instant::now());
        freed += shared.table().take_freed_bytes();
        if freed >= MUCH_FREED_BYTES {
            freed = 0;
            sys::allocator::trim();
        }
    }
}
