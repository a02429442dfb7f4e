//! All file systems of a freeze, each with its worker.
//!
//! The guard process uses this. Tests use it as a guard, and so does an agent that cannot start a guard process to
//! thaw.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Guard, TakeoverSocket,
    parts::{Holding, Stuck, Thawed},
    target::{Operations, Target},
    worker::{OnDone, Worker},
};

/// How long to wait for one file system before the next one is thawed as well.
pub(super) const THAW_STALL: Duration = Duration::from_secs(1);
/// How long to wait at the end for those that did not thaw at once.
pub(super) const THAW_TIMEOUT: Duration = Duration::from_secs(10);

/// The workers, in the order of freezing.
#[derive(Debug)]
pub(super) struct Workers(Vec<Worker>);

impl Workers {
    /// Starts a worker for each file system.
    pub(super) fn start(
        targets: impl IntoIterator<Item = Arc<Target>>,
        operations: &Arc<dyn Operations>,
        holding: Holding,
        on_done: &OnDone,
    ) -> io::Result<Self> {
        let start = |target| Worker::start(target, Arc::clone(operations), holding, Arc::clone(on_done));
        targets.into_iter().map(start).collect::<Result<_, _>>().map(Self)
    }

    /// The file systems.
    pub(super) fn targets(&self) -> impl ExactSizeIterator<Item = &Arc<Target>> {
        self.0.iter().map(Worker::target)
    }

    /// Orders the freeze of one.
    pub(super) fn freeze_one(&self, index: usize) {
        if let Some(worker) = self.0.get(index) {
            worker.freeze();
        }
    }

    /// How the freeze of one went, if the kernel has returned from it.
    pub(super) fn frozen_one(&self, index: usize) -> Option<nix::Result<()>> {
        self.0.get(index)?.frozen(Instant::now())
    }

    /// Thaws what was frozen last first. One that does not answer delays the others by a moment only, and one that has
    /// not even been frozen yet by none.
    pub(super) fn thaw_all(&self) -> Thawed {
        let mut hopeful = Vec::with_capacity(self.0.len());
        for worker in self.0.iter().rev() {
            let is_freezing = worker.pending().is_some();
            worker.thaw();
            if !is_freezing {
                let _ = worker.thawed(Instant::now() + THAW_STALL);
                hopeful.push(worker);
            }
        }
        let deadline = Instant::now() + THAW_TIMEOUT;
        for worker in hopeful {
            let _ = worker.thawed(deadline);
        }
        self.thawed()
    }

    /// What a thaw has done until now.
    pub(super) fn thawed(&self) -> Thawed {
        let now = Instant::now();
        let count = self.0.iter().filter(|worker| worker.thawed(now) == Some(true)).count();
        Thawed { count: i64::try_from(count).unwrap_or(i64::MAX), stuck: self.pending() }
    }

    fn pending(&self) -> Vec<Stuck> {
        let workers = self.0.iter().enumerate();
        let stuck =
            |(index, worker): (usize, &Worker)| worker.pending().map(|(action, since)| Stuck { index, action, since });
        workers.filter_map(stuck).collect()
    }
}

impl Guard for Workers {
    fn freeze(&self, index: usize) {
        self.freeze_one(index);
    }

    fn frozen(&self, index: usize, deadline: Instant) -> Option<nix::Result<()>> {
        self.0.get(index)?.frozen(deadline)
    }

    fn complete(&self) {}

    fn thaw(&self) -> Option<Thawed> {
        Some(self.thaw_all())
    }

    fn stuck(&self) -> Vec<Stuck> {
        self.pending()
    }

    fn is_gone(&self) -> bool {
        false
    }

    fn takeover_socket(&self) -> Option<TakeoverSocket> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};
    use crate::freeze::parts::Action;

    fn workers(machine: &Arc<Fake>, mount_points: &[&str]) -> Workers {
        let targets = mount_points.iter().map(|mount_point| Arc::new(target(mount_point)));
        let operations: Arc<dyn Operations> = Arc::clone(machine) as _;
        let on_done: OnDone = Arc::new(|| ());
        Workers::start(targets, &operations, Holding::Nothing, &on_done).unwrap()
    }

    #[test]
    fn the_last_frozen_is_thawed_first() {
        let machine = Fake::new(&[]);
        let workers = workers(&machine, &["/a", "/b"]);
        for index in [0, 1] {
            workers.freeze(index);
            assert_eq!(workers.frozen(index, Instant::now() + TIMEOUT), Some(Ok(())));
        }
        assert_eq!(workers.thaw_all(), Thawed { count: 2, stuck: Vec::new() });
        assert_eq!(machine.log(), ["freeze /a", "freeze /b", "thaw /b", "thaw /a"]);
    }

    #[test]
    fn one_that_is_stuck_keeps_no_other_from_being_thawed() {
        let machine = Fake::new(&[("/b", Trouble::Hangs)]);
        let workers = workers(&machine, &["/a", "/b"]);
        workers.freeze(0);
        workers.freeze(1);
        assert_eq!(workers.frozen(0, Instant::now() + TIMEOUT), Some(Ok(())));
        machine.wait_for(|machine| machine.log().len() == 2);
        let Thawed { count, stuck } = workers.thaw_all();
        assert_eq!((count, machine.frozen()), (1, Vec::new()));
        assert_eq!(stuck.iter().map(|stuck| (stuck.index, stuck.action)).collect::<Vec<_>>(), [(1, Action::Freeze)]);
        machine.go_on();
        machine.wait_for(|_| workers.stuck().is_empty());
        assert_eq!(workers.thawed(), Thawed { count: 2, stuck: Vec::new() });
    }
}
