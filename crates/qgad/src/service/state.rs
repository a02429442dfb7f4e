//! What outlives the agent: the number of the next file handle.
//!
//! It is kept in `qga.state`, a key file in the state directory. The file is replaced as a whole, so that a reader, or
//! an agent after a crash, finds the old number or the new one. A number is never used twice, also across restarts: a
//! host that holds an old handle gets an error, not another file. For the same reason, an invalid file is replaced by
//! one that counts from the present time in seconds, which no counter has reached.
//!
//! The directory must exist and is never created. If it has no room, files cannot be opened, and nothing else fails.

use std::{
    fs,
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use qga::wire::message::Error;

use crate::util::{errno, key_file::KeyFile};

/// The first handle ever: numbers that hosts take for standard streams, or nothing, are avoided.
const FIRST_HANDLE: i64 = 1000;

/// The state directory's contents.
#[derive(Debug)]
pub(crate) struct State {
    file: PathBuf,
    counter: Mutex<Counter>,
}

#[derive(Debug)]
struct Counter {
    next_handle: i64,
    /// It could not be stored the last time, which the log says.
    has_failed: bool,
}

impl State {
    /// Reads the state kept in a directory, and writes it where there is none yet, unless nothing may be written now.
    pub(crate) fn load(directory: &Path, may_write: bool) -> Result<Self, String> {
        let file = directory.join("qga.state");
        let failed =
            |what: &str, error: io::Error| format!("failed to {what} {}: {}", file.display(), errno::describe(error));
        let (next_handle, is_stored) = match fs::read(&file) {
            Ok(contents) => match read_counter(&contents) {
                Ok(next_handle) => (next_handle, true),
                Err(reason) => {
                    log::warn!("{} makes no sense and is replaced: {reason}", file.display());
                    (seconds_since_epoch(), false)
                }
            },
            Err(error) if error.kind() == ErrorKind::NotFound => (FIRST_HANDLE, false),
            Err(error) => return Err(failed("read", error)),
        };
        let mut counter = Counter { next_handle, has_failed: false };
        if !is_stored && may_write {
            match save(&file, next_handle) {
                Err(error) if errno::is_disk_full(&error) => {
                    log::error!("{}", failed("write", error));
                    counter.has_failed = true;
                }
                result => result.map_err(|error| failed("write", error))?,
            }
        }
        Ok(Self { file, counter: Mutex::new(counter) })
    }

    /// A number for a new handle. It counts as used even when the next one cannot be stored.
    pub(crate) fn take_handle(&self) -> Result<i64, Error> {
        // Held across the write on purpose: the numbers must be stored in their order.
        let mut counter = self.counter.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = counter.next_handle;
        counter.next_handle += 1;
        let stored = save(&self.file, counter.next_handle);
        let had_failed = std::mem::replace(&mut counter.has_failed, stored.is_err());
        let file = self.file.display();
        stored.map_err(|error| {
            let reason = errno::describe(error);
            if !had_failed {
                log::error!("failed to write {file}: {reason}");
            }
            Error::generic(format!("failed to commit persistent state to disk: {reason}"))
        })?;
        if had_failed {
            log::warn!("{file} is written again");
        }
        Ok(handle)
    }
}

/// Replaces the file, or leaves it as it is.
fn save(path: &Path, next_handle: i64) -> io::Result<()> {
    let replacement = path.with_extension("state.new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&replacement)?;
    let replaced = file
        .write_all(format!("[global]\nfd_counter={next_handle}\n").as_bytes())
        .and_then(|()| fs::rename(&replacement, path));
    if replaced.is_err() {
        // It is of no use, and takes what room there is.
        let _ = fs::remove_file(&replacement);
    }
    replaced
}

fn read_counter(contents: &[u8]) -> Result<i64, String> {
    match KeyFile::parse(contents)?.text("global", "fd_counter")? {
        None => Ok(FIRST_HANDLE),
        Some(text) => text
            .trim()
            .parse()
            .ok()
            .filter(|counter| (FIRST_HANDLE..i64::MAX / 2).contains(counter))
            .ok_or_else(|| format!("'{text}' is no number of a handle")),
    }
}

fn seconds_since_epoch() -> i64 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(FIRST_HANDLE).max(FIRST_HANDLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_handle_with(contents: Option<&str>) -> i64 {
        let directory = tempfile::tempdir().unwrap();
        if let Some(contents) = contents {
            fs::write(directory.path().join("qga.state"), contents).unwrap();
        }
        State::load(directory.path(), true).unwrap().take_handle().unwrap()
    }

    #[test]
    fn handles_are_counted_from_a_thousand() {
        assert_eq!(first_handle_with(None), 1000);
        assert_eq!(first_handle_with(Some("")), 1000);
        assert_eq!(first_handle_with(Some("[global]\n")), 1000);
        assert_eq!(first_handle_with(Some("[global]\nfd_counter=4294967296\n")), 4_294_967_296);
    }

    #[test]
    fn a_counter_that_makes_no_sense_is_replaced_by_one_that_nobody_has_used() {
        for contents in ["garbage", "[global]\nfd_counter=abc\n", "[global]\nfd_counter=-5\n", "[global]\nfd_counter=0"]
        {
            assert!(first_handle_with(Some(contents)) > 1_700_000_000, "{contents:?}");
        }
    }

    #[test]
    fn a_handle_is_not_used_again_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::load(directory.path(), true).unwrap();
        assert_eq!(fs::read(directory.path().join("qga.state")).unwrap(), b"[global]\nfd_counter=1000\n");
        assert_eq!(state.take_handle().unwrap(), 1000);
        assert_eq!(State::load(directory.path(), true).unwrap().take_handle().unwrap(), 1001);
        assert_eq!(state.take_handle().unwrap(), 1001);
    }

    #[test]
    fn a_number_that_cannot_be_stored_is_used_up_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::load(directory.path(), true).unwrap();
        let blocker = directory.path().join("qga.state.new");
        fs::create_dir(&blocker).unwrap();
        assert_eq!(state.take_handle().unwrap_err().desc, "failed to commit persistent state to disk: Is a directory");
        fs::remove_dir(&blocker).unwrap();
        assert_eq!(state.take_handle().unwrap(), 1001);
    }

    #[test]
    fn a_disk_without_room_keeps_files_from_being_opened_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let fill = || std::os::unix::fs::symlink("/dev/full", directory.path().join("qga.state.new")).unwrap();
        let names = || fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        fill();
        let state = State::load(directory.path(), true).unwrap();
        assert_eq!(names().count(), 0);
        fill();
        let refusal = "failed to commit persistent state to disk: No space left on device";
        assert_eq!(state.take_handle().unwrap_err().desc, refusal);
        assert_eq!(names().count(), 0);
        assert_eq!(state.take_handle().unwrap(), 1001);
        fill();
        state.take_handle().unwrap_err();
        assert_eq!(fs::read(directory.path().join("qga.state")).unwrap(), b"[global]\nfd_counter=1002\n");
    }

    #[test]
    fn nothing_is_written_while_nothing_may_be() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::load(directory.path(), false).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        assert_eq!(state.take_handle().unwrap(), 1000);
    }

    #[test]
    fn the_directory_must_be_there() {
        let error = State::load("/nonexistent".as_ref(), true).unwrap_err();
        assert_eq!(error, "failed to write /nonexistent/qga.state: No such file or directory");
    }
}
