//! A session on a byte stream.
//!
//! The stream is watched edge-triggered: after an event the connection reads and writes until the stream would block.
//! So a port whose host side is closed, which stays readable and hung up, causes no wake-ups. Input is read only when
//! the session takes it. The rest of one read is kept, and nothing more.

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::epoll::EpollFlags,
};
use qga::wire::message;

use super::{
    dispatch::Dispatcher,
    executor::{Executor, TaskId},
    session::Session,
};
use crate::{channel::EndOfInput, sys};

/// How much is read at a time.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;
/// How often a connection reads, or sends, before others have their turn: enough for a peer that moves a file, and some
/// milliseconds of one that asks without end.
const STEPS_A_TURN: usize = 16;

/// How much later than its first bytes a port's peer may be announced. Bytes that are older were sent by a peer that
/// came and left without being noticed. The kernel takes less than a millisecond, on a processor of its own.
const MAX_NOTICE_DELAY: Duration = Duration::from_secs(1);

/// What a connection waits for.
#[derive(Debug)]
pub(crate) enum Progress {
    /// An event of the stream, or the end of its running task.
    Waits,
    /// Its next turn: there is more to do, and others may wait.
    Continues,
    /// Nothing: it is over, in order.
    Over,
}

/// A stream and the conversation on it.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: File,
    end_of_input: EndOfInput,
    session: Session,
    /// Input of one read, and how much of it the session has taken.
    leftover: Vec<u8>,
    taken: usize,
    /// The task whose reply is due next.
    running: Option<TaskId>,
    /// A task of a peer that left.
    left_behind: Option<TaskId>,
    may_read: bool,
    may_write: bool,
    is_watched_for_room: bool,
    /// Bytes read, sent or dropped since this was last asked for.
    moved: usize,
    /// A notice said that somebody is at the other side of the port, and none that it left.
    has_peer: bool,
    /// The peer sends nothing beyond what is there already.
    is_closing: bool,
    /// When something was last read from a port at whose other side nobody was by the last notice.
    unannounced: Option<Instant>,
    has_ended: bool,
}

impl Connection {
    /// A conversation that begins; the stream must be non-blocking.
    pub(crate) fn new(stream: OwnedFd, end_of_input: EndOfInput) -> Self {
        Self {
            stream: stream.into(),
            end_of_input,
            session: Session::default(),
            leftover: Vec::new(),
            taken: 0,
            running: None,
            left_behind: None,
            may_read: true,
            may_write: true,
            moved: 0,
            is_watched_for_room: end_of_input != EndOfInput::Closes,
            has_peer: false,
            is_closing: false,
            unannounced: None,
            has_ended: false,
        }
    }

    /// The task whose reply is due next.
    pub(crate) fn running(&self) -> Option<TaskId> {
        self.running
    }

    /// The stream may have become readable or writable, or its other side may have been opened or closed.
    pub(crate) fn wake(&mut self, is_hung_up: bool, is_closing: bool) {
        self.is_closing |= is_closing;
        self.may_read = true;
        self.may_write = true;
        if self.end_of_input == EndOfInput::PeerLeft && self.has_peer == is_hung_up {
            self.change_peer();
        }
    }

    /// What the stream is to be watched for, if that has changed.
    pub(crate) fn new_interest(&mut self) -> Option<EpollFlags> {
        let wants_room = self.wants_room();
        let was_wanted = std::mem::replace(&mut self.is_watched_for_room, wants_room);
        (wants_room != was_wanted).then(|| interest(wants_room))
    }

    /// What a stream is to be watched for at first.
    pub(crate) fn first_interest(&self) -> EpollFlags {
        interest(self.is_watched_for_room)
    }

    /// A socket says each time that its peer has read something, which is of interest only to who waits for it. A port
    /// says in this way that its other side was opened.
    fn wants_room(&self) -> bool {
        self.end_of_input != EndOfInput::Closes || !self.may_write
    }

    /// How many bytes were read, sent or dropped since this was last asked for; of a connection that is over, also what
    /// goes with it.
    pub(crate) fn take_moved(&mut self, is_over: bool) -> usize {
        let dropped = if is_over { self.held_bytes() } else { 0 };
        std::mem::take(&mut self.moved) + dropped
    }

    fn held_bytes(&self) -> usize {
        self.session.held_bytes() + self.leftover.capacity()
    }

    /// The running task has ended.
    pub(crate) fn complete(&mut self, reply: Option<Vec<u8>>) {
        self.running = None;
        self.session.answer(reply);
    }

