//! One job: its streams, its deadlines and its end.
//!
//! A job has exited when its first process has. It is over when its streams have ended, too: its other processes may
//! still write. Until then the first process is not reaped, see `members`.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, ErrorKind, Read, Write},
    time::{Duration, Instant},
};

use nix::{
    libc::{SIGCONT, SIGHUP, SIGKILL, SIGTERM},
    pty::Winsize,
    unistd::Pid,
};
use qga::commands::job::{HANG_UP_AFTER, INPUT_BYTES, KILL_AFTER, STREAM_BYTES};

use super::{
    launch::{Launched, Report},
    members::{self, ControlGroup},
    message::{ABSENT, Message},
    start::Start,
    stream::{Window, signed},
};
use crate::sys::{
    self,
    pidfd::{self, ExitStatus},
};

/// Unread bytes that each stream may keep, whatever the others do.
pub(super) const RESERVED_BYTES: usize = 64 * 1024;
/// Names of the streams in errors.
const NAMES: [&str; 2] = ["standard output", "standard error"];

/// A job.
#[derive(Debug)]
pub(super) struct Job {
    pid: Pid,
    label: Vec<u8>,
    user: Option<Vec<u8>>,
    has_terminal: bool,
    hangs_up: bool,
    is_hung_up: bool,
    started: Instant,
    /// When a command named it last.
    attended: Instant,
    /// Until its program runs.
    report: Option<Report>,
    input: Option<Input>,
    accepted: i64,
    streams: [Stream; 2],
    end: Option<(ExitStatus, Instant)>,
    is_end_told: bool,
    is_reaped: bool,
    ends_at: Option<Instant>,
    killed_at: Option<Instant>,
    is_timed_out: bool,
    group: Option<ControlGroup>,
}

#[derive(Debug)]
struct Input {
    pipe: File,
    waiting: VecDeque<u8>,
    /// Whether the host has ended the input.
    is_complete: bool,
}

#[derive(Debug)]
struct Stream {
    /// `None` once it has ended.
    source: Option<File>,
    window: Window,
    is_end_told: bool,
}

/// Whether a request was carried out, or still waits for something.
pub(super) type Progress = Option<Message>;

impl Job {
    /// A job whose program was launched.
    pub(super) fn new(start: &Start, launched: Launched, now: Instant) -> Self {
        let timeout = start.timeout.and_then(|timeout| u64::try_from(timeout).ok()).map(Duration::from_millis);
        let stream = |source| Stream { source, window: Window::default(), is_end_told: false };
        Self {
            pid: launched.pid,
            label: start.label.to_bytes().into(),
            user: start.user.as_ref().map(|user| user.to_bytes().into()),
            has_terminal: start.terminal.is_some(),
            hangs_up: start.hangs_up,
            is_hung_up: false,
            started: now,
            attended: now,
            report: Some(launched.report),
            input: launched.input.map(|pipe| Input { pipe, waiting: VecDeque::new(), is_complete: false }),
            accepted: 0,
            streams: launched.outputs.map(stream),
            end: None,
            is_end_told: false,
            is_reaped: false,
            ends_at: timeout.and_then(|timeout| now.checked_add(timeout)),
            killed_at: None,
            is_timed_out: false,
            group: launched.group,
        }
    }

    /// The report of the start, until it was read: the program may not run yet.
    pub(super) fn report(&self) -> Option<&Report> {
        self.report.as_ref()
    }

    /// Its program runs.
    pub(super) fn has_started(&mut self) {
        self.report = None;
    }

    /// Its process id.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// A command names it.
    pub(super) fn attend(&mut self, now: Instant) {
        self.attended = now;
    }

    /// When it was last of use: its end, or the last command that named it.
    pub(super) fn over_since(&self) -> Option<Instant> {
        self.end.map(|(_, at)| at.max(self.attended))
    }

    /// Whether its program has exited.
    pub(super) fn has_exited(&self) -> bool {
        self.end.is_some()
    }

    /// Whether it has neither processes that are known of nor open streams.
    pub(super) fn is_over(&self) -> bool {
        self.end.is_some() && self.streams.iter().all(|stream| stream.source.is_none())
    }

    /// How many bytes it keeps for readers.
    pub(super) fn kept_bytes(&self) -> usize {
        self.streams.iter().map(|stream| stream.window.len()).sum()
    }

    /// The pipe to write to, and whether there is something to be written.
    pub(super) fn wanting_input(&self) -> Option<(&File, bool)> {
        let input = self.input.as_ref()?;
        let has_bytes = !input.waiting.is_empty();
        // A terminal that no process has open is reported without end.
        (has_bytes || !self.has_terminal).then_some((&input.pipe, has_bytes))
    }

