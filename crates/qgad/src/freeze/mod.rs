//! Freezing that cannot strand a guest.
//!
//! | stage | what it means | how it is left |
//! |---|---|---|
//! | thawed | writers write | a host's freeze: **freezing** |
//! | freezing | the hook runs, then one file system after the other is frozen | all done: **frozen**; none, a failure, the time limit, a thaw, the guard's end: **thawing** |
//! | frozen | writers wait; only what a freeze needs is served | a thaw, or the guard ended it: **thawing** |
//! | thawing | the last frozen is thawed first, the guard leaves, the hook runs | always: **thawed** |
//!
//! An agent that finds the marker of another one begins frozen. Each file system has a thread of its own (`keeper`), so that
//! nothing waits for ever for one that does not answer. Before the first one is frozen a second process holds all of them
//! (`guard`) and thaws them when the lease ends or no agent is left; who then asks for the thaw is told so, once.
//! While writers wait the agent writes nothing to any disk and its memory is locked; what it would log is kept in memory.
//! The thaw hook runs after every attempt, whatever became of it.

mod errand;
mod guard;
mod hooks;
mod keeper;
mod machine;
mod marker;
mod parts;
mod plan;
mod target;

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use nix::errno::Errno;
use qga::wire::message::Error;

#[cfg(test)]
pub(crate) use self::guard::GRACE as GUARD_GRACE;
pub(crate) use self::{
    errand::Errand,
    guard::{OPTION as GUARD_OPTION, run as run_guard},
    hooks::Hooks,
    machine::RealMachine,
    marker::Marker,
    plan::Exclude,
};
use self::{
    keeper::{Keeper, Thawed, thaw_each},
    parts::{Action, Claim, Guard, GuardEnd, Lease, Machine, OnEnd},
    target::{Operations, Target},
};
use crate::{errno, policy::Refusal};

/// How often somebody who waits for a freeze looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);
/// Longest attempt to freeze, hooks included: it must end before the command's own deadline, past which a host would not
/// learn that its guest is frozen.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(90 * 60);
/// How long looking for file systems may take, for a thaw.
const FIND_PATIENCE: Duration = Duration::from_secs(10);

/// The administrator's limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long all file systems together may take to freeze.
    pub(crate) timeout: Duration,
    /// How long a freeze may last if the host does not say.
    pub(crate) lease: Lease,
}

/// The state machine.
#[derive(Clone)]
pub(crate) struct Freezer(Arc<Shared>);

struct Shared {
    machine: Box<dyn Machine>,
    marker: Marker,
    limits: Limits,
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    stage: Stage,
    /// Why the freeze that is under way is not wanted any more.
    cancelled: Option<String>,
    /// Which freeze this is, so that the end of an old guard is not taken for that of a new one.
    freeze: u64,
    /// What did not thaw when it was told to.
    leftovers: Option<Held>,
    put_off: Vec<PutOff>,
}

type PutOff = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
enum Stage {
    Thawed,
    Freezing,
    Frozen(Held),
    Thawing { are_writers_waiting: bool },
}

/// All that a freeze holds.
#[derive(Debug)]
struct Held {
    keepers: Vec<Keeper>,
    guard: Option<Box<dyn Guard>>,
    lease: Lease,
    /// Since when the lease counts.
    since: Instant,
}

impl Held {
    fn remaining_lease(&self) -> Lease {
        self.lease.map(|lease| lease.saturating_sub(self.since.elapsed()))
    }
}

impl Freezer {
    /// A freezer, of a guest that is thawed unless there is a marker; then [`Self::recover`] must follow.
    pub(crate) fn new(machine: Box<dyn Machine>, marker: Marker, limits: Limits) -> Self {
        let stage = if marker.is_set() { Stage::Freezing } else { Stage::Thawed };
        if matches!(stage, Stage::Freezing) {
            machine.hold_still();
        }
        let inner = Inner { stage, cancelled: None, freeze: 0, leftovers: None, put_off: Vec::new() };
        Self(Arc::new(Shared { machine, marker, limits, inner: Mutex::new(inner), changed: Condvar::new() }))
    }

