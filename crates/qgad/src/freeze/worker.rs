//! One file system, and the thread that freezes and thaws it.
//!
//! The kernel may never return from either, and a thread inside it cannot be cancelled. So each file system has a
//! thread of its own, started before anything is frozen: a bounded call would have to start its thread then. A caller
//! that stops waiting orders the thaw all the same, so that the thread undoes a freeze that succeeds late. Orders run
//! one after the other: at most one freeze, then any number of thaws. A worker that is dropped leaves its file system
//! as its last order has it, because an agent that ends leaves the freeze to its guard. Giving an order allocates
//! nothing, so that a guard can always do it.

use std::{
    fmt, io,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use super::target::{Operations, Target};
use crate::util::threads;

/// Stack of a worker, which makes one system call at a time. All of it is in memory while file systems are frozen.
const STACK_BYTES: usize = 64 * 1024;
/// How often a file system may have been frozen, and is thawed at most. The kernel lets users freeze it once.
const MAX_THAWS: u32 = 16;
/// Orders that wait for the thread: a freeze, a thaw, and another one after that. A further thaw would find nothing to
/// do.
const MAX_ORDERS: usize = 3;

/// How long one file system is waited for before the next one is thawed, too.
const THAW_STALL: Duration = Duration::from_secs(1);
/// How long those are waited for in the end that did not thaw at once.
const THAW_TIMEOUT: Duration = Duration::from_secs(10);

/// A file system and its thread.
pub(crate) struct Worker {
    orders: SyncSender<Order>,
    shared: Arc<Shared>,
}

struct Shared {
    target: Arc<Target>,
    operations: Arc<dyn Operations>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether it was told to freeze, and the kernel has not returned from that.
    is_freezing: bool,
    frozen: Option<nix::Result<()>>,
    /// How many thaws were ordered and are not done.
    thaws: usize,
    /// Whether a thaw found it frozen.
    was_frozen: bool,
    /// What is to be done after the last thaw.
    then: Option<Box<dyn FnOnce() + Send>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Freeze,
    Thaw,
}

/// The result of a thaw.
pub(super) struct Thawed {
    /// How many file systems had been frozen.
    pub(super) count: i64,
    /// Where those are known by that have not thawed yet.
    pub(super) stuck: Vec<String>,
}

impl Worker {
    /// Starts the thread, which waits.
    pub(crate) fn start(target: Arc<Target>, operations: Arc<dyn Operations>) -> io::Result<Self> {
        let shared = Arc::new(Shared { target, operations, state: Mutex::default(), changed: Condvar::new() });
        let (orders, receiver) = sync_channel(MAX_ORDERS);
        let worker = Self { orders, shared: Arc::clone(&shared) };
        threads::start("freeze", STACK_BYTES, move || shared.serve(&receiver))?;
        Ok(worker)
    }

    /// The place its file system is known by.
    pub(crate) fn mount_point(&self) -> &Path {
        &self.shared.target.mount_point
    }

    /// Its file system.
    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.shared.target
    }

    /// Orders the freeze.
    pub(crate) fn freeze(&self) {
        let mut state = self.shared.state();
        state.is_freezing = self.orders.try_send(Order::Freeze).is_ok();
    }

    /// Orders a thaw. What turned out to be frozen by somebody else is left so.
    pub(crate) fn thaw(&self) {
        let mut state = self.shared.state();
        // Where there is no room, thaws wait that have not begun.
        state.thaws += usize::from(self.orders.try_send(Order::Thaw).is_ok());
    }

    /// Whether it was told to freeze, and the kernel has not returned from that.
    pub(crate) fn is_freezing(&self) -> bool {
        self.shared.state().is_freezing
    }

    /// How the freeze went, if it has returned by then.
    pub(crate) fn frozen(&self, deadline: Instant) -> Option<nix::Result<()>> {
        self.shared.wait(deadline, |state| state.frozen)
    }

    /// Whether the file system had been frozen, if all thaws that were ordered are done by then.
    pub(crate) fn thawed(&self, deadline: Instant) -> Option<bool> {
        self.shared.wait(deadline, State::thawed)
    }

    /// Waits for the thaws that were ordered as long as it takes.
    pub(crate) fn thawed_at_last(&self) -> bool {
        let state = self.shared.changed.wait_while(self.shared.state(), |state| state.thaws > 0);
        state.unwrap_or_else(PoisonError::into_inner).was_frozen
    }

    /// Does something once the thaws that were ordered are done: now, or on the thread that does them.
    pub(crate) fn when_thawed(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state();
        if state.thaws == 0 {
            drop(state);
            job();
        } else {
            state.then = Some(Box::new(job));
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Worker").field(&self.mount_point()).finish()
    }
}

impl State {
    fn thawed(&self) -> Option<bool> {
        (self.thaws == 0).then_some(self.was_frozen)
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

    fn serve(&self, orders: &Receiver<Order>) {
        let mut is_ours = true;
        for order in orders {
            match order {
                Order::Freeze => {
                    let frozen = self.operations.freeze(&self.target);
                    is_ours = frozen.is_ok();
                    let mut state = self.state();
                    state.is_freezing = false;
                    state.frozen = Some(frozen);
                }
                Order::Thaw => {
                    let was_frozen = is_ours && thaw(&*self.operations, &self.target);
                    let mut state = self.state();
                    state.thaws -= 1;
                    state.was_frozen |= was_frozen;
                    let then = if state.thaws == 0 { state.then.take() } else { None };
                    drop(state);
                    self.changed.notify_all();
                    then.into_iter().for_each(|then| then());
                }
            }
            self.changed.notify_all();
        }
    }
}

/// Thaws what was frozen last first. One that does not answer delays the others by a moment only, and one that has not
/// even been frozen yet by none.
pub(super) fn thaw_each(workers: &[Worker]) -> Thawed {
    let mut hopeful = Vec::new();
    let mut thawed = Thawed { count: 0, stuck: Vec::new() };
    let mount_point = |worker: &Worker| worker.mount_point().display().to_string();
    for worker in workers.iter().rev() {
        let is_freezing = worker.is_freezing();
        worker.thaw();
        if is_freezing {
            thawed.stuck.push(mount_point(worker));
        } else {
            let _ = worker.thawed(Instant::now() + THAW_STALL);
            hopeful.push(worker);
        }
    }
    let end = Instant::now() + THAW_TIMEOUT;
    for worker in hopeful {
        match worker.thawed(end) {
            Some(was_frozen) => thawed.count += i64::from(was_frozen),
            None => thawed.stuck.push(mount_point(worker)),
        }
    }
    thawed
}

/// Thaws a file system until it says that it is thawed, and tells whether it was frozen.
fn thaw(operations: &dyn Operations, target: &Target) -> bool {
    (0..MAX_THAWS).take_while(|_| operations.thaw(target).is_ok()).count() > 0
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::{super::tests::*, *};

    fn worker(machine: &Arc<Fake>, mount_point: &str) -> Worker {
        Worker::start(Arc::new(target(mount_point)), Arc::clone(machine) as _).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + TIMEOUT
    }

    #[test]
    fn it_freezes_and_thaws_once_each() {
        let machine = Fake::new(&[]);
        let worker = worker(&machine, "/a");
        worker.freeze();
        assert_eq!(worker.frozen(soon()), Some(Ok(())));
        assert_eq!(machine.frozen(), ["/a"]);
        worker.thaw();
        assert_eq!(worker.thawed(soon()), Some(true));
        assert_eq!(machine.log(), ["freeze /a", "thaw /a"]);
    }

    #[test]
    fn what_somebody_else_froze_is_left_so() {
        let machine = Fake::new(&[("/a", Trouble::Fails(Errno::EBUSY))]);
        let worker = worker(&machine, "/a");
        worker.freeze();
        assert_eq!(worker.frozen(soon()), Some(Err(Errno::EBUSY)));
        worker.thaw();
        assert_eq!(worker.thawed(soon()), Some(false));
        assert_eq!(machine.log(), ["freeze /a"]);
    }

    #[test]
    fn a_freeze_that_succeeds_after_it_was_given_up_is_undone() {
        let machine = Fake::new(&[("/a", Trouble::Hangs)]);
        let worker = worker(&machine, "/a");
        worker.freeze();
        assert_eq!(worker.frozen(Instant::now() + Duration::from_millis(10)), None);
        worker.thaw();
        assert_eq!(worker.thawed(Instant::now()), None);
        let noting = Arc::clone(&machine);
        worker.when_thawed(move || noting.note("then".into()));
        machine.go_on();
        assert!(worker.thawed_at_last());
        machine.wait_for(|machine| machine.log() == ["freeze /a", "thaw /a", "then"]);
        let noting = Arc::clone(&machine);
        worker.when_thawed(move || noting.note("at once".into()));
        assert_eq!(machine.log().last().unwrap(), "at once");
    }

    #[test]
    fn what_was_frozen_after_a_thaw_is_thawed_by_another_one() {
        let machine = Fake::new(&[]);
        let worker = worker(&machine, "/a");
        worker.thaw();
        assert_eq!(worker.thawed(soon()), Some(false));
        // By the thread of an agent that is gone by now.
        machine.freeze(worker.target()).unwrap();
        worker.thaw();
        assert_eq!(worker.thawed(soon()), Some(true));
        assert_eq!(machine.frozen(), [""; 0]);
    }

    #[test]
    fn a_worker_that_is_dropped_leaves_its_file_system_as_it_is() {
        let machine = Fake::new(&[]);
        let worker = worker(&machine, "/a");
        worker.freeze();
        worker.frozen(soon()).unwrap().unwrap();
        let shared = Arc::downgrade(&worker.shared);
        drop(worker);
        machine.wait_for(|_| shared.strong_count() == 0);
        assert_eq!(machine.frozen(), ["/a"]);
    }
}
