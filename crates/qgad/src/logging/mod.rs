//! The log: one line a record, on standard error or in a file.
//!
//! A line is `seconds.microseconds: level: message`, as qemu-ga writes it, or, where standard error is the journal,
//! `<priority>message`: the journal adds the time itself. Without `verbose`, errors and warnings are logged. What a
//! host sends is logged by its command's name only, never its arguments. A log that cannot be written is no reason to
//! stop serving: lines without room are lost and counted, which standard error is told of once and the log when it goes on.
//! Whoever logs waits for nothing: once the agent serves, a thread does the writing, which the first line starts. While file
//! systems are frozen, lines are kept in memory.
//! The lines of the audit go the same way, or to a file of their own.

pub(crate) mod audit;
mod lines;
mod queue;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::sys::stat::{SFlag, fstat};

#[cfg(test)]
pub(crate) use self::queue::MAX_KEPT_BYTES;
use self::{
    lines::{Lines, Lost},
    queue::{Next, Queue, Writer},
};
use crate::util::threads;

/// Longest message, in characters; what a peer chose, such as the name of a command, is cut there.
const MAX_MESSAGE_LENGTH: usize = 4096;

/// How long an agent that leaves waits for its last lines to be written.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(1);
/// Stack of the thread that writes.
const WRITER_STACK_BYTES: usize = 64 * 1024;

static LOGGER: Logger = Logger {
    queue: Mutex::new(Queue::new()),
    changed: Condvar::new(),
    output: Mutex::new(Output {
        standard_error: Lines::new(StandardError),
        is_journal: false,
        file: None,
        audit: AuditSink::Nowhere,
    }),
};

struct Logger {
    /// Locked for moments only.
    queue: Mutex<Queue>,
    /// There is something to write, or no longer.
    changed: Condvar,
    /// Locked while something is written.
    output: Mutex<Output>,
}

struct Output {
    standard_error: Lines<StandardError>,
    /// What is written to standard error goes to the journal.
    is_journal: bool,
    /// Where the log goes instead.
    file: Option<Lines<File>>,
    audit: AuditSink,
}

enum AuditSink {
    Nowhere,
    /// Where the log goes.
    Log,
    /// A file of its own.
    File(Lines<File>),
}

struct StandardError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Log(Level),
    Audit,
}

/// Begins to log to standard error, what a panic says included. `journal_stream` is the variable by which systemd names the journal's stream.
pub(crate) fn begin(journal_stream: Option<&str>) {
    LOGGER.output().is_journal = journal_stream.is_some_and(is_standard_error);
    log::set_max_level(LevelFilter::Warn);
    // Fails only when it was done before.
    let _ = log::set_logger(&LOGGER);
    std::panic::set_hook(Box::new(|bug| log::error!("a bug in the agent: {bug}")));
}

/// Logs everything from now on.
pub(crate) fn be_verbose() {
    log::set_max_level(LevelFilter::Trace);
}

/// Appends to a file from now on, which not everybody may read.
pub(crate) fn append_to(path: &Path) -> io::Result<()> {
    LOGGER.output().file = Some(Lines::new(OpenOptions::new().append(true).create(true).mode(0o640).open(path)?));
    Ok(())
}

/// Writes the audit where the log goes, from now on.
pub(crate) fn audit_to_log() {
    LOGGER.output().audit = AuditSink::Log;
}

/// Appends the audit to a file that only root reads, from now on.
pub(crate) fn audit_to(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    LOGGER.output().audit = AuditSink::File(Lines::new(file));
    Ok(())
}

/// Writes a line of the audit.
pub(crate) fn write_audit(line: &str) {
    LOGGER.take(SystemTime::now(), Kind::Audit, line.into());
}

/// Has a thread write from the next line on, so that nobody waits for a log that takes nothing.
pub(crate) fn write_in_background() {
    LOGGER.queue().writer = Writer::ThreadToStart;
}

/// Keeps what is logged in memory, until [`write_kept`]: the file, or the journal's, may be frozen.
pub(crate) fn keep() {
    LOGGER.queue().is_held = true;
}

/// Writes what was kept, each line with the time at which it was logged.
pub(crate) fn write_kept() {
    LOGGER.queue().is_held = false;
    LOGGER.write_soon();
}

/// Has the last lines written, for an agent that ends. What is still kept goes to standard error: files may be frozen,
/// the one of standard error included.
pub(crate) fn finish() {
    LOGGER.wait_until_written();
    if !LOGGER.queue().is_held {
        return;
    }
    // Nobody writes while lines are kept, unless what is written to is stuck.
    let Ok(mut output) = LOGGER.output.try_lock() else { return };
    output.file = None;
    if matches!(output.audit, AuditSink::File(_)) {
        output.audit = AuditSink::Log;
    }
    drop(output);
    if is_standard_error_a_file() {
        LOGGER.queue().forget();
    }
    write_kept();
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

    fn take(&'static self, time: SystemTime, kind: Kind, message: String) {
        self.queue().push(time, kind, message);
        self.write_soon();
    }

    fn write_soon(&'static self) {
        let mut queue = self.queue();
        if !queue.has_work() {
            return;
        }
        if queue.writer == Writer::ThreadToStart {
            let is_started = threads::start("log", WRITER_STACK_BYTES, || self.write_for_ever()).is_ok();
            queue.writer = if is_started { Writer::Thread } else { Writer::Logging };
        }
        let is_ours = queue.writer == Writer::Logging;
        drop(queue);
        if is_ours { self.write_all() } else { self.changed.notify_all() }
    }

    fn write_for_ever(&self) {
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
            // Not in the loop's head, where the queue would stay locked while something is written.
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
        LOGGER.take(SystemTime::now(), Kind::Log(record.level()), message);
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
        let line = match self.is_journal {
            true => |_, level, message: &str| format!("<{}>{message}", priority(level)),
            false => line,
        };
        // There is nobody left to complain to.
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

/// A message that cannot be taken for several.
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

/// As syslog(3) counts.
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