    /// Whether commands are refused because file systems are frozen, or about to be.
    pub(crate) fn refuses_commands(&self) -> bool {
        !matches!(self.0.inner().stage, Stage::Thawed | Stage::Thawing { are_writers_waiting: false })
    }

    /// Whether everything that was to be frozen is.
    pub(crate) fn is_frozen(&self) -> bool {
        matches!(self.0.inner().stage, Stage::Frozen(_) | Stage::Thawing { are_writers_waiting: true })
    }

    /// Does something that writes to a disk: now, or once that does not wait for ever.
    pub(crate) fn when_thawed(&self, job: impl FnOnce() + Send + 'static) {
        let mut inner = self.0.inner();
        if matches!(inner.stage, Stage::Thawed) {
            drop(inner);
            job();
        } else {
            inner.put_off.push(Box::new(job));
        }
    }

    /// Takes over a freeze that another agent left behind, if there is one.
    pub(crate) fn recover(&self) {
        self.0.recover();
    }

    /// Freezes the named file systems, or all, and returns how many. None is no freeze. A refusal names the command.
    pub(crate) fn freeze(&self, command: &str, named: Option<&[String]>, lease: Lease) -> Result<i64, Error> {
        self.0.refuse_leftovers()?;
        self.0.begin(command)?;
        let last = Instant::now() + LONGEST_ATTEMPT;
        if let Err(error) = self.0.machine.run_hook(Action::Freeze) {
            self.0.become_thawed();
            return Err(error);
        }
        let attempt = self.0.attempt(named, lease.or(self.0.limits.lease), last);
        let (outcome, held) = match attempt {
            Ok((count, held)) => (Ok(count), held),
            Err(error) => (Err(error), None),
        };
        if let Some(held) = held {
            match self.0.settle(held) {
                Ok(()) => {
                    log::info!("file systems are frozen");
                    return outcome;
                }
                Err((held, reason)) => {
                    self.0.release(held);
                    self.0.end_without_asking();
                    return Err(Error::generic(format!("nothing is frozen: {reason}")));
                }
            }
        }
        if let Err(error) = &outcome {
            log::warn!("nothing is frozen: {}", error.desc);
        }
        self.0.end_without_asking();
        outcome
    }

    /// Thaws everything, whoever froze it, and returns how many file systems had been frozen.
    pub(crate) fn thaw(&self) -> Result<i64, Error> {
        let held = self.0.begin_thaw();
        let ours = held.map(|held| self.0.release(held));
        let others = self.0.thaw_others();
        let note = self.0.marker.take_note();
        let hook = self.0.end(ours.is_some());
        let Thawed { count, stuck } = ours.unwrap_or(Thawed { count: 0, stuck: Vec::new() });
        log::info!("file systems are thawed");
        if let Some(note) = note {
            return Err(Error::generic(format!("{note}: what was copied since then may be inconsistent")));
        }
        if !stuck.is_empty() {
            let places = stuck.join(", ");
            return Err(Error::generic(format!(
                "failed to thaw {places}: no answer yet, it is thawed as soon as it can be"
            )));
        }
        hook.map(|()| count + others)
    }
}