    /// The sources to read from: those that have not ended and whose window has room.
    pub(super) fn readable(&self, is_full: bool) -> impl Iterator<Item = (usize, &File)> {
        let most = if is_full { RESERVED_BYTES } else { STREAM_BYTES };
        let has_room = move |stream: &Stream| stream.window.len() < most;
        let streams = self.streams.iter().enumerate();
        streams.filter_map(move |(index, stream)| Some((index, stream.source.as_ref().filter(|_| has_room(stream))?)))
    }

    /// Reads a piece of a stream.
    pub(super) fn drain(&mut self, index: usize, piece: &mut [u8]) {
        let stream = &mut self.streams[index];
        let Some(source) = &mut stream.source else { return };
        let room = STREAM_BYTES.saturating_sub(stream.window.len()).min(piece.len());
        match source.read(&mut piece[..room]) {
            Ok(count) if count > 0 => stream.window.push(&piece[..count]),
            Err(error) if is_temporary(&error) => {}
            // A terminal that no process has open any more cannot be read.
            Ok(_) | Err(_) => {
                stream.source = None;
                if self.has_terminal {
                    self.input = None;
                }
            }
        }
    }

    /// Writes what fits of its input.
    pub(super) fn feed(&mut self) {
        let Some(input) = &mut self.input else { return };
        while !input.waiting.is_empty() {
            match input.pipe.write(input.waiting.as_slices().0) {
                Ok(count) => drop(input.waiting.drain(..count)),
                Err(error) if is_temporary(&error) => return,
                Err(_) => {
                    self.input = None;
                    return;
                }
            }
        }
        if input.is_complete {
            self.input = None;
        }
    }

    /// Its program has closed its input.
    pub(super) fn close_input(&mut self) {
        self.input = None;
    }

    /// Checks whether its process has ended.
    pub(super) fn look_for_end(&mut self, now: Instant) {
        if self.end.is_none()
            && let Ok(Some(status)) = pidfd::peek(self.pid)
        {
            self.end = Some((status, now));
            self.ends_at = None;
        }
    }

    /// Reaps its process, once none of its other processes can be signalled.
    fn reap_if_due(&mut self) {
        if !self.is_reaped && self.killed_at.is_none() && self.is_over() {
            self.is_reaped = true;
            let _ = pidfd::try_wait(self.pid);
        }
    }

