//! The log: one line a record, on standard error or in a file.
//!
//! A line is `seconds.microseconds: level: message`, as qemu-ga writes it, or, where standard error is the journal,
//! `<priority>message`: the journal adds the time itself. Without `verbose`, errors and warnings are logged. What a
//! host sends is logged by its command's name only, never its arguments. A log that cannot be written is no reason to
//! stop serving: lines without room are lost and counted, which standard error is told of once and the log when it goes on.
//! While file systems are frozen, lines are kept in memory.
//! The lines of the audit go the same way, or to a file of their own.

mod kept;
mod lines;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::sys::stat::{SFlag, fstat};

#[cfg(test)]
pub(crate) use self::kept::MAX_KEPT_BYTES;
use self::{
    kept::Kept,
    lines::{Lines, Lost},
};
use crate::audit;

/// Longest message, in characters; what a peer chose, such as the name of a command, is cut there.
const MAX_MESSAGE_LENGTH: usize = 4096;

static LOGGER: Logger = Logger {
    output: Mutex::new(Output {
        standard_error: Lines::new(StandardError),
        is_journal: false,
        file: None,
        audit: AuditSink::Nowhere,
        kept: None,
    }),
};

struct Logger {
    output: Mutex<Output>,
}

struct Output {
    standard_error: Lines<StandardError>,
    /// What is written to standard error goes to the journal.
    is_journal: bool,
    /// Where the log goes instead.
    file: Option<Lines<File>>,
    audit: AuditSink,
    /// Where lines go while nothing may be written.
    kept: Option<Kept>,
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

/// Writes a line of the audit, or keeps it.
pub(crate) fn audit(line: &str) {
    LOGGER.output().take(SystemTime::now(), Kind::Audit, line.into());
}

/// Keeps what is logged in memory, until [`write_kept`]: the file, or the journal's, may be frozen.
pub(crate) fn keep() {
    LOGGER.output().kept.get_or_insert_default();
}

/// Writes what was kept, each line with the time at which it was logged, and everything at once from now on.
pub(crate) fn write_kept() {
    let mut output = LOGGER.output();
    let Some(kept) = output.kept.take() else { return };
    let now = SystemTime::now();
    if kept.log.dropped > 0 {
        let message =
            format!("{} lines were dropped that were logged while file systems were frozen", kept.log.dropped);
        output.write_log(now, Level::Warn, &message);
    }
    if kept.audit.dropped > 0 {
        let reason = "file systems were frozen";
        output.write(now, Kind::Audit, &audit::gap(now, kept.audit.dropped, reason));
    }
    for (time, kind, message) in kept.lines {
        output.write(time, kind, &message);
    }
}

/// Writes what was kept to standard error, for an agent that ends: files may be frozen, the one of standard error included.
pub(crate) fn give_up_keeping() {
    let mut output = LOGGER.output();
    if output.kept.is_none() {
        return;
    }
    output.file = None;
    if matches!(output.audit, AuditSink::File(_)) {
        output.audit = AuditSink::Log;
    }
    if is_standard_error_a_file() {
        output.kept = None;
    }
    drop(output);
    write_kept();
}

/// Whether standard error is the stream that `device:inode` names.
fn is_standard_error(stream: &str) -> bool {
    fstat(io::stderr()).is_ok_and(|status| stream == format!("{}:{}", status.st_dev, status.st_ino))
}

fn is_standard_error_a_file() -> bool {
    fstat(io::stderr()).is_ok_and(|status| SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG)
}

impl Logger {
    fn output(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.output().take(SystemTime::now(), Kind::Log(record.level()), message);
    }

    fn flush(&self) {}
}

impl Output {
    fn take(&mut self, time: SystemTime, kind: Kind, message: String) {
        match &mut self.kept {
            Some(kept) => kept.push(time, kind, message),
            None => self.write(time, kind, &message),
        }
    }

    fn write(&mut self, time: SystemTime, kind: Kind, message: &str) {
        match kind {
            Kind::Log(level) => self.write_log(time, level, message),
            Kind::Audit => self.write_audit(time, message),
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
