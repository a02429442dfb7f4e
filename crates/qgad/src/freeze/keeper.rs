//! One file system and the thread that freezes and thaws it.
//!
//! The kernel may take for ever over either, and a thread inside it cannot be called back. So each file system has a thread
//! of its own, started before anything is frozen. Whoever gives up waiting orders the thaw all the same: a freeze that
//! succeeds late is undone by the thread that made it. A keeper lives once: a freeze or none, then a thaw or none: one that
//! is dropped leaves its file system as it is, because an agent that ends leaves the freeze to its guard.

use std::{
    fmt, io,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::target::{Operations, Target};

/// Stack of a keeper, which makes one system call at a time. All of it is in memory while file systems are frozen.
const STACK_BYTES: usize = 64 * 1024;
/// How often a file system may have been frozen, and is thawed at most. The kernel lets users freeze it once.
const MAX_THAWS: u32 = 16;

/// How long one file system is waited for before the next one is thawed, too.
const THAW_STALL: Duration = Duration::from_secs(1);
/// How long those are waited for in the end that did not thaw at once.
const THAW_PATIENCE: Duration = Duration::from_secs(10);

/// A file system and its thread.
pub(crate) struct Keeper(Arc<Shared>);

struct Shared {
    target: Arc<Target>,
    operations: Arc<dyn Operations>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug)]
struct State {
    order: Order,
    frozen: Option<nix::Result<()>>,
    /// Whether it had been frozen, once it is thawed.
    thawed: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Wait,
    Freeze,
    Thaw,
    Leave,
}

/// What became of a thaw.
pub(super) struct Thawed {
    /// How many file systems had been frozen.
    pub(super) count: i64,
    /// Where those are known by that have not thawed yet.
    pub(super) stuck: Vec<String>,
}

impl Keeper {
    /// Starts the thread, which waits.
    pub(crate) fn start(target: Arc<Target>, operations: Arc<dyn Operations>) -> io::Result<Self> {
        let state = Mutex::new(State { order: Order::Wait, frozen: None, thawed: None });
        let shared = Arc::new(Shared { target, operations, state, changed: Condvar::new() });
        let keeper = Self(Arc::clone(&shared));
        thread::Builder::new().name("freeze".into()).stack_size(STACK_BYTES).spawn(move || shared.serve())?;
        Ok(keeper)
    }

    /// The place its file system is known by.
    pub(crate) fn place(&self) -> &Path {
        &self.0.target.place
    }

    /// Its file system.
    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.0.target
    }

    /// Orders the freeze.
    pub(crate) fn freeze(&self) {
        self.0.order(Order::Freeze);
    }

    /// Orders the thaw. What turned out to be frozen by somebody else is left so.
    pub(crate) fn thaw(&self) {
        self.0.order(Order::Thaw);
    }

    /// Whether it was told to freeze, and the kernel has not returned from that.
    pub(crate) fn is_freezing(&self) -> bool {
        let state = self.0.state();
        state.order == Order::Freeze && state.frozen.is_none()
    }

    /// How the freeze went, if it has returned by then.
    pub(crate) fn frozen(&self, until: Instant) -> Option<nix::Result<()>> {
        self.0.wait(until, |state| state.frozen)
    }

    /// Whether the file system had been frozen, if it is thawed by then.
    pub(crate) fn thawed(&self, until: Instant) -> Option<bool> {
        self.0.wait(until, |state| state.thawed)
    }

    /// Waits for the thaw as long as it takes.
    pub(crate) fn thawed_at_last(&self) -> bool {
        let state = self.0.state();
        let state = self.0.changed.wait_while(state, |state| state.thawed.is_none());
        state.unwrap_or_else(PoisonError::into_inner).thawed.unwrap_or_default()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.change(|state| {
            if state.order != Order::Thaw {
                state.order = Order::Leave;
            }
        });
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Keeper").field(&self.place()).finish()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, order: Order) {
        self.change(|state| state.order = order);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    fn wait<T: Copy>(&self, until: Instant, wanted: impl Fn(&State) -> Option<T>) -> Option<T> {
        let patience = until.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.state(), patience, |state| wanted(state).is_none());
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        wanted(&state)
    }

    fn next_order(&self, last: Order) -> Order {
        let state = self.changed.wait_while(self.state(), |state| state.order == last);
        state.unwrap_or_else(PoisonError::into_inner).order
    }

    fn serve(&self) {
        let mut is_ours = true;
        let mut order = self.next_order(Order::Wait);
        if order == Order::Freeze {
            let frozen = self.operations.freeze(&self.target);
            is_ours = frozen.is_ok();
            self.change(|state| state.frozen = Some(frozen));
            order = self.next_order(Order::Freeze);
        }
        if order == Order::Leave {
            return;
        }
        let thawed = is_ours && thaw(&*self.operations, &self.target);
        self.change(|state| state.thawed = Some(thawed));
    }
}