    /// Does what can be done without waiting, for one turn.
    ///
    /// # Errors
    /// When the stream breaks.
    pub(crate) fn advance(
        &mut self,
        dispatcher: &Dispatcher,
        executor: &mut Executor,
        chunk: &mut Vec<u8>,
    ) -> io::Result<Progress> {
        if let Some(task_id) = self.left_behind.take() {
            executor.hurry(task_id);
        }
        for _ in 0..STEPS_A_TURN {
            self.send()?;
            if let Some(task_id) = self.running.filter(|&task_id| executor.is_waiting(task_id))
                && self.has_more_input()
            {
                executor.hurry(task_id);
            }
            if self.running.is_some() || !self.session.is_ready() {
                return Ok(Progress::Waits);
            }
            if !self.leftover.is_empty() {
                let leftover = std::mem::take(&mut self.leftover);
                self.taken += self.take_input(&leftover[self.taken..], dispatcher, executor);
                if self.taken < leftover.len() {
                    self.leftover = leftover;
                }
            } else if self.has_ended {
                return Ok(if self.session.output().len() > 0 { Progress::Waits } else { Progress::Over });
            } else if self.may_read {
                // Memory that nothing was ever read into takes no room.
                chunk.clear();
                match sys::io::read_to_spare(&self.stream, chunk) {
                    Ok(0) => self.end()?,
                    Ok(count) => {
                        self.moved += count;
                        if self.end_of_input == EndOfInput::PeerLeft && !self.has_peer {
                            self.forget_unannounced_peer();
                            self.unannounced = Some(Instant::now());
                        }
                        // A socket that gave less than was asked for has no more, unless it was closed meanwhile.
                        let is_drained = self.end_of_input == EndOfInput::Closes && count < chunk.capacity();
                        self.may_read = self.is_closing || !is_drained;
                        let taken = self.take_input(chunk, dispatcher, executor);
                        self.leftover.extend_from_slice(&chunk[taken..]);
                        self.taken = 0;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => self.may_read = false,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            } else {
                return Ok(Progress::Waits);
            }
        }
        Ok(Progress::Continues)
    }

    /// Whether there may be another request, or the peer is gone. A blank behind a request is neither.
    fn has_more_input(&self) -> bool {
        if self.leftover[self.taken.min(self.leftover.len())..].iter().any(|byte| !byte.is_ascii_whitespace()) {
            return true;
        }
        let mut polled = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        self.may_read && poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// A notice said that a port's peer left, or that one came.
    fn change_peer(&mut self) {
        self.has_peer = !self.has_peer;
        if self.has_peer {
            self.forget_unannounced_peer();
        } else {
            self.forget_peer();
        }
        self.unannounced = None;
    }

    fn forget_unannounced_peer(&mut self) {
        if self.unannounced.is_some_and(|last| last.elapsed() >= MAX_NOTICE_DELAY) {
            self.forget_peer();
        }
    }

    /// The next peer must not get half a reply, nor have its message joined to half of another.
    fn forget_peer(&mut self) {
        self.moved += self.held_bytes();
        self.session = Session::default();
        self.leftover = Vec::new();
        self.taken = 0;
        self.left_behind = self.running.take();
    }

    fn send(&mut self) -> io::Result<()> {
        if !self.may_write {
            return Ok(());
        }
        let unsent = self.session.output().len();
        let sent = self.session.output().send(|bytes| (&self.stream).write(bytes));
        self.moved += unsent - self.session.output().len();
        match sent {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.may_write = false;
                Ok(())
            }
            other => other,
        }
    }

    /// Gives input to the session, and tells how much of it was taken.
    fn take_input(&mut self, input: &[u8], dispatcher: &Dispatcher, executor: &mut Executor) -> usize {
        let length = input.len();
        let mut input = input;
        if let Some(task) = self.session.receive(&mut input, dispatcher) {
            let id = task.id.clone();
            match executor.start(task) {
                Ok(task_id) => self.running = Some(task_id),
                Err(error) => self.session.answer(Some(message::refusal(&error, id.as_ref()))),
            }
        }
        length - input.len()
    }

    fn end(&mut self) -> io::Result<()> {
        self.may_read = false;
        match self.end_of_input {
            EndOfInput::Closes => self.has_ended = true,
            // The notice says more: a new peer's bytes end, too, as long as it has not come.
            EndOfInput::PeerLeft => {}
            EndOfInput::Breaks => return Err(ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }
}

fn interest(in_room: bool) -> EpollFlags {
    let always = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    if in_room { always | EpollFlags::EPOLLOUT } else { always }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
