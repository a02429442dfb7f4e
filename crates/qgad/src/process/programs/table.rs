//! The state of each program.
//!
//! A program runs, ends, and is removed when its exit status was collected or is too old. If another process still
//! holds its pipes, the entry stays without a process id until they are closed, and what comes out of them is
//! discarded.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::{self, ErrorKind, Read, Write},
    os::fd::AsFd,
    time::Instant,
};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use qga::{
    commands::exec::{MAX_OUTPUT_BYTES, ProgramStatus},
    wire::{base64::Base64, message::Error},
};

use super::{GRACE, MAX_AGE, MAX_KEPT_BYTES, MAX_RUNNING, MAX_WAITING_BYTES, kept_output::KeptOutput};
use crate::process::spawn::{Child, ExitStatus};

/// Most exit statuses that are kept. Their output counts towards `MAX_KEPT_BYTES`.
const MAX_ENDED: usize = 4096;
/// Most ended programs whose pipes another process holds open. Beyond that, the pipes of the oldest are closed.
const MAX_LEFT_OPEN: usize = 64;

/// A program that was just started, with our ends of its pipes.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) input: Option<(File, Vec<u8>)>,
    pub(super) output: Option<File>,
    pub(super) error: Option<File>,
}

/// Open pipes of programs: those to read, and those to write, each with its bytes.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    pub(super) outputs: Vec<File>,
    pub(super) inputs: Vec<(File, Vec<u8>)>,
}

impl Pipes {
    pub(super) fn is_empty(&self) -> bool {
        self.outputs.is_empty() && self.inputs.is_empty()
    }
}

/// All programs.
#[derive(Debug, Default)]
pub(super) struct Table {
    programs: HashMap<u64, Entry>,
    /// The key of each program that a host can ask about.
    by_pid: HashMap<i64, u64>,
    /// Ended programs that a host can ask about, oldest end first.
    ended: VecDeque<u64>,
    next_key: u64,
    running: usize,
    /// Memory that kept output takes.
    kept_bytes: usize,
    /// Memory that waiting input takes.
    waiting_bytes: usize,
    /// Memory that has become free since this was last asked for.
    freed_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    pid: i64,
    /// `None` once it is reaped.
    child: Option<Child>,
    input: Option<Input>,
    streams: [Option<Stream>; 2],
    ended: Option<(ExitStatus, Instant)>,
    is_collected: bool,
}

#[derive(Debug)]
struct Input {
    pipe: File,
    bytes: Vec<u8>,
    written: usize,
}

#[derive(Debug)]
struct Stream {
    /// `None` once it is closed.
    pipe: Option<File>,
    output: KeptOutput,
    is_truncated: bool,
}

/// Sources of events of one program. The data of an event is the key of the program times this, plus the source.
const SOURCES: u64 = 4;
const CHILD: u64 = 0;
const INPUT: u64 = 1;
const FIRST_STREAM: u64 = 2;

impl Table {
    /// Whether one more program may be started.
    pub(super) fn check_room(&self, input_bytes: usize) -> io::Result<()> {
        if self.running >= MAX_RUNNING {
            return Err(io::Error::other(format!("{MAX_RUNNING} programs are running already")));
        }
        if self.waiting_bytes + input_bytes > MAX_WAITING_BYTES {
            return Err(io::Error::other(format!("{} bytes of input wait for other programs", self.waiting_bytes)));
        }
        Ok(())
    }

    /// Adds a program.
    pub(super) fn insert(&mut self, epoll: &Epoll, started: Started) -> io::Result<()> {
        let key = self.next_key;
        self.next_key += 1;
        let watch = |source: u64, descriptor: &dyn AsFd, interest: EpollFlags| {
            epoll.add(descriptor.as_fd(), EpollEvent::new(interest, key * SOURCES + source))
        };
        if let Err(error) = watch(CHILD, &started.child, EpollFlags::EPOLLIN) {
            started.child.discard();
            return Err(error.into());
        }
        // A pipe that cannot be watched is closed, as if it had ended.
        let input = started.input.and_then(|(pipe, bytes)| {
            watch(INPUT, &pipe, EpollFlags::EPOLLOUT).ok().map(|()| Input { pipe, bytes, written: 0 })
        });
        let mut source = FIRST_STREAM;
        let streams = [started.output, started.error].map(|pipe| {
            let stream = pipe.map(|pipe| Stream {
                pipe: watch(source, &pipe, EpollFlags::EPOLLIN).ok().map(|()| pipe),
                output: KeptOutput::default(),
                is_truncated: false,
            });
            source += 1;
            stream
        });
        let pid = i64::from(started.child.pid().as_raw());
        self.waiting_bytes += input.as_ref().map_or(0, |input| input.bytes.capacity());
        self.running += 1;
        if let Some(earlier) = self.by_pid.insert(pid, key) {
            // The kernel has reused the process id of a program that no host asked about.
            self.forget(earlier);
            self.by_pid.insert(pid, key);
        }
        self.programs
            .insert(key, Entry { pid, child: Some(started.child), input, streams, ended: None, is_collected: false });
        Ok(())
    }

