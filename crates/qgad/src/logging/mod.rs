//! The log: one line a record, on standard error or in a file. A daemon without a file logs to the system log.
//!
//! A line is `seconds.microseconds: level: message`, as qemu-ga writes it. If standard error is the journal, it is
//! `<priority>message`, because the journal adds the time. Without `verbose`, only errors and warnings are logged. Of a
//! request, the log has the name of the command, never its arguments.
//! The agent serves on when the log cannot be written. Lines that do not fit are counted: standard error gets one line
//! about it at once, and the log gets the number when it can be written again.
//! Logging never blocks: once the agent serves, a thread writes the lines. The first line starts it. While file systems
//! are frozen, lines are held in memory.
//! The lines of the audit take the same path, or go to a separate file.

pub(crate) mod audit;
mod lines;
mod queue;
mod syslog;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::sys::stat::{SFlag, fstat};

#[cfg(test)]
pub(crate) use self::queue::MAX_HELD_BYTES;
pub(crate) use self::syslog::Syslog;
use self::{
    lines::{Lines, Lost},
    queue::{Next, Queue, Writer},
};
use crate::util::threads;

/// Longest message, in characters. A peer may send a command with a name of any length.
const MAX_MESSAGE_LENGTH: usize = 4096;

/// How long an agent that ends waits for its last lines to be written: the log may be stuck.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(1);
/// Stack of the thread that writes. Its lines are on the heap.
const WRITER_STACK_BYTES: usize = 64 * 1024;

static LOGGER: Logger = Logger {
    queue: Mutex::new(Queue::new()),
    changed: Condvar::new(),
    output: Mutex::new(Output {
        standard_error: Lines::new(StandardError),
        is_journal: false,
        syslog: None,
        file: None,
        audit: AuditSink::Nowhere,
    }),
};

struct Logger {
    /// Never locked across a system call.
    queue: Mutex<Queue>,
    /// There is something to write, or all is written.
    changed: Condvar,
    /// Locked while a line is written.
    output: Mutex<Output>,
}

struct Output {
    standard_error: Lines<StandardError>,
    /// Standard error is the journal.
    is_journal: bool,
    /// Replaces standard error, where a daemon has none.
    syslog: Option<Lines<Syslog>>,
    /// Replaces both.
    file: Option<Lines<File>>,
    audit: AuditSink,
}

enum AuditSink {
    Nowhere,
    /// The same as for the log.
    Log,
    /// A separate file.
    File(Lines<File>),
}

struct StandardError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Log(Level),
    Audit,
}

/// Starts logging to standard error, including panics. `journal_stream` is the value of `JOURNAL_STREAM`, by which
/// systemd identifies the stream of the journal.
pub(crate) fn init(journal_stream: Option<&str>) {
    LOGGER.output().is_journal = journal_stream.is_some_and(is_standard_error);
    log::set_max_level(LevelFilter::Warn);
    // Fails only when a logger was set before.
    let _ = log::set_logger(&LOGGER);
    std::panic::set_hook(Box::new(|bug| log::error!("a bug in the agent: {bug}")));
}

/// Logs all levels from now on.
pub(crate) fn set_verbose() {
    log::set_max_level(LevelFilter::Trace);
}

/// Logs to a file from now on. Users outside its group cannot read it.
pub(crate) fn log_to_file(path: &Path) -> io::Result<()> {
    LOGGER.output().file = Some(Lines::new(OpenOptions::new().append(true).create(true).mode(0o640).open(path)?));
    Ok(())
}

/// Logs to the system log from now on, instead of standard error.
pub(crate) fn log_to_syslog(syslog: Syslog) {
    LOGGER.output().syslog = Some(Lines::new(syslog));
}

/// Writes the audit to the log from now on.
pub(crate) fn audit_to_log() {
    LOGGER.output().audit = AuditSink::Log;
}

/// Writes the audit to a file from now on, which only root can read.
pub(crate) fn audit_to_file(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    LOGGER.output().audit = AuditSink::File(Lines::new(file));
    Ok(())
}

/// Writes a line to the audit.
pub(crate) fn write_audit(line: &str) {
    LOGGER.enqueue(SystemTime::now(), Kind::Audit, line.into());
}

/// Has a thread write from the next line on, so that a log that is stuck blocks nothing.
pub(crate) fn write_in_background() {
    LOGGER.queue().writer = Writer::ThreadToStart;
}

/// Holds lines in memory until [`flush_held`]: the file of the log, or of the journal, may be frozen.
pub(crate) fn hold() {
    LOGGER.queue().is_held = true;
}

/// Writes the held lines, each with the time at which it was logged.
pub(crate) fn flush_held() {
    LOGGER.queue().is_held = false;
    LOGGER.write_soon();
}

