//! The open files, by handle.
//!
//! The table is shared by all connections and outlives them. A file is borrowed from it while a command uses it, so no
//! lock is held while a disk is slow, and closing frees the handle at once whatever other commands are doing.
//! The one exception holds the lock for something that never waits, and keeps out who might: [`Files::with_unused`].
//! The agent's own descriptors are few and shared with the pipes of programs, hence [`MAX_OPEN_FILES`].

use std::{
    collections::BTreeMap,
    fs::File,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use qga::wire::message::Error;

/// Most files open at once: a quarter of the 1024 descriptors that a process usually has.
pub(crate) const MAX_OPEN_FILES: usize = 256;

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Files {
    by_handle: Mutex<BTreeMap<i64, Arc<File>>>,
}

impl Files {
    /// Whether no further file may be opened.
    pub(crate) fn is_full(&self) -> bool {
        self.table().len() >= MAX_OPEN_FILES
    }

    /// Adds a file.
    pub(crate) fn insert(&self, handle: i64, file: File) {
        self.table().insert(handle, Arc::new(file));
    }

    /// The file of a handle.
    pub(crate) fn get(&self, handle: i64) -> Result<Arc<File>, Error> {
        self.table().get(&handle).cloned().ok_or_else(|| not_found(handle))
    }

    /// Does something with a file that no other command uses, or begins to use meanwhile; it must not wait for anything.
    ///
    /// The kernel locks a file's position while a command reads, however long that takes.
    pub(crate) fn with_unused<T>(&self, handle: i64, act: impl FnOnce(&File) -> Option<T>) -> Option<T> {
        let table = self.table();
        let file = table.get(&handle)?;
        if Arc::strong_count(file) > 1 { None } else { act(file) }
    }

    /// Takes a file out; it is closed when the last command that uses it is done.
    pub(crate) fn remove(&self, handle: i64) -> Result<Arc<File>, Error> {
        self.table().remove(&handle).ok_or_else(|| not_found(handle))
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<i64, Arc<File>>> {
        // Each change is one step, which a panic elsewhere cannot have left half done.
        self.by_handle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_found(handle: i64) -> Error {
    Error::generic(format!("handle '{handle}' has not been found"))
}
