//! The log: one line a record, on standard error or in a file.
//!
//! A line is `seconds.microseconds: level: message`, as qemu-ga writes it, or, where standard error is the journal,
//! `<priority>message`: the journal adds the time itself. Without `verbose`, errors and warnings are logged. What a
//! host sends is logged by its command's name only, never its arguments. A log that cannot be written is no reason to
//! stop serving, so failures to write are passed over. While file systems are frozen, lines are kept in memory.
//! The lines of the audit go the same way, or to a file of their own.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::sys::stat::fstat;

use crate::errno;

/// Longest message, in characters; what a peer chose, such as the name of a command, is cut there.
const MAX_MESSAGE_LENGTH: usize = 4096;

/// Most bytes of lines that are kept while nothing may be written; the oldest are dropped first.
pub(crate) const MAX_KEPT_BYTES: usize = 256 * 1024;

static LOGGER: Logger =
    Logger { output: Mutex::new(Output { sink: Sink::StandardError, audit: AuditSink::Nowhere, kept: None }) };

struct Logger {
    output: Mutex<Output>,
}

struct Output {
    sink: Sink,
    audit: AuditSink,
    /// Where lines go while nothing may be written.
    kept: Option<Kept>,
}

#[derive(Default)]
struct Kept {
    lines: VecDeque<(SystemTime, Kind, String)>,
    bytes: usize,
    dropped: usize,
}

enum Sink {
    StandardError,
    Journal,
    File(File),
}

enum AuditSink {
    Nowhere,
    /// Where the log goes.
    Log,
    /// A file of its own, and whether its last line is whole.
    File {
        file: File,
        is_whole: bool,
    },
}

#[derive(Clone, Copy)]
enum Kind {
    Log(Level),
    Audit,
}

/// Begins to log to standard error, what a panic says included. `journal_stream` is the variable by which systemd names the journal's stream.
pub(crate) fn begin(journal_stream: Option<&str>) {
    if journal_stream.is_some_and(is_standard_error) {
        LOGGER.replace_sink(Sink::Journal);
    }
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
    LOGGER.replace_sink(Sink::File(OpenOptions::new().append(true).create(true).mode(0o640).open(path)?));
    Ok(())
}

/// Writes the audit where the log goes, from now on.
pub(crate) fn audit_to_log() {
    LOGGER.output().audit = AuditSink::Log;
}

/// Appends the audit to a file that only root reads, from now on.
pub(crate) fn audit_to(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    LOGGER.output().audit = AuditSink::File { file, is_whole: true };
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
    if kept.dropped > 0 {
        let message = format!("{} lines were dropped that were logged while file systems were frozen", kept.dropped);
        output.sink.write(SystemTime::now(), Level::Warn, &message);
    }
    for (time, kind, message) in kept.lines {
        output.write(time, kind, &message);
    }
}

/// Writes what was kept to standard error, for an agent that cannot go on: its file may be frozen.
pub(crate) fn give_up_keeping() {
    let mut output = LOGGER.output();
    if output.kept.is_some() && matches!(output.sink, Sink::File(_)) {
        output.sink = Sink::StandardError;
    }
    drop(output);
    write_kept();
}

/// Whether standard error is the stream that `device:inode` names.
fn is_standard_error(stream: &str) -> bool {
    fstat(io::stderr()).is_ok_and(|status| stream == format!("{}:{}", status.st_dev, status.st_ino))
}

impl Logger {
    fn output(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace_sink(&self, sink: Sink) {
        self.output().sink = sink;
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
        let level = match kind {
            Kind::Log(level) => level,
            Kind::Audit => return self.write_audit(time, message),
        };
        self.sink.write(time, level, message);
    }

    /// A file that is full loses lines, says so once in the log, and has no line joined to the half of another.
    fn write_audit(&mut self, time: SystemTime, message: &str) {
        match &mut self.audit {
            AuditSink::Nowhere => {}
            AuditSink::Log => self.sink.write(time, Level::Info, &format!("audit: {message}")),
            AuditSink::File { file, is_whole } => {
                let separator = if *is_whole { "" } else { "\n" };
                match file.write_all(format!("{separator}{message}\n").as_bytes()) {
                    Ok(()) => *is_whole = true,
                    Err(error) if *is_whole => {
                        *is_whole = false;
                        let complaint = format!("failed to write to the audit's file: {}", errno::words(error));
                        self.sink.write(time, Level::Error, &complaint);
                    }
                    Err(_) => {}
                }
            }
        }
    }
}

impl Sink {
    fn write(&mut self, time: SystemTime, level: Level, message: &str) {
        let line = match self {
            Self::Journal => format!("<{}>{message}\n", priority(level)),
            Self::StandardError | Self::File(_) => {
                let time = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                format!("{}.{:06}: {}: {message}\n", time.as_secs(), time.subsec_micros(), name(level))
            }
        };
        let _ = match self {
            Self::File(file) => file.write_all(line.as_bytes()),
            Self::StandardError | Self::Journal => io::stderr().write_all(line.as_bytes()),
        };
    }
}

impl Kept {
    fn push(&mut self, time: SystemTime, kind: Kind, message: String) {
        self.bytes += message.len();
        self.lines.push_back((time, kind, message));
        while self.bytes > MAX_KEPT_BYTES {
            let Some((_, _, oldest)) = self.lines.pop_front() else { return };
            self.bytes -= oldest.len();
            self.dropped += 1;
        }
    }
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
    fn what_is_kept_is_bounded_and_the_oldest_is_dropped() {
        let mut kept = Kept::default();
        let message = "x".repeat(MAX_MESSAGE_LENGTH);
        for number in 0..100 {
            kept.push(SystemTime::now(), Kind::Log(Level::Info), format!("{number} {message}"));
        }
        assert!(kept.bytes <= MAX_KEPT_BYTES);
        assert_eq!(kept.dropped + kept.lines.len(), 100);
        assert!(kept.lines.back().unwrap().2.starts_with("99 "));
        assert!(kept.lines.front().unwrap().2.starts_with(&format!("{} ", kept.dropped)));
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        assert_eq!(one_line("a\nb\rc"), "a b c");
        assert_eq!(one_line(&"ü".repeat(MAX_MESSAGE_LENGTH + 1)).chars().count(), MAX_MESSAGE_LENGTH);
    }
}