    /// Handles an event. Moves at most one piece.
    pub(super) fn handle(&mut self, event: u64, piece: &mut [u8], now: Instant) {
        let (key, source) = (event / SOURCES, event % SOURCES);
        match source {
            CHILD => self.reap(key, now),
            INPUT => self.feed(key),
            _ => self.drain(key, usize::from(source > FIRST_STREAM), piece),
        }
    }

    /// Whether a program has exited, and how. It is forgotten then.
    pub(super) fn collect(&mut self, pid: i64, now: Instant) -> Result<ProgramStatus, Error> {
        let unknown = || Error::generic(format!("PID {pid} does not exist"));
        let key = *self.by_pid.get(&pid).ok_or_else(unknown)?;
        let entry = self.programs.get_mut(&key).ok_or_else(unknown)?;
        let Some(end) = entry.exit(now) else { return Ok(ProgramStatus::default()) };
        let [(out_data, out_truncated), (err_data, err_truncated)] = entry.streams.each_mut().map(|stream| {
            let Some(stream) = stream.as_mut().filter(|stream| stream.output.len() > 0) else { return (None, None) };
            let output = std::mem::take(&mut stream.output);
            self.kept_bytes -= output.allocated();
            (Some(Base64::from(output.into_bytes())), Some(stream.is_truncated))
        });
        self.forget(key);
        let (exitcode, signal) = match end {
            ExitStatus::Code(code) => (Some(code.into()), None),
            ExitStatus::Signal(signal) => (None, Some(signal.into())),
        };
        Ok(ProgramStatus { exited: true, exitcode, signal, out_data, err_data, out_truncated, err_truncated })
    }

    /// Takes all open pipes out of the table.
    pub(super) fn take_pipes(&mut self) -> Pipes {
        let mut pipes = Pipes::default();
        for entry in self.programs.values_mut() {
            pipes.outputs.extend(entry.streams.iter_mut().flatten().filter_map(|stream| stream.pipe.take()));
            if let Some(Input { pipe, mut bytes, written }) = entry.input.take() {
                bytes.drain(..written);
                pipes.inputs.push((pipe, bytes));
            }
        }
        pipes
    }