/// Whether a file of which this is true is one that lines are written to, or may be: one is being written just now.
pub(crate) fn writes_to(is_file: impl Fn(BorrowedFd<'_>) -> bool) -> bool {
    let Ok(output) = LOGGER.output.try_lock() else { return true };
    let standard_error = io::stderr();
    let log = match (&output.file, &output.syslog) {
        (Some(file), _) => Some(file.target().as_fd()),
        (None, Some(_)) => None,
        (None, None) => Some(standard_error.as_fd()),
    };
    let audit = match &output.audit {
        AuditSink::File(file) => Some(file.target().as_fd()),
        AuditSink::Nowhere | AuditSink::Log => None,
    };
    [log, audit].into_iter().flatten().any(is_file)
}

/// Writes the last lines of an agent that ends. Held lines go to standard error, because the files may be frozen.
/// They are dropped if standard error is a file, too.
pub(crate) fn shutdown() {
    LOGGER.wait_until_written();
    if !LOGGER.queue().is_held {
        return;
    }
    // While lines are held, no thread writes, unless it is stuck in a write.
    let Ok(mut output) = LOGGER.output.try_lock() else { return };
    output.file = None;
    if matches!(output.audit, AuditSink::File(_)) {
        output.audit = AuditSink::Log;
    }
    drop(output);
    if is_standard_error_a_file() {
        LOGGER.queue().clear();
    }
    flush_held();
    LOGGER.wait_until_written();
}

/// Whether standard error is the stream that `device:inode` names.
fn is_standard_error(stream: &str) -> bool {
    fstat(io::stderr()).is_ok_and(|status| stream == format!("{}:{}", status.st_dev, status.st_ino))
}

fn is_standard_error_a_file() -> bool {
    fstat(io::stderr()).is_ok_and(|status| SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG)
}

impl Logger {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&'static self, time: SystemTime, kind: Kind, message: String) {
        self.queue().push(time, kind, message);
        self.write_soon();
    }

    fn write_soon(&'static self) {
        let mut queue = self.queue();
        if !queue.has_work() {
            return;
        }
        if queue.writer == Writer::ThreadToStart {
            let is_started = threads::start("log", WRITER_STACK_BYTES, || self.run_writer()).is_ok();
            queue.writer = if is_started { Writer::Thread } else { Writer::Caller };
        }
        let is_caller = queue.writer == Writer::Caller;
        drop(queue);
        if is_caller { self.write_all() } else { self.changed.notify_all() }
    }

    fn run_writer(&self) {
        loop {
            let queue = self.changed.wait_while(self.queue(), |queue| !queue.has_work());
            drop(queue);
            self.write_all();
            self.changed.notify_all();
        }
    }

    fn write_all(&self) {
        let mut output = self.output();
        loop {
            // A `while let` would keep the queue locked during the write.
            let next = self.queue().take();
            let Some(next) = next else { return };
            output.write(next);
        }
    }

    fn wait_until_written(&self) {
        let is_waiting = |queue: &mut Queue| queue.has_work() || queue.is_writing;
        let _ = self.changed.wait_timeout_while(self.queue(), LAST_LINES_TIMEOUT, is_waiting);
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = one_line(&record.args().to_string());
        LOGGER.enqueue(SystemTime::now(), Kind::Log(record.level()), message);
    }

    fn flush(&self) {}
}

impl Output {
    fn write(&mut self, next: Next) {
        let now = SystemTime::now();
        match next {
            Next::Line(time, Kind::Log(level), message) => self.write_log(time, level, &message),
            Next::Line(time, Kind::Audit, message) => self.write_audit(time, &message),
            Next::LogGap(lost) => self.write_log(now, Level::Warn, &missing(&lost)),
            Next::AuditGap(Lost { count, reason }) => self.write_audit(now, &audit::gap(now, count, &reason)),
        }
    }

    fn write_log(&mut self, time: SystemTime, level: Level, message: &str) {
        let Some(file) = &mut self.file else { return self.write_standard_error(time, level, message) };
        let lost = file.append(&line(time, level, message), |lost| line(time, Level::Warn, &missing(lost)));
        if let Some(reason) = lost {
            self.write_standard_error(time, Level::Error, &format!("failed to write to the log's file: {reason}"));
        }
    }

    fn write_standard_error(&mut self, time: SystemTime, level: Level, message: &str) {
        // Below, there is no place left to report a failure.
        if let Some(syslog) = &mut self.syslog {
            let line = |level, message: &str| syslog::line(priority(level), message);
            let _ = syslog.append(&line(level, message), |lost| line(Level::Warn, &missing(lost)));
            return;
        }
        let line = match self.is_journal {
            true => |_, level, message: &str| format!("<{}>{message}", priority(level)),
            false => line,
        };
        let _ = self.standard_error.append(&line(time, level, message), |lost| line(time, Level::Warn, &missing(lost)));
    }

    fn write_audit(&mut self, time: SystemTime, message: &str) {
        let lost = match &mut self.audit {
            AuditSink::Nowhere => None,
            AuditSink::Log => {
                self.write_log(time, Level::Info, &format!("audit: {message}"));
                None
            }
            AuditSink::File(file) => file.append(message, |Lost { count, reason }| audit::gap(time, *count, reason)),
        };
        if let Some(reason) = lost {
            self.write_log(time, Level::Error, &format!("failed to write to the audit's file: {reason}"));
        }
    }
}

impl Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line as qemu-ga writes it.
fn line(time: SystemTime, level: Level, message: &str) -> String {
    let time = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:06}: {}: {message}", time.as_secs(), time.subsec_micros(), name(level))
}

fn missing(Lost { count, reason }: &Lost) -> String {
    format!("{count} lines are missing here, which could not be written: {reason}")
}

/// A message without line breaks, so that it cannot be read as several.
fn one_line(message: &str) -> String {
    message
        .chars()
        .take(MAX_MESSAGE_LENGTH)
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect()
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Error => "critical",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug | Level::Trace => "debug",
    }
}

/// The level of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        assert_eq!(one_line("a\nb\rc"), "a b c");
        assert_eq!(one_line(&"ü".repeat(MAX_MESSAGE_LENGTH + 1)).chars().count(), MAX_MESSAGE_LENGTH);
    }
}
