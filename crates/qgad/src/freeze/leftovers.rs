//! What a freeze leaves behind: file systems that did not thaw when they were told to, and a guard that has not left
//! yet.
//!
//! The kernel may take any time over a freeze or a thaw. The worker of such a file system stays until it has thawed,
//! and the guard with it. Meanwhile the agent writes to no disk, and freezes nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use qga::wire::message::Error;

use super::{GUARD_TIMEOUT, Guard, Inner, Shared, worker::Worker};

/// What a freeze left.
#[derive(Debug)]
pub(super) struct Leftovers {
    /// What did not thaw when it was told to; nothing once all has, and the agent writes again.
    pub(super) stuck: Arc<[Worker]>,
    pub(super) guard: Option<Arc<dyn Guard>>,
}

impl Inner {
    /// Whether a file system has not thawed that was told to.
    pub(super) fn is_anything_stuck(&self) -> bool {
        self.leftovers.as_ref().is_some_and(|leftovers| !leftovers.stuck.is_empty())
    }
}

impl Shared {
    /// Keeps what has not thawed, until it has.
    pub(super) fn leave_over(self: &Arc<Self>, workers: Vec<Worker>, guard: Option<Arc<dyn Guard>>) {
        let remaining = Arc::new(AtomicUsize::new(workers.len()));
        let stuck: Arc<[Worker]> = workers.into();
        self.inner().leftovers = Some(Leftovers { stuck: Arc::clone(&stuck), guard });
        for worker in &*stuck {
            let (shared, remaining) = (Arc::clone(self), Arc::clone(&remaining));
            worker.when_thawed(move || {
                if remaining.fetch_sub(1, Ordering::AcqRel) == 1 {
                    shared.finish_leftovers();
                }
            });
        }
    }

    /// Everything that was left over has thawed.
    pub(super) fn finish_leftovers(&self) {
        let guard = self.inner().leftovers.as_ref().and_then(|leftovers| leftovers.guard.clone());
        guard.inspect(|guard| guard.leave());
        self.resume_writing();
        log::info!("what did not thaw at once is thawed");
        let mut inner = self.inner();
        if let Some(leftovers) = &mut inner.leftovers {
            leftovers.stuck = Arc::new([]);
        }
        let deferred = inner.deferred.take();
        drop(inner);
        deferred.run();
    }

    /// A leftover must have thawed before it is frozen again. Otherwise its late thaw would end the new freeze.
    pub(super) fn refuse_leftovers(&self) -> Result<(), Error> {
        let inner = self.inner();
        let Some(Leftovers { stuck, guard }) = &inner.leftovers else { return Ok(()) };
        let now = Instant::now();
        if let Some(worker) = stuck.iter().find(|worker| worker.thawed(now).is_none()).or(stuck.first()) {
            let mount_point = worker.mount_point().display();
            return Err(Error::generic(format!("{mount_point} does not answer since an earlier freeze or thaw")));
        }
        let guard = guard.clone();
        drop(inner);
        match guard.is_none_or(|guard| guard.is_gone(Instant::now() + GUARD_TIMEOUT)) {
            true => Ok(()),
            false => Err(Error::generic("the guard of an earlier freeze has not left yet")),
        }
    }
}
