//! Freezing that cannot strand a guest.
//!
//! A freeze goes through the stages thawed, freezing, frozen, thawing, or begins with taking over the freeze of an
//! earlier agent; [`stage`] has every step. The freeze hook runs first. Then one file system after the other is frozen.
//! On the first failure, at the timeout, or when a thaw is asked for, everything is thawed again.
//!
//! Each file system has a thread of its own ([`worker`]), so that one that does not answer delays no other. One that
//! does not thaw when it is told to becomes a leftover ([`leftovers`]): its worker and the guard stay until it has
//! thawed, and nothing is frozen before that.
//!
//! Before the first file system is frozen, a second process holds all of them ([`guard`]). It thaws them when the lease
//! ends, or when the agent is gone and no new one comes. The next thaw reports that once, as an error.
//!
//! While file systems are frozen, or there are leftovers, the agent writes to no disk and locks its memory. It holds
//! its log in memory, and defers other work ([`deferred`]).
//!
//! The thaw hook runs after every attempt, successful or not. A note tells the next agent if this one ends before that.
//! [`takeover`] has what happens to a freeze without a request of a host.

mod bounded_call;
mod deferred;
mod guard;
mod hidden;
mod hooks;
mod leftovers;
mod machine;
mod marker;
mod parts;
mod plan;
mod stage;
mod takeover;
mod target;
mod worker;

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::errno::Errno;
use qga::wire::message::Error;

#[cfg(test)]
pub(crate) use self::guard::GRACE as GUARD_GRACE;
pub(crate) use self::{
    bounded_call::BoundedCall,
    guard::{OPTION as GUARD_OPTION, run as run_guard},
    hooks::Hooks,
    machine::RealMachine,
    marker::Marker,
    plan::Exclude,
};
use self::{
    deferred::DeferredJobs,
    leftovers::Leftovers,
    parts::{Action, Claim, Guard, GuardEnd, Lease, Machine, OnEnd, TakeoverSocket},
    stage::Stage,
    target::{Operations, Target},
    worker::{Thawed, Worker, thaw_each},
};
use crate::util::errno;

/// How often a freeze that waits for a file system checks whether it was cancelled.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Longest attempt to freeze, hooks included: it must end before the command's own timeout, after which a host would
/// not learn that its guest is frozen.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(90 * 60);
/// How long looking for file systems may take, for a thaw.
const FIND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the guard of an earlier freeze has to leave before the next one is refused. It takes milliseconds.
const GUARD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long removing a file may take: as long as a busy disk, not as one that is still frozen.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(10);

/// The administrator's limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long all file systems together may take to freeze.
    pub(crate) timeout: Duration,
    /// How long a freeze may last if the host does not say.
    pub(crate) lease: Lease,
}

/// Why a command is refused while file systems are frozen. Hosts match it.
pub(crate) const FROZEN_REASON: &str = "the agent is in frozen state";

/// The error for a command that is refused because file systems have been frozen for this long.
pub(crate) fn refusal(command: &str, frozen_for: Duration) -> Error {
    Error::disabled(command, format_args!("{FROZEN_REASON} (for {} s)", frozen_for.as_secs()))
}

/// The state machine.
#[derive(Clone)]
pub(crate) struct Freezer(Arc<Shared>);

struct Shared {
    machine: Box<dyn Machine>,
    marker: Marker,
    /// Removing files from the state directory, which may be on what does not thaw.
    removal: BoundedCall,
    limits: Limits,
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    stage: Stage<Held>,
    /// What did not thaw when it was told to, or a guard that may not have left yet.
    leftovers: Option<Leftovers>,
    deferred: DeferredJobs,
}

/// All that a freeze holds.
#[derive(Debug)]
struct Held {
    workers: Vec<Worker>,
    guard: Option<Arc<dyn Guard>>,
    lease: Lease,
    /// Since when the lease counts.
    since: Instant,
}

impl Held {
    /// What nobody guards.
    fn unguarded(workers: Vec<Worker>) -> Self {
        Self { workers, guard: None, lease: None, since: Instant::now() }
    }

    fn remaining_lease(&self) -> Lease {
        self.lease.map(|lease| lease.saturating_sub(self.since.elapsed()))
    }
}

impl Freezer {
    /// A freezer, of a guest that is thawed unless there is a marker; then [`Self::recover`] must follow.
    pub(crate) fn new(machine: Box<dyn Machine>, marker: Marker, limits: Limits) -> Self {
        let stage = match marker.is_set() {
            true => {
                machine.quiesce();
                Stage::taking_over(marker.age())
            }
            false => Stage::thawed(),
        };
        let inner = Inner { stage, leftovers: None, deferred: DeferredJobs::default() };
        Self(Arc::new(Shared {
            machine,
            marker,
            removal: BoundedCall::default(),
            limits,
            inner: Mutex::new(inner),
            changed: Condvar::new(),
        }))
    }