    /// When [`Self::act`] must be called.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        [self.ends_at, self.killed_at, self.hung_up_at()].into_iter().flatten().min()
    }

    fn hung_up_at(&self) -> Option<Instant> {
        (self.hangs_up && !self.is_hung_up && !self.is_over()).then(|| self.attended + HANG_UP_AFTER)
    }

    /// Carries out what is due: the timeout, killing, hanging up.
    pub(super) fn act(&mut self, now: Instant) {
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if is_due(self.ends_at) {
            self.ends_at = None;
            self.is_timed_out = true;
            self.killed_at = Some(now + KILL_AFTER);
            self.signal(SIGTERM);
        }
        if is_due(self.killed_at) {
            self.killed_at = None;
            self.signal(SIGKILL);
        }
        if is_due(self.hung_up_at()) {
            self.is_hung_up = true;
            self.signal(SIGHUP);
            self.close_streams();
        }
        self.reap_if_due();
    }

    /// Closes its streams.
    pub(super) fn close_streams(&mut self) {
        self.report = None;
        self.input = None;
        for stream in &mut self.streams {
            stream.source = None;
        }
    }

    /// Sends a signal to all its processes. A signal that ends them also continues those that are stopped.
    fn signal(&self, number: i32) {
        members::signal(self.pid, self.group.as_ref(), number);
        if [SIGTERM, SIGHUP].contains(&number) {
            members::signal(self.pid, self.group.as_ref(), SIGCONT);
        }
    }

    /// Carries out qgad-job-signal.
    pub(super) fn signal_by_request(&self, id: i64, number: i64) -> Message {
        // Its process id may have been used again.
        if self.is_reaped {
            return Message::failed(format!("job {id} has ended"));
        }
        match i32::try_from(number) {
            Ok(number) => self.signal(number),
            Err(_) => return Message::failed(format!("there is no signal {number}")),
        }
        Message::done([], Vec::new())
    }

    /// Carries out qgad-job-resize.
    pub(super) fn resize(&self, id: i64, size: &Winsize) -> Message {
        let terminal = self.streams[0].source.as_ref().filter(|_| self.has_terminal);
        let Some(terminal) = terminal else {
            let reason = if self.has_terminal { "has closed its terminal" } else { "has no terminal" };
            return Message::failed(format!("job {id} {reason}"));
        };
        match sys::terminal::set_size(terminal, size) {
            Ok(()) => Message::done([], Vec::new()),
            Err(error) => Message::failed(format!("failed to resize the terminal of job {id}: {}", error.desc())),
        }
    }

    /// Carries out qgad-job-read: job, offset of output, offset of errors, count.
    pub(super) fn read(&mut self, request: &Message, may_wait: bool) -> Progress {
        let offsets = [Some(request.number(1)), request.given(2)];
        for ((stream, offset), name) in self.streams.iter().zip(offsets).zip(NAMES) {
            if let Some(Err(reason)) = offset.map(|offset| stream.window.check(offset, name)) {
                return Some(Message::failed(reason));
            }
        }
        let count = usize::try_from(request.number(3)).unwrap_or(0).min(STREAM_BYTES);
        for (stream, offset) in self.streams.iter_mut().zip(offsets) {
            if let Some(offset) = offset {
                stream.window.acknowledge(offset);
            }
        }
        let asked =
            || self.streams.iter().zip(offsets).filter(|(_, offset)| offset.is_some()).map(|(stream, _)| stream);
        let has_news = asked()
            .any(|stream| stream.window.len() > 0 || (stream.source.is_none() && !stream.is_end_told))
            || (self.end.is_some() && !self.is_end_told);
        // A reader that has read everything need not wait.
        let is_complete = self.end.is_some() && asked().all(|stream| stream.source.is_none());
        if may_wait && !has_news && !is_complete {
            return None;
        }
        let (mut bytes, mut numbers) = (Vec::new(), Vec::with_capacity(10));
        for (stream, offset) in self.streams.iter_mut().zip(offsets) {
            let pieces = if offset.is_some() { stream.window.first(count) } else { [&[][..]; 2] };
            let length = pieces.iter().map(|piece| piece.len()).sum();
            bytes.extend_from_slice(pieces[0]);
            bytes.extend_from_slice(pieces[1]);
            let is_end = stream.source.is_none() && length == stream.window.len();
            stream.is_end_told |= is_end && offset.is_some();
            let next = offset.map_or(ABSENT, |offset| offset + signed(length));
            numbers.extend([signed(length), next, is_end.into()]);
        }
        self.is_end_told |= self.end.is_some();
        numbers.extend(self.status());
        Some(Message::done(numbers, bytes))
    }

    /// Whether it has exited, its exit code, the signal that ended it, and whether its timeout has passed.
    fn status(&self) -> [i64; 4] {
        let (code, signal) = match self.end {
            Some((ExitStatus::Code(code), _)) => (code.into(), ABSENT),
            Some((ExitStatus::Signal(signal), _)) => (ABSENT, signal.into()),
            None => (ABSENT, ABSENT),
        };
        [self.end.is_some().into(), code, signal, self.is_timed_out.into()]
    }

    /// Carries out qgad-job-write: job, offset, end of input; and the bytes.
    pub(super) fn write(&mut self, request: &Message, id: i64, may_wait: bool) -> Progress {
        let (offset, ends) = (request.given(1).unwrap_or(self.accepted), request.number(2) == 1);
        if ends && self.has_terminal {
            return Some(Message::failed(format!("job {id} has a terminal, where a character ends the input")));
        }
        if offset > self.accepted {
            return Some(Message::failed(format!(
                "offset {offset} of the input: {} are accepted so far",
                self.accepted
            )));
        }
        let skipped = usize::try_from(self.accepted - offset).unwrap_or(usize::MAX).min(request.bytes.len());
        let rest = &request.bytes[skipped..];
        let Some(input) = self.input.as_mut().filter(|input| !input.is_complete) else {
            return Some(Message::done([signed(skipped), self.accepted, 1], Vec::new()));
        };
        let count = rest.len().min(INPUT_BYTES.saturating_sub(input.waiting.len()));
        if may_wait && count == 0 && !rest.is_empty() {
            return None;
        }
        input.waiting.extend(&rest[..count]);
        input.is_complete = ends && count == rest.len();
        let is_complete = input.is_complete;
        self.accepted += signed(count);
        self.feed();
        let is_closed = is_complete || self.input.is_none();
        Some(Message::done([signed(skipped + count), self.accepted, is_closed.into()], Vec::new()))
    }

    /// What the list of jobs says of it: the numbers, and its program and user.
    pub(super) fn describe(&self, id: i64, now: Instant) -> (Vec<i64>, Vec<u8>) {
        let age = i64::try_from(now.saturating_duration_since(self.started).as_secs()).unwrap_or(i64::MAX);
        let mut numbers =
            vec![id, self.pid.as_raw().into(), self.has_terminal.into(), self.hangs_up.into(), age, self.accepted];
        numbers.extend(self.status());
        numbers.extend(self.streams.iter().flat_map(|stream| [stream.window.begin(), stream.window.end()]));
        let user = self.user.as_deref().unwrap_or_default();
        (numbers, [&self.label, &b"\0"[..], user, b"\0"].concat())
    }

    /// Its open streams, when it is forgotten. They are read on, so that writing to them does not fail.
    pub(super) fn into_open_streams(self) -> Vec<File> {
        // Processes that it left behind were to be killed.
        if self.killed_at.is_some() {
            self.signal(SIGKILL);
        }
        if !self.is_reaped {
            let _ = pidfd::try_wait(self.pid);
        }
        self.streams.into_iter().filter_map(|stream| stream.source).collect()
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::{os::fd::AsFd, thread};

    use super::*;
    use crate::process::spawn::{Program, Stdio, pipe_from_child, pipe_to_child};

    /// How often a condition is checked that nothing announces.
    const POLL_INTERVAL: Duration = Duration::from_millis(2);
    const MINUTE: Duration = Duration::from_secs(60);

    /// A job of the shell that was not launched, but started in the usual way: a test has threads.
    fn job(line: &str, change: impl FnOnce(&mut Start)) -> (Job, Instant) {
        let program = Program::new("/bin/sh", ["-c", line], ["PATH=/usr/bin:/bin"]).unwrap();
        let (their_input, input) = pipe_to_child().unwrap();
        let (output, their_output) = pipe_from_child().unwrap();
        let stdio = Stdio { input: their_input.as_fd(), output: their_output.as_fd(), error: their_output.as_fd() };
        let pid = program.start(stdio).unwrap().pid();
        let report = Report::of_a_program_that_runs();
        let launched = Launched { pid, input: Some(input), outputs: [Some(output), None], group: None, report };
        let mut start = Start {
            id: 1,
            label: c"sh".into(),
            user: None,
            program,
            directory: None,
            owner: None,
            has_input: true,
            terminal: None,
            timeout: None,
            hangs_up: false,
        };
        change(&mut start);
        let now = Instant::now();
        let mut job = Job::new(&start, launched, now);
        job.has_started();
        read_until(&mut job, "ready");
        (job, now)
    }

    fn wait_for(job: &mut Job, wanted: impl Fn(&mut Job) -> bool) {
        let end = Instant::now() + MINUTE;
        while !wanted(job) {
            assert!(Instant::now() < end, "{job:?}");
            thread::sleep(POLL_INTERVAL);
            job.look_for_end(Instant::now());
        }
    }

    fn read_until(job: &mut Job, text: &str) {
        let found = |job: &mut Job| {
            job.drain(0, &mut [0; 100]);
            String::from_utf8_lossy(&job.streams[0].window.first(100).concat()).contains(text)
        };
        wait_for(job, found);
    }

    /// What its end was.
    fn end_of(job: &mut Job) -> ExitStatus {
        wait_for(job, |job| job.has_exited());
        job.end.unwrap().0
    }

    #[test]
    fn a_job_that_nobody_names_is_hung_up_and_what_it_wrote_can_be_read() {
        let (mut job, now) = job("echo ready; sleep 1000", |start| start.hangs_up = true);
        assert_eq!(job.next_deadline(), Some(now + HANG_UP_AFTER));
        job.attend(now + MINUTE);
        job.act(now + HANG_UP_AFTER);
        assert!(!job.has_exited() && !job.is_hung_up);
        job.act(now + MINUTE + HANG_UP_AFTER);
        assert_eq!(end_of(&mut job), ExitStatus::Signal(SIGHUP));
        assert!(job.is_over() && job.kept_bytes() > 0);
        assert_eq!(job.next_deadline(), None);
    }

    #[test]
    fn a_job_that_is_to_be_kept_is_not_hung_up() {
        let (mut job, now) = job("echo ready; sleep 1000", |_| ());
        assert_eq!(job.next_deadline(), None);
        job.act(now + 100 * HANG_UP_AFTER);
        assert!(!job.has_exited());
        job.signal(SIGKILL);
        assert_eq!(end_of(&mut job), ExitStatus::Signal(SIGKILL));
    }

    #[test]
    fn a_job_that_ignores_the_end_of_its_time_is_killed_after_a_grace() {
        let (mut job, now) = job("trap '' TERM; echo ready; while :; do sleep 1; done", |start| {
            start.timeout = Some(60_000);
        });
        job.act(now + MINUTE / 2);
        assert!(!job.is_timed_out);
        job.act(now + MINUTE);
        assert_eq!((job.is_timed_out, job.next_deadline()), (true, Some(now + MINUTE + KILL_AFTER)));
        job.act(now + MINUTE + KILL_AFTER);
        assert_eq!(end_of(&mut job), ExitStatus::Signal(SIGKILL));
    }

    #[test]
    fn a_stopped_job_ends_when_its_time_does() {
        let (mut job, now) = job("echo ready; kill -STOP $$", |start| start.timeout = Some(1));
        wait_for(&mut job, |job| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", job.pid)).unwrap();
            stat.contains(") T ")
        });
        job.act(now + MINUTE);
        assert_eq!(end_of(&mut job), ExitStatus::Signal(SIGTERM));
    }
}
