//! Work that writes to a disk, deferred while file systems are frozen.

use std::fmt;

use super::Shared;

/// Jobs in the order in which they came.
#[derive(Default)]
pub(super) struct DeferredJobs(Vec<Box<dyn FnOnce() + Send>>);

impl DeferredJobs {
    /// Adds a job behind the others.
    pub(super) fn add(&mut self, job: impl FnOnce() + Send + 'static) {
        self.0.push(Box::new(job));
    }

    /// Takes all jobs.
    pub(super) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Runs the jobs. No lock may be held: a job may ask about the freeze.
    pub(super) fn run(self) {
        self.0.into_iter().for_each(|job| job());
    }
}

impl fmt::Debug for DeferredJobs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("DeferredJobs").field(&self.0.len()).finish()
    }
}

impl Shared {
    /// Allows writing again, except on a stuck file system. Deferred jobs run once none is stuck.
    pub(super) fn resume_writing(&self) {
        let mut inner = self.inner();
        let stuck: Vec<_> = inner.stuck().into_iter().map(|(target, _)| target).collect();
        let deferred = if stuck.is_empty() { inner.deferred.take() } else { DeferredJobs::default() };
        drop(inner);
        deferred.run();
        self.machine.resume(&stuck);
    }
}
