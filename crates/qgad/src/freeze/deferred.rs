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

    /// The jobs, of which none is left behind.
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
    /// Writes as usual from now on, except where something is stuck. Deferred jobs run once nothing is.
    pub(super) fn resume_writing(&self) {
        let mut inner = self.inner();
        let stuck: Vec<_> = inner.stuck().into_iter().map(|(target, _)| target).collect();
        let deferred = if stuck.is_empty() { inner.deferred.take() } else { DeferredJobs::default() };
        drop(inner);
        deferred.run();
        self.machine.resume(&stuck);
    }
}
