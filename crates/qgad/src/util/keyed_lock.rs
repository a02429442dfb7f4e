//! Who is at work on what: one at a time.
//!
//! What is read, changed and written back must not be changed by somebody else meanwhile. A claim is on one thing, by
//! its name, so that whoever is stuck on one hinders nobody who wants another.

use std::{
    collections::HashSet,
    sync::{Condvar, Mutex, PoisonError},
};

/// The claims that there are now.
#[derive(Debug, Default)]
pub(crate) struct KeyedLock {
    taken: Mutex<HashSet<String>>,
    released: Condvar,
}

/// A claim, which ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    claims: &'a KeyedLock,
    name: String,
}

impl KeyedLock {
    /// Waits until nobody else has a claim on this.
    pub(crate) fn take(&self, name: String) -> Claim<'_> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken =
            self.released.wait_while(taken, |taken| taken.contains(&name)).unwrap_or_else(PoisonError::into_inner);
        taken.insert(name.clone());
        Claim { claims: self, name }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
        self.claims.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_waits_for_the_other() {
        let (claims, at_work) = (KeyedLock::default(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _claim = claims.take("a".into());
                        assert_eq!(at_work.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        at_work.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn claims_on_other_things_are_had_at_once() {
        let claims = KeyedLock::default();
        let _one = claims.take("a".into());
        let _other = claims.take("b".into());
    }
}
