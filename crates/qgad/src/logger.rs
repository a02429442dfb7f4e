//! The log: one line a record, on standard error or in a file.
//!
//! A line is `seconds.microseconds: level: message`, as qemu-ga writes it, or, where standard error is the journal,
//! `<priority>message`: the journal adds the time itself. Without `verbose`, errors and warnings are logged. What a
//! host sends is logged by its command's name only, never its arguments. A log that cannot be written is no reason to
//! stop serving, so failures to write are passed over.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::sys::stat::fstat;

/// Longest message, in characters; what a peer chose, such as the name of a command, is cut there.
const MAX_MESSAGE_LENGTH: usize = 4096;

static LOGGER: Logger = Logger { sink: Mutex::new(Sink::StandardError) };

struct Logger {
    sink: Mutex<Sink>,
}

enum Sink {
    StandardError,
    Journal,
    File(File),
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

/// Appends to a file from now on.
pub(crate) fn append_to(path: &Path) -> io::Result<()> {
    LOGGER.replace_sink(Sink::File(OpenOptions::new().append(true).create(true).open(path)?));
    Ok(())
}

/// Whether standard error is the stream that `device:inode` names.
fn is_standard_error(stream: &str) -> bool {
    fstat(io::stderr()).is_ok_and(|status| stream == format!("{}:{}", status.st_dev, status.st_ino))
}

impl Logger {
    fn replace_sink(&self, sink: Sink) {
        *self.sink.lock().unwrap_or_else(PoisonError::into_inner) = sink;
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
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        let line = match *sink {
            Sink::Journal => format!("<{}>{message}\n", priority(record.level())),
            Sink::StandardError | Sink::File(_) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                format!("{}.{:06}: {}: {message}\n", now.as_secs(), now.subsec_micros(), name(record.level()))
            }
        };
        let _ = match &mut *sink {
            Sink::File(file) => file.write_all(line.as_bytes()),
            Sink::StandardError | Sink::Journal => io::stderr().write_all(line.as_bytes()),
        };
    }

    fn flush(&self) {}
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
