//! One peer's conversation: bytes in, bytes out, no transport of its own.
//!
//! Requests run one at a time and in order, so that replies leave in the order of the requests. A session takes no
//! input while a task of its own runs elsewhere, or while its peer does not read its replies: it never holds more than
//! [`MAX_UNSENT_BYTES`] and one reply. A new peer gets a new session, so that it cannot complete half a message of an
//! earlier one.

use qga::wire::{
    frame::{Frame, Framer},
    message,
};

use super::{
    dispatch::{Dispatched, Dispatcher, Task},
    output::Output,
};

/// Unsent bytes beyond which no further request is taken; enough to answer a batch of small ones in one write.
pub(crate) const MAX_UNSENT_BYTES: usize = 64 * 1024;

/// A conversation.
#[derive(Debug, Default)]
pub(crate) struct Session {
    framer: Framer,
    output: Output,
}

impl Session {
    /// Takes input until it is used up, a task must run elsewhere, or the peer must read first.
    ///
    /// The caller runs the task, hands its reply to [`Self::answer`], and calls again with the rest of the input.
    pub(crate) fn receive(&mut self, input: &mut &[u8], dispatcher: &Dispatcher) -> Option<Task> {
        while self.is_ready() {
            match self.framer.next(input)? {
                Frame::Invalid(error) => self.output.push(message::refusal(&error, None)),
                Frame::Message(text) => match dispatcher.dispatch(&text) {
                    Dispatched::Done(reply) => self.answer(reply),
                    Dispatched::Blocking(task) => return Some(task),
                },
            }
        }
        None
    }

    /// Whether input is taken now.
    pub(crate) fn is_ready(&self) -> bool {
        self.output.len() < MAX_UNSENT_BYTES
    }

    /// Queues a reply line; a silent success has none.
    pub(crate) fn answer(&mut self, reply: Option<Vec<u8>>) {
        if let Some(line) = reply {
            self.output.push(line);
        }
    }

    /// Bytes that are dropped with the session: half a message, and replies.
    pub(crate) fn held_bytes(&self) -> usize {
        self.framer.held_bytes() + self.output.len()
    }

    /// The replies that the peer has not read yet.
    pub(crate) fn output(&mut self) -> &mut Output {
        &mut self.output
    }
}
