//! Threads that nobody waits for.
//!
//! What they do is boxed on the way, so that the code that starts a thread is there once, not once for each kind of work.

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