/// Thaws what was frozen last first. One that does not answer delays the others by a moment only, and one that has not even
/// been frozen yet by none.
pub(super) fn thaw_each(keepers: &[Keeper]) -> Thawed {
    let mut hopeful = Vec::new();
    let mut thawed = Thawed { count: 0, stuck: Vec::new() };
    let place = |keeper: &Keeper| keeper.place().display().to_string();
    for keeper in keepers.iter().rev() {
        let is_freezing = keeper.is_freezing();
        keeper.thaw();
        if is_freezing {
            thawed.stuck.push(place(keeper));
        } else {
            let _ = keeper.thawed(Instant::now() + THAW_STALL);
            hopeful.push(keeper);
        }
    }
    let end = Instant::now() + THAW_PATIENCE;
    for keeper in hopeful {
        match keeper.thawed(end) {
            Some(was_frozen) => thawed.count += i64::from(was_frozen),
            None => thawed.stuck.push(place(keeper)),
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

    fn keeper(machine: &Arc<Fake>, place: &str) -> Keeper {
        Keeper::start(Arc::new(target(place)), Arc::clone(machine) as _).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + PATIENCE
    }

    #[test]
    fn it_freezes_and_thaws_once_each() {
        let machine = Fake::new(&[]);
        let keeper = keeper(&machine, "/a");
        keeper.freeze();
        assert_eq!(keeper.frozen(soon()), Some(Ok(())));
        assert_eq!(machine.frozen(), ["/a"]);
        keeper.thaw();
        assert_eq!(keeper.thawed(soon()), Some(true));
        assert_eq!(machine.log(), ["freeze /a", "thaw /a"]);
    }

    #[test]
    fn what_somebody_else_froze_is_left_so() {
        let machine = Fake::new(&[("/a", Trouble::Fails(Errno::EBUSY))]);
        let keeper = keeper(&machine, "/a");
        keeper.freeze();
        assert_eq!(keeper.frozen(soon()), Some(Err(Errno::EBUSY)));
        keeper.thaw();
        assert_eq!(keeper.thawed(soon()), Some(false));
        assert_eq!(machine.log(), ["freeze /a"]);
    }

    #[test]
    fn a_freeze_that_succeeds_after_it_was_given_up_is_undone() {
        let machine = Fake::new(&[("/a", Trouble::Hangs)]);
        let keeper = keeper(&machine, "/a");
        keeper.freeze();
        assert_eq!(keeper.frozen(Instant::now() + Duration::from_millis(10)), None);
        keeper.thaw();
        assert_eq!(keeper.thawed(Instant::now()), None);
        machine.go_on();
        assert!(keeper.thawed_at_last());
        assert_eq!(machine.log(), ["freeze /a", "thaw /a"]);
    }

    #[test]
    fn a_keeper_that_is_dropped_leaves_its_file_system_as_it_is() {
        let machine = Fake::new(&[]);
        let keeper = keeper(&machine, "/a");
        keeper.freeze();
        keeper.frozen(soon()).unwrap().unwrap();
        let shared = Arc::downgrade(&keeper.0);
        drop(keeper);
        machine.wait_for(|_| shared.strong_count() == 0);
        assert_eq!(machine.frozen(), ["/a"]);
    }
}