    /// Whether commands are refused because file systems are frozen, or about to be.
    pub(crate) fn refuses_commands(&self) -> bool {
        self.frozen_for().is_some()
    }

    /// For how long commands have been refused because of that.
    pub(crate) fn frozen_for(&self) -> Option<Duration> {
        self.0.inner().stage.frozen_for()
    }

    /// Whether everything that was to be frozen is.
    pub(crate) fn is_frozen(&self) -> bool {
        self.0.inner().stage.is_frozen()
    }

    /// Runs a job that writes to a disk: now, or once nothing is frozen.
    pub(crate) fn when_thawed(&self, job: impl FnOnce() + Send + 'static) {
        let mut inner = self.0.inner();
        if inner.stage.is_thawed() && !inner.is_anything_stuck() {
            drop(inner);
            job();
        } else {
            inner.deferred.add(job);
        }
    }

    /// Takes over what another agent left behind, a freeze or hooks that are to be run, without being waited for.
    pub(crate) fn recover(&self) {
        self.0.recover();
    }

    /// Freezes the named file systems, or all, and returns how many. None is no freeze. A refusal names the command.
    pub(crate) fn freeze(&self, command: &str, named: Option<&[String]>, lease: Lease) -> Result<i64, Error> {
        self.0.begin(command)?;
        let last = Instant::now() + LONGEST_ATTEMPT;
        if let Err(error) = self.0.make_ready() {
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

    /// Thaws all file systems, also those that others froze, and returns how many were frozen.
    pub(crate) fn thaw(&self) -> Result<i64, Error> {
        self.0.refuse_blind_thaw()?;
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
            let mount_points = stuck.join(", ");
            return Err(Error::generic(format!(
                "failed to thaw {mount_points}: no answer yet, it is thawed as soon as it can be"
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
        let mut inner = self.wait_while(|inner| inner.stage.is_thawing());
        inner.stage.begin_freeze().map_err(|frozen_for| refusal(command, frozen_for))
    }

    /// Runs the freeze hook, unless an earlier freeze is not done with. If it fails it has run the thaw hook itself.
    fn make_ready(&self) -> Result<(), Error> {
        self.refuse_leftovers()?;
        self.inner().leftovers = None;
        self.marker.set_thaw_hook_pending().map_err(Error::generic)?;
        self.machine.run_hook(Action::Freeze).inspect_err(|_| self.marker.clear_thaw_hook_pending())
    }

    /// Freezes. Nothing is held if nothing could be frozen.
    fn attempt(
        self: &Arc<Self>,
        named: Option<&[String]>,
        lease: Lease,
        last: Instant,
    ) -> Result<(i64, Option<Held>), Error> {
        self.marker.forget_note();
        let deadline = last.min(Instant::now() + self.limits.timeout);
        let targets: Vec<_> = self.machine.find(named, deadline)?.into_iter().map(Arc::new).collect();
        if targets.is_empty() {
            return Ok((0, None));
        }
        self.marker.set().map_err(Error::generic)?;
        self.machine.quiesce();
        let held = self.hold(targets, lease)?;
        match self.freeze_each(&held.workers, deadline) {
            Ok(count @ 1..) => Ok((count, Some(held))),
            other => {
                self.release(held);
                other.map(|_| (0, None))
            }
        }
    }

    /// A guard and a worker for each, before anything is frozen.
    fn hold(self: &Arc<Self>, targets: Vec<Arc<Target>>, lease: Lease) -> Result<Held, Error> {
        let guard = self.machine.start_guard(&targets, lease, None, self.on_end())?;
        match self.workers(targets) {
            Ok(workers) => Ok(Held { workers, guard: Some(guard), lease, since: Instant::now() }),
            Err(error) => {
                guard.leave();
                Err(error)
            }
        }
    }

    fn workers(&self, targets: Vec<Arc<Target>>) -> Result<Vec<Worker>, Error> {
        let start = |target| Worker::start(target, self.machine.operations());
        let workers: Result<_, _> = targets.into_iter().map(start).collect();
        workers.map_err(|error| Error::generic(format!("failed to start a thread: {}", errno::describe(error))))
    }

    /// Freezes one after the other, and counts those that were not frozen before.
    fn freeze_each(&self, workers: &[Worker], deadline: Instant) -> Result<i64, Error> {
        let mut count = 0;
        for worker in workers {
            let failed = |reason: String| {
                Error::generic(format!("failed to freeze {}: {reason}", worker.mount_point().display()))
            };
            worker.freeze();
            let frozen = loop {
                let now = Instant::now();
                if let Some(frozen) = worker.frozen(deadline.min(now + POLL_INTERVAL)) {
                    break frozen;
                }
                if let Some(reason) = self.inner().stage.cancelled() {
                    return Err(failed(reason.into()));
                }
                if now >= deadline {
                    return Err(failed(format!("timed out after {} s", self.limits.timeout.as_secs_f64())));
                }
            };
            match frozen {
                Ok(()) => count += 1,
                Err(error @ (Errno::EOPNOTSUPP | Errno::EBUSY)) => {
                    log::debug!("{} was not frozen: {}", worker.mount_point().display(), errno::describe(error));
                }
                Err(error) => return Err(failed(errno::describe(error))),
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
        held.since = Instant::now();
        self.inner().stage.settle(held)?;
        self.changed.notify_all();
        Ok(())
    }

    /// Where nothing is held of the freeze that was found, what is frozen must be found before it is said to be thawed.
    fn refuse_blind_thaw(&self) -> Result<(), Error> {
        let holds_nothing = {
            let stage = &mut self.inner().stage;
            let number = stage.number();
            stage.held(number).is_some_and(|held| held.workers.is_empty() && held.guard.is_none())
        };
        if holds_nothing {
            self.machine.find_all(Instant::now() + FIND_TIMEOUT)?;
        }
        Ok(())
    }

    /// Frozen to thawing. A freeze that is under way is cancelled first.
    fn begin_thaw(&self) -> Option<Held> {
        self.inner().stage.cancel_freeze("a thaw was asked for");
        loop {
            if let Ok(held) = self.wait_while(|inner| inner.stage.is_changing()).stage.begin_thaw() {
                return held;
            }
        }
    }

    /// Thaws what is held, last frozen first, and lets the guard leave.
    fn release(self: &Arc<Self>, held: Held) -> Thawed {
        let thawed = thaw_each(&held.workers);
        if !thawed.stuck.is_empty() {
            if let Some(guard) = &held.guard {
                guard.thaw();
            }
            log::error!("failed to thaw {}: no answer", thawed.stuck.join(", "));
            self.leave_over(held.workers, held.guard);
        } else if let Some(guard) = &held.guard {
            guard.leave();
            self.inner().leftovers = Some(Leftovers { stuck: Arc::new([]), guard: held.guard });
        }
        thawed
    }

    /// Thaws what others froze.
    fn thaw_others(self: &Arc<Self>) -> i64 {
        if self.inner().is_anything_stuck() {
            return 0;
        }
        let found = self.machine.find_all(Instant::now() + FIND_TIMEOUT);
        let workers = found.and_then(|targets| self.workers(targets.into_iter().map(Arc::new).collect()));
        let workers = workers.unwrap_or_else(|error| {
            log::error!("failed to look for other frozen file systems: {}", error.desc);
            Vec::new()
        });
        let thawed = thaw_each(&workers);
        if !thawed.stuck.is_empty() {
            self.leave_over(workers, None);
        }
        thawed.count
    }

    /// Ends a thaw. If file systems were frozen, deferred jobs run first; then the thaw hook runs.
    fn end(&self, were_writers_waiting: bool) -> Result<(), Error> {
        if were_writers_waiting {
            if !self.inner().is_anything_stuck() {
                self.resume_writing();
            }
            self.remove(Marker::clear);
            self.inner().stage.let_writers_go_on();
        }
        let hook = self.machine.run_hook(Action::Thaw);
        self.remove(Marker::clear_thaw_hook_pending);
        self.become_thawed();
        hook
    }

    /// Removes files from the state directory.
    fn remove(&self, what: fn(&Marker)) {
        let marker = self.marker.clone();
        let doing = format!("change {}", marker.directory().display());
        let deadline = Instant::now() + REMOVAL_TIMEOUT;
        if let Err(error) = self.removal.run(&doing, deadline, move |_| what(&marker)) {
            log::error!("{}", error.desc);
        }
    }

    fn become_thawed(&self) {
        let mut inner = self.inner();
        inner.stage.end();
        let deferred = if inner.is_anything_stuck() { DeferredJobs::default() } else { inner.deferred.take() };
        drop(inner);
        self.changed.notify_all();
        deferred.run();
    }

    /// Ends a freeze that no thaw has asked to end. The log has a failure of the hook.
    fn end_without_asking(&self) {
        let _ = self.end(true);
    }
}

#[cfg(test)]
pub(crate) mod tests;
