//! Files in the state directory through which a freeze outlives the agent.
//!
//! `qga.state.isfrozen` exists exactly while file systems are frozen. It contains the boot id, so that a file left by a
//! crashed machine does not count. An empty one counts: qemu-ga and administrators make such files.
//!
//! `qga.state.thaw-note` says why a freeze ended by itself, until that was reported to a host. An agent that knows of
//! such an end remembers it, too, in case the guard could not write the note. A note that cannot be read counts as
//! present.
//!
//! `qga.state.hooks` contains the boot id. It exists from before the first freeze hook until the thaw hooks have run;
//! an agent that finds it runs them. If the disk is full, these three files are empty: their existence matters most.
//!
//! `qga.state.guard` is the takeover socket of the guard. There are more, with numbers, while guards of earlier freezes
//! wait for a file system that is stuck.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::{root::Root, util::errno};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The reason when a note is empty, because the disk was full.
const ENDED: &str = "the freeze ended by itself";
/// Longest note that is read; ours are a line.
const MAX_NOTE_BYTES: usize = 1024;

/// The files of a freeze.
#[derive(Clone, Debug)]
pub(crate) struct Marker {
    directory: PathBuf,
    boot: String,
    /// A freeze ended by itself, and that was not reported to a host yet.
    has_ended: Arc<AtomicBool>,
}

impl Marker {
    /// The files in a state directory.
    pub(crate) fn new(root: &Root, directory: &Path) -> Self {
        let boot = root.read(BOOT_ID).unwrap_or_default();
        let boot = String::from_utf8_lossy(&boot).trim().into();
        Self { directory: directory.into(), boot, has_ended: Arc::default() }
    }

    /// The state directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path of a takeover socket. There may be several guards, numbered from 0.
    pub(crate) fn socket(&self, number: usize) -> PathBuf {
        match number {
            0 => self.directory.join("qga.state.guard"),
            _ => self.directory.join(format!("qga.state.guard.{number}")),
        }
    }

    /// Whether file systems are frozen by an agent that is gone. A file that cannot be read counts as present.
    pub(crate) fn is_set(&self) -> bool {
        self.is_of_this_boot(&self.path())
    }

    /// How long ago file systems were frozen, by the guest's clock; 0 if that is unknown.
    pub(crate) fn age(&self) -> Duration {
        let set = fs::metadata(self.path()).and_then(|status| status.modified());
        set.ok().and_then(|time| SystemTime::now().duration_since(time).ok()).unwrap_or_default()
    }

    /// Says that file systems are frozen.
    pub(crate) fn set(&self) -> Result<(), String> {
        write(&self.path(), self.boot.as_bytes())
    }

    /// Says that they are not.
    pub(crate) fn clear(&self) {
        remove(&self.path());
    }

    /// Whether freeze hooks were run, and the thaw hooks were not.
    pub(crate) fn is_thaw_hook_pending(&self) -> bool {
        self.is_of_this_boot(&self.hooks_path())
    }

    /// Records that the thaw hooks must run, even if the agent ends before.
    pub(crate) fn set_thaw_hook_pending(&self) -> Result<(), String> {
        write(&self.hooks_path(), self.boot.as_bytes())
    }

    /// Records that they were run, or are being run.
    pub(crate) fn clear_thaw_hook_pending(&self) {
        remove(&self.hooks_path());
    }

    /// Notes why a freeze ended by itself.
    pub(crate) fn note(&self, reason: &str) -> Result<(), String> {
        write(&self.note_path(), reason.as_bytes())
    }

    /// Remembers that a freeze ended by itself, whether or not a note says why.
    pub(crate) fn remember_end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    /// Why the last freeze ended by itself, if it did. The note is gone then.
    pub(crate) fn take_note(&self) -> Option<String> {
        let path = self.note_path();
        let has_ended = self.has_ended.load(Ordering::Relaxed);
        let note = match fs::read(&path) {
            Ok(note) if !note.is_empty() => {
                Some(String::from_utf8_lossy(&note[..note.len().min(MAX_NOTE_BYTES)]).into_owned())
            }
            Ok(_) => Some(ENDED.into()),
            Err(_) if has_ended => Some(ENDED.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let reason = format!("failed to read {}: {}", path.display(), errno::describe(error));
                Some(format!("the freeze may have ended by itself ({reason})"))
            }
        };
        if note.is_some() {
            self.forget_note();
        }
        note
    }

    /// Discards the end of an earlier freeze: it does not concern the next one.
    pub(crate) fn forget_note(&self) {
        self.has_ended.store(false, Ordering::Relaxed);
        remove(&self.note_path());
    }

