//! One file system, and the thread that freezes and thaws it.
//!
//! The kernel may never return from either, and a thread inside it cannot be cancelled. So each file system has a
//! thread of its own, started before anything is frozen, in a process that holds nothing that others need. Orders run
//! one after the other: at most one freeze, then any number of thaws. So a thaw that is ordered while the kernel still
//! freezes undoes a freeze that succeeds late. A file system that another program had frozen before stays frozen.
//! Giving an order allocates nothing: a thaw needs no resource that could be missing.

use std::{
    fmt, io,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Instant,
};

use super::{
    parts::{Action, Holding},
    target::{Operations, Target},
};
use crate::util::threads;

/// Stack of a worker, which makes one system call at a time. All of it is in memory while file systems are frozen.
const STACK_BYTES: usize = 64 * 1024;
/// Most thaws of one file system. The kernel lets user space freeze it once.
const MAX_THAWS: u32 = 16;
/// Orders that wait for the thread: a freeze, a thaw, and another one after that. A further thaw would find nothing to
/// do.
const MAX_ORDERS: usize = 3;

/// Called after each order that was carried out, by the thread that did.
pub(super) type OnDone = Arc<dyn Fn() + Send + Sync>;

/// A file system and its thread.
pub(super) struct Worker {
    orders: SyncSender<Action>,
    shared: Arc<Shared>,
}

struct Shared {
    target: Arc<Target>,
    operations: Arc<dyn Operations>,
    on_done: OnDone,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// When a freeze was ordered from which the kernel has not returned.
    freezing_since: Option<Instant>,
    frozen: Option<nix::Result<()>>,
    /// How many thaws were ordered and are not done.
    thaws: usize,
    /// When the first of them was ordered.
    thawing_since: Option<Instant>,
    /// Whether a thaw found it frozen.
    was_frozen: bool,
}

impl Worker {
    /// Starts the thread, which waits.
    pub(super) fn start(
        target: Arc<Target>,
        operations: Arc<dyn Operations>,
        holding: Holding,
        on_done: OnDone,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared { target, operations, on_done, state: Mutex::default(), changed: Condvar::new() });
        let (orders, receiver) = sync_channel(MAX_ORDERS);
        let worker = Self { orders, shared: Arc::clone(&shared) };
        threads::start("freeze", STACK_BYTES, move || shared.serve(&receiver, holding))?;
        Ok(worker)
    }

    /// The mount point that its file system is known by.
    pub(super) fn mount_point(&self) -> &Path {
        &self.shared.target.mount_point
    }

    /// Its file system.
    pub(super) fn target(&self) -> &Arc<Target> {
        &self.shared.target
    }

    /// Orders the freeze.
    pub(super) fn freeze(&self) {
        let mut state = self.shared.state();
        if self.orders.try_send(Action::Freeze).is_ok() {
            state.freezing_since = Some(Instant::now());
        }
    }

    /// Orders a thaw.
    pub(super) fn thaw(&self) {
        let mut state = self.shared.state();
        // Without room, a thaw is waiting already.
        if self.orders.try_send(Action::Thaw).is_ok() {
            state.thaws += 1;
            state.thawing_since.get_or_insert_with(Instant::now);
        }
    }

    /// What the kernel has not returned from, and since when that was ordered.
    pub(super) fn pending(&self) -> Option<(Action, Instant)> {
        let state = self.shared.state();
        let freeze = state.freezing_since.map(|since| (Action::Freeze, since));
        freeze.or(state.thawing_since.map(|since| (Action::Thaw, since)))
    }

    /// How the freeze went, if the kernel has returned from it by then.
    pub(super) fn frozen(&self, deadline: Instant) -> Option<nix::Result<()>> {
        self.shared.wait(deadline, |state| state.frozen)
    }

    /// Whether the file system had been frozen, if all thaws that were ordered are done by then.
    pub(super) fn thawed(&self, deadline: Instant) -> Option<bool> {
        self.shared.wait(deadline, |state| (state.thaws == 0).then_some(state.was_frozen))
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Worker").field(&self.mount_point()).finish()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<T: Copy>(&self, deadline: Instant, wanted: impl Fn(&State) -> Option<T>) -> Option<T> {
        let timeout = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.state(), timeout, |state| wanted(state).is_none());
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        wanted(&state)
    }

    fn serve(&self, orders: &Receiver<Action>, holding: Holding) {
        let mut is_ours = holding == Holding::Frozen;
        for order in orders {
            match order {
                Action::Freeze => {
                    let frozen = self.operations.freeze(&self.target);
                    is_ours = frozen.is_ok();
                    let mut state = self.state();
                    state.freezing_since = None;
                    state.frozen = Some(frozen);
                }
                Action::Thaw => {
                    let was_frozen = is_ours && thaw(&*self.operations, &self.target);
                    let mut state = self.state();
                    state.was_frozen |= was_frozen;
                    state.thaws -= 1;
                    if state.thaws == 0 {
                        state.thawing_since = None;
                    }
                }
            }
            self.changed.notify_all();
            (self.on_done)();
        }
    }
}

