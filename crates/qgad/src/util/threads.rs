//! Threads that nobody joins.
//!
//! The work is boxed, so that the code that starts a thread exists once and not once per type of work.

use std::{io, thread};

/// Starts one, by a name for debuggers.
///
/// # Errors
/// When the system gives no further thread.
pub(crate) fn start(name: &str, stack_bytes: usize, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    start_boxed(name, stack_bytes, Box::new(work))
}

fn start_boxed(name: &str, stack_bytes: usize, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    thread::Builder::new().name(name.into()).stack_size(stack_bytes).spawn(work).map(drop)
}
