//! The open files, by handle.
//!
//! The table is shared by all connections and outlives them. A command that uses a file shares its ownership, so that
//! no lock is held while a disk is slow. Closing frees the handle at once, whatever other commands do with the file.
//! [`OpenFiles::with_unused`] is the one exception: it holds the lock during an action, which must never wait.
//! A process has few descriptors, and the pipes of programs need some of them, hence [`MAX_OPEN_FILES`]. A host may
//! forget to close handles: when the table is full, the file that was unused for the longest time is closed, if that is
//! [`MAX_IDLE`] or more.

use std::{
    collections::HashMap,
    fs::File,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use qga::wire::message::Error;

use crate::util::in_use::Resource;

/// Most files open at once: a quarter of the 1024 descriptors that a process usually has.
pub(crate) const MAX_OPEN_FILES: usize = 256;

/// How long a file must be unused before it may be closed for another one. A transfer uses its file every few seconds.
pub(crate) const MAX_IDLE: Duration = Duration::from_secs(60 * 60);

/// The table.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles {
    by_handle: Mutex<Table>,
}

type Table = HashMap<i64, Open>;

#[derive(Debug)]
struct Open {
    file: Arc<File>,
    resource: Resource,
    last_used: Instant,
}

/// Whether one more file may be opened.
#[derive(Debug)]
pub(crate) enum Room {
    /// Yes.
    Free,
    /// Yes, once this one is closed. It is no longer in the table.
    AfterClosing(Idle),
    /// No.
    None,
}

/// An idle file that is to be closed for another one.
#[derive(Debug)]
pub(crate) struct Idle {
    /// Its handle, which is free.
    pub(crate) handle: i64,
    /// The file. Closing it may wait.
    pub(crate) file: Arc<File>,
    /// The resource that closing it may wait for.
    pub(crate) resource: Resource,
}

impl OpenFiles {
    /// Makes room for one more file. If the table is full, an idle file leaves it, unless `may_be_closed` says that it
    /// cannot be closed now.
    pub(crate) fn make_room(&self, now: Instant, may_be_closed: impl Fn(&Resource) -> bool) -> Room {
        let mut table = self.table();
        if table.len() < MAX_OPEN_FILES {
            return Room::Free;
        }
        let is_idle = |open: &Open| {
            Arc::strong_count(&open.file) == 1 && now.saturating_duration_since(open.last_used) >= MAX_IDLE
        };
        let idle = table.iter().filter(|(_, open)| is_idle(open) && may_be_closed(&open.resource));
        let oldest = idle.min_by_key(|(_, open)| open.last_used).map(|(&handle, _)| handle);
        match oldest.and_then(|handle| Some((handle, table.remove(&handle)?))) {
            Some((handle, Open { file, resource, .. })) => Room::AfterClosing(Idle { handle, file, resource }),
            None => Room::None,
        }
    }

    /// Adds a file, with the resource that using it may wait for.
    pub(crate) fn insert(&self, handle: i64, file: File, resource: Resource) {
        self.table().insert(handle, Open { file: Arc::new(file), resource, last_used: Instant::now() });
    }

    /// The file of a handle.
    pub(crate) fn get(&self, handle: i64) -> Result<Arc<File>, Error> {
        let mut table = self.table();
        let open = table.get_mut(&handle).ok_or_else(|| not_found(handle))?;
        open.last_used = Instant::now();
        Ok(Arc::clone(&open.file))
    }

    /// The resource that using the file of a handle may wait for.
    pub(crate) fn resource(&self, handle: i64) -> Result<Resource, Error> {
        self.table().get(&handle).map(|open| open.resource.clone()).ok_or_else(|| not_found(handle))
    }

    /// Runs an action on a file that no other command uses or starts to use meanwhile. The action must never wait.
    ///
    /// If another command used the file, it might: a read locks the position of the file until it returns.
    pub(crate) fn with_unused<T>(&self, handle: i64, act: impl FnOnce(&File) -> Option<T>) -> Option<T> {
        let mut table = self.table();
        let open = table.get_mut(&handle)?;
        open.last_used = Instant::now();
        if Arc::strong_count(&open.file) > 1 { None } else { act(&open.file) }
    }

    /// Removes a file. It is closed when the last command that uses it is done.
    pub(crate) fn remove(&self, handle: i64) -> Result<Arc<File>, Error> {
        self.table().remove(&handle).map(|open| open.file).ok_or_else(|| not_found(handle))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Each change is one call, so a panic cannot have left the table half changed.
        self.by_handle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_found(handle: i64) -> Error {
    Error::generic(format!("handle '{handle}' has not been found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> File {
        File::open("/dev/null").unwrap()
    }

    fn disk() -> Resource {
        Resource::FileSystem("/".into())
    }

    /// Whether there is room, and the handle of the file that is to be closed for it.
    fn room(files: &OpenFiles, now: Instant) -> (bool, Option<i64>) {
        match files.make_room(now, |resource| *resource == disk()) {
            Room::Free => (true, None),
            Room::AfterClosing(idle) => (true, Some(idle.handle)),
            Room::None => (false, None),
        }
    }

    #[test]
    fn only_a_file_that_was_long_unused_makes_room() {
        let files = OpenFiles::default();
        assert_eq!(room(&files, Instant::now()), (true, None));
        (0..256).for_each(|handle| files.insert(handle, null(), disk()));
        let later = Instant::now() + MAX_IDLE;
        assert_eq!(room(&files, Instant::now()), (false, None));
        // The first one is used again, and the second one by a command that has not ended.
        files.get(0).unwrap();
        let _in_use = files.get(1).unwrap();
        assert_eq!(room(&files, later), (true, Some(2)));
        files.insert(256, null(), disk());
        assert_eq!(room(&files, Instant::now()), (false, None));
    }

    #[test]
    fn a_file_that_cannot_be_closed_makes_no_room() {
        let files = OpenFiles::default();
        (0..255).for_each(|handle| files.insert(handle, null(), Resource::FileSystem("/dead".into())));
        files.insert(255, null(), disk());
        let later = Instant::now() + MAX_IDLE;
        assert_eq!(room(&files, later), (true, Some(255)));
        files.insert(256, null(), Resource::FileSystem("/dead".into()));
        assert_eq!(room(&files, later), (false, None));
    }
}
