//! A lock for each key.
//!
//! For what is read, changed and written back by several commands. A thread that is stuck with one key locked does not
//! block those that lock other keys.

use std::{
    collections::HashSet,
    sync::{Condvar, Mutex, PoisonError},
};

/// The locked keys.
#[derive(Debug, Default)]
pub(crate) struct KeyedLock {
    locked: Mutex<HashSet<String>>,
    released: Condvar,
}

/// Unlocks the key when it is dropped.
#[derive(Debug)]
pub(crate) struct KeyedLockGuard<'a> {
    lock: &'a KeyedLock,
    key: String,
}

impl KeyedLock {
    /// Waits until the key is unlocked, and locks it.
    pub(crate) fn lock(&self, key: String) -> KeyedLockGuard<'_> {
        let locked = self.locked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut locked =
            self.released.wait_while(locked, |locked| locked.contains(&key)).unwrap_or_else(PoisonError::into_inner);
        locked.insert(key.clone());
        KeyedLockGuard { lock: self, key }
    }
}

impl Drop for KeyedLockGuard<'_> {
    fn drop(&mut self) {
        self.lock.locked.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.lock.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_key_has_one_holder_at_a_time() {
        let (lock, holders) = (KeyedLock::default(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _guard = lock.lock("a".into());
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        holders.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn other_keys_are_locked_at_once() {
        let lock = KeyedLock::default();
        let _one = lock.lock("a".into());
        let _other = lock.lock("b".into());
    }
}
