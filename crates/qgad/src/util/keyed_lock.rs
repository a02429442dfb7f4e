//! A lock for each key.
//!
//! For files that several commands read, change and write back. A thread that is stuck with one key locked does not
//! block those that lock other keys, and those that wait for its key wait for a bounded time.

use std::{
    collections::HashSet,
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
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
    /// Waits until the key is unlocked, and locks it. `None` if that takes longer than the timeout.
    pub(crate) fn lock(&self, key: String, timeout: Duration) -> Option<KeyedLockGuard<'_>> {
        let locked = self.locked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_locked = |locked: &mut HashSet<String>| locked.contains(&key);
        let waited = self.released.wait_timeout_while(locked, timeout, is_locked);
        let (mut locked, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return None;
        }
        locked.insert(key.clone());
        Some(KeyedLockGuard { lock: self, key })
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

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_key_has_one_holder_at_a_time() {
        let (lock, holders) = (KeyedLock::default(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _guard = lock.lock("a".into(), LONG).unwrap();
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
        let _one = lock.lock("a".into(), LONG).unwrap();
        let _other = lock.lock("b".into(), LONG).unwrap();
    }

    #[test]
    fn a_key_that_stays_locked_is_not_waited_for_without_end() {
        let lock = KeyedLock::default();
        let held = lock.lock("a".into(), LONG).unwrap();
        assert!(lock.lock("a".into(), Duration::from_millis(1)).is_none());
        drop(held);
        assert!(lock.lock("a".into(), LONG).is_some());
    }
}