impl fmt::Debug for Freezer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Freezer").field(&self.0.inner().stage).finish()
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, condition: impl FnMut(&mut Inner) -> bool) -> MutexGuard<'_, Inner> {
        self.changed.wait_while(self.inner(), condition).unwrap_or_else(PoisonError::into_inner)
    }

    /// Thawed to freezing.
    fn begin(&self, command: &str) -> Result<(), Error> {
        let mut inner = self.wait_while(|inner| matches!(inner.stage, Stage::Thawing { .. }));
        if !matches!(inner.stage, Stage::Thawed) {
            return Err(Refusal::Frozen.explain(command));
        }
        inner.stage = Stage::Freezing;
        inner.cancelled = None;
        inner.freeze += 1;
        Ok(())
    }

    /// Freezes. Nothing is held if nothing could be frozen.
    fn attempt(
        self: &Arc<Self>,
        named: Option<&[String]>,
        lease: Lease,
        last: Instant,
    ) -> Result<(i64, Option<Held>), Error> {
        self.marker.forget_note();
        let until = last.min(Instant::now() + self.limits.timeout);
        let targets: Vec<_> = self.machine.find(named, until)?.into_iter().map(Arc::new).collect();
        if targets.is_empty() {
            return Ok((0, None));
        }
        self.marker.set().map_err(Error::generic)?;
        self.machine.hold_still();
        let held = self.hold(targets, lease)?;
        match self.freeze_each(&held.keepers, until) {
            Ok(count @ 1..) => Ok((count, Some(held))),
            other => {
                self.release(held);
                other.map(|_| (0, None))
            }
        }
    }

    /// A guard and a keeper for each, before anything is frozen.
    fn hold(self: &Arc<Self>, targets: Vec<Arc<Target>>, lease: Lease) -> Result<Held, Error> {
        let guard = self.machine.start_guard(&targets, lease, self.on_end())?;
        match self.keepers(targets) {
            Ok(keepers) => Ok(Held { keepers, guard: Some(guard), lease, since: Instant::now() }),
            Err(error) => {
                guard.end(false);
                Err(error)
            }
        }
    }

    fn keepers(&self, targets: Vec<Arc<Target>>) -> Result<Vec<Keeper>, Error> {
        let start = |target| Keeper::start(target, self.machine.operations());
        let keepers: Result<_, _> = targets.into_iter().map(start).collect();
        keepers.map_err(|error| Error::generic(format!("failed to start a thread: {}", errno::words(error))))
    }

    /// Freezes one after the other, and counts those that were not frozen before.
    fn freeze_each(&self, keepers: &[Keeper], until: Instant) -> Result<i64, Error> {
        let mut count = 0;
        for keeper in keepers {
            let failed =
                |reason: String| Error::generic(format!("failed to freeze {}: {reason}", keeper.place().display()));
            keeper.freeze();
            let frozen = loop {
                let now = Instant::now();
                if let Some(frozen) = keeper.frozen(until.min(now + LOOK)) {
                    break frozen;
                }
                if let Some(reason) = &self.inner().cancelled {
                    return Err(failed(reason.clone()));
                }
                if now >= until {
                    return Err(failed(format!("timed out after {} s", self.limits.timeout.as_secs_f64())));
                }
            };
            match frozen {
                Ok(()) => count += 1,
                Err(error @ (Errno::EOPNOTSUPP | Errno::EBUSY)) => {
                    log::debug!("{} was not frozen: {}", keeper.place().display(), errno::words(error));
                }
                Err(error) => return Err(failed(errno::words(error))),
            }
        }
        Ok(count)
    }

    /// Freezing to frozen, unless that is not wanted any more.
    fn settle(&self, mut held: Held) -> Result<(), (Held, String)> {
        // Before the lock is taken, which decides on every command: telling the guard may wait.
        if let Some(guard) = &held.guard {
            guard.complete();
        }
        let mut inner = self.inner();
        if let Some(reason) = inner.cancelled.take() {
            return Err((held, reason));
        }
        held.since = Instant::now();
        inner.stage = Stage::Frozen(held);
        self.changed.notify_all();
        Ok(())
    }

    /// Frozen to thawing. A freeze that is under way is given up first.
    fn begin_thaw(&self) -> Option<Held> {
        let mut inner = self.inner();
        if matches!(inner.stage, Stage::Freezing) {
            inner.cancelled = Some("a thaw was asked for".into());
        }
        drop(inner);
        let mut inner = self.wait_while(|inner| matches!(inner.stage, Stage::Freezing | Stage::Thawing { .. }));
        let are_writers_waiting = matches!(inner.stage, Stage::Frozen(_));
        match std::mem::replace(&mut inner.stage, Stage::Thawing { are_writers_waiting }) {
            Stage::Frozen(held) => Some(held),
            _ => None,
        }
    }

    /// Thaws what is held, last frozen first, and lets the guard leave.
    fn release(&self, held: Held) -> Thawed {
        let thawed = thaw_each(&held.keepers);
        let is_stuck = !thawed.stuck.is_empty();
        if let Some(guard) = &held.guard {
            guard.end(is_stuck);
        }
        if is_stuck {
            log::error!("failed to thaw {}: no answer", thawed.stuck.join(", "));
            self.inner().leftovers = Some(held);
        }
        thawed
    }

    /// Thaws what others froze.
    fn thaw_others(&self) -> i64 {
        if self.refuse_leftovers().is_err() {
            return 0;
        }
        let found = self.machine.find_all(Instant::now() + FIND_PATIENCE);
        let keepers = found.and_then(|targets| self.keepers(targets.into_iter().map(Arc::new).collect()));
        let keepers = keepers.unwrap_or_else(|error| {
            log::error!("failed to look for other frozen file systems: {}", error.desc);
            Vec::new()
        });
        let thawed = thaw_each(&keepers);
        if !thawed.stuck.is_empty() {
            self.inner().leftovers = Some(Held { keepers, guard: None, lease: None, since: Instant::now() });
        }
        thawed.count
    }

    /// A file system that was given up must be done with before it is frozen again, or it would be thawed too early.
    fn refuse_leftovers(&self) -> Result<(), Error> {
        let mut inner = self.inner();
        if let Some(held) = &inner.leftovers {
            let now = Instant::now();
            let stuck: Vec<_> = held.keepers.iter().filter(|keeper| keeper.thawed(now).is_none()).collect();
            let is_guard_there = held.guard.as_ref().is_some_and(|guard| !guard.is_gone());
            if let Some(keeper) = stuck.first() {
                let place = keeper.place().display();
                return Err(Error::generic(format!("{place} does not answer since an earlier freeze or thaw")));
            }
            if is_guard_there {
                return Err(Error::generic("the guard of an earlier freeze has not left yet"));
            }
        }
        inner.leftovers = None;
        Ok(())
    }

    /// Thawing to thawed. If writers were kept waiting, what was put off is done first; then the thaw hook runs.
    fn end(&self, were_writers_waiting: bool) -> Result<(), Error> {
        if were_writers_waiting {
            let put_off = std::mem::take(&mut self.inner().put_off);
            put_off.into_iter().for_each(|job| job());
            self.machine.move_again();
            self.marker.clear();
            marker::remove(&self.marker.socket());
            self.inner().stage = Stage::Thawing { are_writers_waiting: false };
        }
        let hook = self.machine.run_hook(Action::Thaw);
        self.become_thawed();
        hook
    }

    fn become_thawed(&self) {
        let mut inner = self.inner();
        inner.stage = Stage::Thawed;
        inner.cancelled = None;
        let put_off = std::mem::take(&mut inner.put_off);
        drop(inner);
        self.changed.notify_all();
        put_off.into_iter().for_each(|job| job());
    }

    fn recover(self: &Arc<Self>) {
        if !matches!(self.inner().stage, Stage::Freezing) {
            return;
        }
        let held = match self.take_over() {
            Ok(Some(held)) => held,
            // Its guard has just thawed everything, and run the hook.
            Ok(None) => {
                self.machine.move_again();
                return self.become_thawed();
            }
            Err(error) => {
                log::error!("nobody but a host ends the freeze that an earlier agent left: {}", error.desc);
                Held { keepers: Vec::new(), guard: None, lease: None, since: Instant::now() }
            }
        };
        log::warn!("file systems are frozen since an earlier agent");
        if let Err((held, reason)) = self.settle(held) {
            log::warn!("the freeze of an earlier agent ends: {reason}");
            self.release(held);
            self.end_without_asking();
        }
    }

    /// The freeze of another agent: its guard's, or whatever is mounted now if there is no guard.
    fn take_over(self: &Arc<Self>) -> Result<Option<Held>, Error> {
        match self.machine.claim_guard(self.on_end())? {
            Some(Claim { guard, targets, lease }) => {
                let keepers = self.keepers(targets.into_iter().map(Arc::new).collect())?;
                Ok(Some(Held { keepers, guard: Some(guard), lease, since: Instant::now() }))
            }
            None if !self.marker.is_set() => Ok(None),
            None => {
                let targets = self.machine.find_all(Instant::now() + FIND_PATIENCE)?;
                self.hold(targets.into_iter().map(Arc::new).collect(), self.limits.lease).map(Some)
            }
        }
    }

    fn on_end(self: &Arc<Self>) -> OnEnd {
        let shared: Weak<Self> = Arc::downgrade(self);
        let freeze = self.inner().freeze;
        Box::new(move |how| {
            if let Some(shared) = shared.upgrade() {
                shared.guard_ended(freeze, how);
            }
        })
    }

    fn guard_ended(self: &Arc<Self>, freeze: u64, how: GuardEnd) {
        let mut inner = self.inner();
        if inner.freeze != freeze {
            return;
        }
        match (&mut inner.stage, how) {
            (Stage::Freezing, _) => inner.cancelled = Some("its guard ended too early".into()),
            (Stage::Frozen(held), GuardEnd::Lost) => {
                held.guard = None;
                let targets: Vec<_> = held.keepers.iter().map(|keeper| Arc::clone(keeper.target())).collect();
                let lease = held.remaining_lease();
                drop(inner);
                self.replace_guard(freeze, &targets, lease);
            }
            (Stage::Frozen(_), GuardEnd::Thawed) => {
                drop(inner);
                self.end_by_itself(freeze, None);
            }
            _ => {}
        }
    }

    /// The guard was killed. Another one takes its place, or the freeze ends.
    fn replace_guard(self: &Arc<Self>, freeze: u64, targets: &[Arc<Target>], lease: Lease) {
        log::warn!("the guard of the freeze was killed and is replaced");
        match self.machine.start_guard(targets, lease, self.on_end()) {
            Ok(guard) => {
                guard.complete();
                let mut inner = self.inner();
                let is_same = inner.freeze == freeze;
                match &mut inner.stage {
                    Stage::Frozen(held) if is_same => held.guard = Some(guard),
                    _ => {
                        drop(inner);
                        guard.end(false);
                    }
                }
            }
            Err(error) => {
                log::error!("the freeze ends, because nobody would guard it: {}", error.desc);
                let reason = "the freeze ended by itself because its guard was killed and could not be replaced";
                self.end_by_itself(freeze, Some(reason));
            }
        }
    }

    /// Frozen to thawed without a host. The guard has left a note, unless there is none to leave it.
    fn end_by_itself(&self, freeze: u64, note: Option<&str>) {
        let mut inner = self.inner();
        if inner.freeze != freeze || !matches!(inner.stage, Stage::Frozen(_)) {
            return;
        }
        let stage = std::mem::replace(&mut inner.stage, Stage::Thawing { are_writers_waiting: true });
        drop(inner);
        if let Stage::Frozen(held) = stage {
            self.release(held);
        }
        if let Some(Err(error)) = note.map(|note| self.marker.note(note)) {
            log::error!("{error}");
        }
        log::warn!("the freeze has ended by itself; the next thaw says why");
        self.end_without_asking();
    }

    /// A failure of the hook is in the log; there is nobody else to tell.
    fn end_without_asking(&self) {
        let _ = self.end(true);
    }
}

#[cfg(test)]
pub(crate) mod tests;