    /// When [`Self::forget_old`] has to be called next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let (_, at) = self.programs.get(self.ended.front()?)?.ended?;
        Some(at + MAX_AGE)
    }

    /// How much memory has become free since this was last asked for.
    pub(super) fn take_freed_bytes(&mut self) -> usize {
        std::mem::take(&mut self.freed_bytes)
    }

    /// Forgets programs that no host asked about in time.
    pub(super) fn forget_old(&mut self, now: Instant) {
        while self.ended.len() > MAX_ENDED || self.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.forget_oldest();
        }
    }

    fn reap(&mut self, key: u64, now: Instant) {
        let Some(entry) = self.programs.get_mut(&key) else { return };
        let end = match entry.child.as_ref().map(Child::try_wait) {
            Some(Ok(Some(end))) => end,
            Some(Ok(None)) | None => return,
            Some(Err(error)) => {
                log::error!("failed to learn how process {} ended: {error}", entry.pid);
                ExitStatus::Code(-1)
            }
        };
        log::info!("process {} of guest-exec ended: {end:?}", entry.pid);
        entry.child = None;
        entry.ended = Some((end, now));
        self.running -= 1;
        self.ended.push_back(key);
        self.close_oldest_left_open();
    }

    fn feed(&mut self, key: u64) {
        let Some(entry) = self.programs.get_mut(&key) else { return };
        let Some(input) = &mut entry.input else { return };
        let rest = &input.bytes[input.written..];
        let is_done = match input.pipe.write(&rest[..rest.len().min(super::pump::PIECE_BYTES)]) {
            Ok(count) => {
                input.written += count;
                input.written == input.bytes.len()
            }
            Err(error) => !is_temporary(&error),
        };
        if is_done {
            self.waiting_bytes -= input.bytes.capacity();
            self.freed_bytes += input.bytes.capacity();
            entry.input = None;
        }
    }

    fn drain(&mut self, key: u64, index: usize, piece: &mut [u8]) {
        let Some(entry) = self.programs.get_mut(&key) else { return };
        let Some(stream) = &mut entry.streams[index] else { return };
        let Some(pipe) = &mut stream.pipe else { return };
        let count = match pipe.read(piece) {
            Ok(count) => count,
            Err(error) if is_temporary(&error) => return,
            Err(_) => 0,
        };
        if count == 0 {
            stream.pipe = None;
            if entry.is_collected && !entry.has_open_pipes() {
                self.programs.remove(&key);
            }
            return;
        }
        if entry.is_collected {
            return;
        }
        let wanted = count.min(MAX_OUTPUT_BYTES - stream.output.len());
        let cost = stream.output.cost(wanted);
        let room = self.make_room(cost, key);
        let Some(stream) = self.programs.get_mut(&key).and_then(|entry| entry.streams[index].as_mut()) else { return };
        self.kept_bytes -= stream.output.allocated();
        stream.is_truncated |= stream.output.append(&piece[..wanted], room) < count;
        self.kept_bytes += stream.output.allocated();
    }

    /// Forgets ended programs, oldest first, until so much memory can be taken. Returns how much can.
    fn make_room(&mut self, wanted: usize, for_key: u64) -> usize {
        while self.kept_bytes + wanted > MAX_KEPT_BYTES && self.ended.front().is_some_and(|&key| key != for_key) {
            self.forget_oldest();
        }
        wanted.min(MAX_KEPT_BYTES - self.kept_bytes)
    }

    fn forget_oldest(&mut self) {
        let Some(&key) = self.ended.front() else { return };
        if let Some(entry) = self.programs.get(&key) {
            log::info!("nobody asked for the exit status of process {}", entry.pid);
        }
        self.forget(key);
    }

    /// Forgets an ended program. Its pipes are read until they are closed.
    fn forget(&mut self, key: u64) {
        let Some(entry) = self.programs.get_mut(&key) else { return };
        entry.is_collected = true;
        self.by_pid.remove(&entry.pid);
        self.ended.retain(|&ended| ended != key);
        let waiting = entry.input.take().map_or(0, |input| input.bytes.capacity());
        let kept = entry.streams.iter_mut().flatten().map(|stream| std::mem::take(&mut stream.output).allocated());
        let kept = kept.sum::<usize>();
        self.waiting_bytes -= waiting;
        self.kept_bytes -= kept;
        self.freed_bytes += waiting + kept;
        if !entry.has_open_pipes() {
            self.programs.remove(&key);
        }
    }

    fn close_oldest_left_open(&mut self) {
        let left_open = |entry: &Entry| entry.ended.is_some() && entry.has_open_pipes();
        if self.programs.values().filter(|entry| left_open(entry)).count() <= MAX_LEFT_OPEN {
            return;
        }
        let oldest = self
            .programs
            .iter_mut()
            .filter(|(_, entry)| left_open(entry))
            .min_by_key(|(_, entry)| entry.ended.map(|(_, at)| at));
        let Some((&key, entry)) = oldest else { return };
        for stream in entry.streams.iter_mut().flatten() {
            stream.pipe = None;
        }
        if entry.is_collected {
            self.programs.remove(&key);
        }
    }
}

impl Entry {
    /// How it ended, once its pipes are closed or have had their grace.
    fn exit(&self, now: Instant) -> Option<ExitStatus> {
        let (end, at) = self.ended?;
        (!self.has_open_pipes() || now.saturating_duration_since(at) >= GRACE).then_some(end)
    }

    fn has_open_pipes(&self) -> bool {
        self.streams.iter().flatten().any(|stream| stream.pipe.is_some())
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