/// Thaws a file system until the kernel says that it is not frozen. Returns whether it was.
pub(super) fn thaw(operations: &dyn Operations, target: &Target) -> bool {
    (0..MAX_THAWS).take_while(|_| operations.thaw(target).is_ok()).count() > 0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::errno::Errno;

    use super::{super::tests::*, *};

    fn worker(machine: &Arc<Fake>, holding: Holding) -> Worker {
        Worker::start(Arc::new(target("/a")), Arc::clone(machine) as _, holding, Arc::new(|| ())).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + TIMEOUT
    }

    #[test]
    fn it_freezes_and_thaws_once_each() {
        let machine = Fake::new(&[]);
        let worker = worker(&machine, Holding::Nothing);
        worker.freeze();
        assert_eq!(worker.frozen(soon()), Some(Ok(())));
        assert_eq!(machine.frozen(), ["/a"]);
        worker.thaw();
        assert_eq!(worker.thawed(soon()), Some(true));
        assert_eq!(worker.pending(), None);
        assert_eq!(machine.log(), ["freeze /a", "thaw /a"]);
    }

    #[test]
    fn what_somebody_else_froze_is_left_so() {
        let machine = Fake::new(&[("/a", Trouble::Fails(Errno::EBUSY))]);
        let refused = worker(&machine, Holding::Nothing);
        refused.freeze();
        assert_eq!(refused.frozen(soon()), Some(Err(Errno::EBUSY)));
        refused.thaw();
        assert_eq!(refused.thawed(soon()), Some(false));
        assert_eq!(machine.log(), ["freeze /a"]);

        machine.state().frozen.insert("/a".into());
        let unused = worker(&machine, Holding::Nothing);
        unused.thaw();
        assert_eq!(unused.thawed(soon()), Some(false));
        assert_eq!(machine.frozen(), ["/a"]);
    }

    #[test]
    fn what_is_frozen_already_is_thawed() {
        let machine = Fake::new(&[]);
        machine.state().frozen.insert("/a".into());
        let worker = worker(&machine, Holding::Frozen);
        worker.thaw();
        assert_eq!(worker.thawed(soon()), Some(true));
        assert_eq!(machine.frozen(), [""; 0]);
    }

    #[test]
    fn a_freeze_that_succeeds_after_it_was_given_up_is_undone() {
        let machine = Fake::new(&[("/a", Trouble::Hangs)]);
        let worker = worker(&machine, Holding::Nothing);
        worker.freeze();
        assert_eq!(worker.frozen(Instant::now() + Duration::from_millis(10)), None);
        worker.thaw();
        assert_eq!(worker.thawed(Instant::now()), None);
        assert_eq!(worker.pending().map(|(action, _)| action), Some(Action::Freeze));
        machine.go_on();
        assert_eq!(worker.thawed(soon()), Some(true));
        assert_eq!(worker.pending(), None);
        assert_eq!(machine.log(), ["freeze /a", "thaw /a"]);
    }
}