    fn is_of_this_boot(&self, path: &Path) -> bool {
        match fs::read_to_string(path) {
            Ok(boot) if boot.is_empty() || boot == self.boot => true,
            Ok(_) => {
                log::warn!("{} is of an earlier run of the machine and is removed", path.display());
                remove(path);
                false
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                log::warn!("failed to read {}: {}", path.display(), errno::describe(error));
                true
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("qga.state.isfrozen")
    }

    fn hooks_path(&self) -> PathBuf {
        self.directory.join("qga.state.hooks")
    }

    fn note_path(&self) -> PathBuf {
        self.directory.join("qga.state.thaw-note")
    }
}

fn write(path: &Path, contents: &[u8]) -> Result<(), String> {
    let empty = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = empty().and_then(|mut file| match file.write_all(contents) {
        // Half of a boot id or a reason would mean something else.
        Err(error) if errno::is_disk_full(&error) => empty().map(drop),
        other => other,
    });
    written.map_err(|error| format!("failed to write {}: {}", path.display(), errno::describe(error)))
}

/// Removes a file that may not be there.
pub(crate) fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::error!("failed to remove {}: {}", path.display(), errno::describe(error));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(directory: &Path, boot: &str) -> Marker {
        let (root, _tree) = Root::from_text(&format!("proc/sys/kernel/random/boot_id: {boot}\n"));
        Marker::new(&root, directory)
    }

    #[test]
    fn a_marker_is_there_from_freeze_to_thaw() {
        let directory = tempfile::tempdir().unwrap();
        let marker = marker(directory.path(), "one");
        assert!(!marker.is_set());
        marker.set().unwrap();
        assert!(marker.is_set());
        marker.clear();
        assert!(!marker.is_set());
    }

    #[test]
    fn a_marker_of_an_earlier_boot_is_removed_and_an_empty_one_believed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("qga.state.isfrozen");
        marker(directory.path(), "one").set().unwrap();
        assert!(!marker(directory.path(), "two").is_set());
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        assert!(marker(directory.path(), "two").is_set());
    }

    #[test]
    fn hooks_are_owed_in_the_boot_in_which_they_were_run() {
        let directory = tempfile::tempdir().unwrap();
        marker(directory.path(), "one").set_thaw_hook_pending().unwrap();
        assert!(marker(directory.path(), "one").is_thaw_hook_pending());
        assert!(!marker(directory.path(), "two").is_thaw_hook_pending());
        assert!(!marker(directory.path(), "one").is_thaw_hook_pending());
        marker(directory.path(), "one").set_thaw_hook_pending().unwrap();
        marker(directory.path(), "one").clear_thaw_hook_pending();
        assert!(!marker(directory.path(), "one").is_thaw_hook_pending());
    }

    #[test]
    fn a_note_is_taken_once() {
        let directory = tempfile::tempdir().unwrap();
        let marker = marker(directory.path(), "one");
        marker.note("it was late").unwrap();
        assert_eq!(marker.take_note().as_deref(), Some("it was late"));
        assert_eq!(marker.take_note(), None);
    }

    #[test]
    fn a_disk_without_room_has_an_empty_marker_and_an_empty_note() {
        let directory = tempfile::tempdir().unwrap();
        let marker = marker(directory.path(), "one");
        let full = |name| std::os::unix::fs::symlink("/dev/full", directory.path().join(name)).unwrap();
        full("qga.state.isfrozen");
        marker.set().unwrap();
        full("qga.state.thaw-note");
        marker.note("it was late").unwrap();
        marker.forget_note();
        fs::write(marker.note_path(), "").unwrap();
        assert_eq!(marker.take_note().as_deref(), Some("the freeze ended by itself"));
    }

    #[test]
    fn an_end_without_a_note_is_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let marker = marker(directory.path(), "one");
        marker.clone().remember_end();
        assert_eq!(marker.take_note().as_deref(), Some("the freeze ended by itself"));
        assert_eq!(marker.take_note(), None);
        marker.remember_end();
        marker.note("it was late").unwrap();
        assert_eq!(marker.take_note().as_deref(), Some("it was late"));
        assert_eq!(marker.take_note(), None);
        marker.remember_end();
        marker.forget_note();
        assert_eq!(marker.take_note(), None);
    }

    #[test]
    fn a_note_that_cannot_be_read_is_not_taken_for_none() {
        let directory = tempfile::tempdir().unwrap();
        let marker = marker(directory.path(), "one");
        fs::create_dir(marker.note_path()).unwrap();
        let reason = format!("failed to read {}: Is a directory", marker.note_path().display());
        assert_eq!(marker.take_note(), Some(format!("the freeze may have ended by itself ({reason})")));
        marker.remember_end();
        assert_eq!(marker.take_note().as_deref(), Some("the freeze ended by itself"));
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error_that_names_the_file() {
        let error = marker(Path::new("/nonexistent"), "one").set().unwrap_err();
        assert_eq!(error, "failed to write /nonexistent/qga.state.isfrozen: No such file or directory");
    }
}
