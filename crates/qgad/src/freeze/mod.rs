//! Freezing that cannot strand a guest.
//!
//! A freeze goes through the stages thawed, freezing, frozen, thawing, or begins with taking over the freeze of an
//! earlier agent; [`stage`] has every step. The freeze hook runs first. Then one file system after the other is frozen.
//! On the first failure, at the timeout, or when a thaw is asked for, everything is thawed again.
//!
//! A second process, the guard, freezes and thaws ([`guard`]), because the kernel may never return from either. It also
//! thaws when the lease ends, or when the agent is gone and no new one comes. The next thaw reports that once, as an
//! error. In the guard each file system has a thread of its own ([`worker`]), so that one that does not answer delays
//! no other. If the kernel does not return, the file system is *stuck* ([`leftovers`]): its guard stays until it
//! has thawed it.
//!
//! While file systems are frozen, the agent writes to no disk and locks its memory. It holds its log in memory, and
//! defers other work ([`deferred`]).
//!
//! The thaw hook runs after every attempt, successful or not. If the agent ends before that, a file tells the next
//! agent to run it ([`marker`]). [`takeover`] is about what happens to a freeze without a request of a host.

mod bounded_call;
mod deferred;
mod fuse;
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
mod workers;

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::errno::Errno;
use qga::{commands::freeze::FreezeState, wire::message::Error};

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
    leftovers::Leftover,
    parts::{
        Action, Duty, Guard, GuardEvent, Holding, Lease, Machine, OnEvent, TakenOver, Takeover, TakeoverSocket, Thawed,
    },
    stage::Stage,
    target::{Operations, Target},
    worker::{OnDone, thaw},
    workers::Workers,
};
use crate::util::errno;

/// How often a freeze that waits for a file system checks whether it was cancelled.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Longest attempt to freeze, hooks included: it must end before the command's own timeout, after which a host would
/// not learn that its guest is frozen.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(90 * 60);
/// How long looking for file systems may take, for a thaw.
const FIND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long using the state directory may take: as long as a busy disk, not as one that is still frozen.
const RECORD_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// Using the state directory, which may be on what does not thaw.
    recording: BoundedCall,
    limits: Limits,
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    stage: Stage<Held>,
    /// Guards that wait for what is stuck.
    leftovers: Vec<Leftover>,
    deferred: DeferredJobs,
}

/// All that a freeze holds.
#[derive(Debug)]
struct Held {
    targets: Vec<Arc<Target>>,
    guard: Option<Arc<dyn Guard>>,
    lease: Lease,
    /// Since when the lease counts.
    since: Instant,
    /// Whether there is a note that the thaw hook is to be run: not if the freeze is one of qemu-ga's.
    is_hook_noted: bool,
}

impl Held {
    /// The freeze of an earlier agent that has no guard, and of which nothing else is known.
    fn unknown() -> Self {
        Self { targets: Vec::new(), guard: None, lease: None, since: Instant::now(), is_hook_noted: false }
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
        let inner = Inner { stage, leftovers: Vec::new(), deferred: DeferredJobs::default() };
        Self(Arc::new(Shared {
            machine,
            marker,
            recording: BoundedCall::default(),
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

    /// What a host is told.
    ///
    /// # Errors
    /// When a file system is stuck, which may keep writers waiting though nothing is to be frozen.
    pub(crate) fn state(&self) -> Result<FreezeState, Error> {
        if self.is_frozen() {
            return Ok(FreezeState::Frozen);
        }
        self.0.check_nothing_is_stuck("").map(|()| FreezeState::Thawed)
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
        if let Err(error) = self.0.make_ready(named) {
            // What kept the log in memory may have returned since.
            self.0.resume_writing();
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
        let held = self.0.begin_thaw()?;
        let were_writers_waiting = held.is_some();
        let ours = held.map_or(0, |held| self.0.release(held));
        let others = self.0.thaw_others();
        let note = self.0.in_state_directory(Marker::take_note);
        let note = note.unwrap_or_else(|error| Some(format!("the freeze may have ended by itself ({})", error.desc)));
        let hook = self.0.end(were_writers_waiting);
        log::info!("file systems are thawed");
        if let Some(note) = note {
            return Err(Error::generic(format!("{note}: what was copied since then may be inconsistent")));
        }
        self.0.check_nothing_is_stuck("failed to thaw ")?;
        hook.map(|()| ours + others)
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

    /// Runs the freeze hook, unless a file system to be frozen is stuck. If the hook fails, the thaw hook was run, too.
    fn make_ready(&self, named: Option<&[String]>) -> Result<(), Error> {
        if self.inner().is_anything_stuck() {
            self.find(named, Instant::now() + FIND_TIMEOUT)?;
        }
        self.in_state_directory(Marker::set_thaw_hook_pending)?.map_err(Error::generic)?;
        self.machine.run_hook(Action::Freeze).inspect_err(|_| self.remove(Marker::clear_thaw_hook_pending))
    }

    /// Opens what is to be frozen.
    fn find(&self, named: Option<&[String]>, deadline: Instant) -> Result<Vec<Arc<Target>>, Error> {
        let targets: Vec<_> = self.machine.find(named, deadline)?.into_iter().map(Arc::new).collect();
        self.refuse_stuck(&targets)?;
        Ok(targets)
    }

    /// Freezes. Nothing is held if nothing could be frozen.
    fn attempt(
        self: &Arc<Self>,
        named: Option<&[String]>,
        lease: Lease,
        last: Instant,
    ) -> Result<(i64, Option<Held>), Error> {
        self.in_state_directory(Marker::forget_note)?;
        let deadline = last.min(Instant::now() + self.limits.timeout);
        let targets = self.find(named, deadline)?;
        if targets.is_empty() {
            return Ok((0, None));
        }
        self.in_state_directory(Marker::set)?.map_err(Error::generic)?;
        self.machine.quiesce();
        let held = self.hold(targets, Holding::Nothing, lease)?;
        match self.freeze_each(&held, deadline) {
            Ok(count @ 1..) => Ok((count, Some(held))),
            other => {
                self.release(held);
                other.map(|_| (0, None))
            }
        }
    }

    /// Has a guard hold file systems, before anything is frozen.
    fn hold(self: &Arc<Self>, targets: Vec<Arc<Target>>, holding: Holding, lease: Lease) -> Result<Held, Error> {
        let duty = Duty { holding, lease, takeover: Takeover::New };
        let guard = self.machine.start_guard(&targets, duty, self.on_event())?;
        Ok(self.holding(targets, guard, lease))
    }

    fn holding(&self, targets: Vec<Arc<Target>>, guard: Arc<dyn Guard>, lease: Lease) -> Held {
        let is_hook_noted = self.marker.is_thaw_hook_pending();
        Held { targets, guard: Some(guard), lease, since: Instant::now(), is_hook_noted }
    }

    /// Freezes one after the other, and counts those that were not frozen before.
    fn freeze_each(&self, held: &Held, deadline: Instant) -> Result<i64, Error> {
        let Some(guard) = &held.guard else { return Ok(0) };
        let mut count = 0;
        for (index, target) in held.targets.iter().enumerate() {
            let mount_point = target.mount_point.display();
            let failed = |reason: String| Error::generic(format!("failed to freeze {mount_point}: {reason}"));
            guard.freeze(index);
            let frozen = loop {
                let now = Instant::now();
                if let Some(frozen) = guard.frozen(index, deadline.min(now + POLL_INTERVAL)) {
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
                    log::debug!("{mount_point} was not frozen: {}", errno::describe(error));
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
            stage.held(number).is_some_and(|held| held.targets.is_empty() && held.guard.is_none())
        };
        if holds_nothing {
            self.machine.find_all(Instant::now() + FIND_TIMEOUT)?;
        }
        Ok(())
    }

    /// Frozen to thawing. A freeze that is under way is cancelled first.
    fn begin_thaw(&self) -> Result<Option<Held>, Error> {
        self.inner().stage.cancel_freeze("a thaw was asked for");
        loop {
            drop(self.wait_while(|inner| inner.stage.is_changing()));
            self.refuse_blind_thaw()?;
            if let Ok(held) = self.inner().stage.begin_thaw() {
                return Ok(held);
            }
        }
    }

    /// Thaws what is held, last frozen first, and returns how many were frozen.
    fn release(self: &Arc<Self>, held: Held) -> i64 {
        let thawed = held.guard.as_ref().and_then(|guard| guard.thaw());
        match (held.guard, thawed) {
            (Some(guard), Some(thawed)) => self.keep_stuck(guard, held.targets, thawed),
            (guard, _) => {
                if let Some(guard) = guard {
                    log::error!("the guard of the freeze does not answer, and another one thaws");
                    // What it began to freeze and the kernel has not finished cannot be thawed yet.
                    let stuck = if guard.is_gone() { Vec::new() } else { guard.stuck() };
                    self.keep_guard(guard, held.targets.clone(), stuck);
                }
                self.thaw_by_another_guard(held.targets, Takeover::New)
            }
        }
    }

    /// Thaws file systems whose guard does not answer, and returns how many were frozen.
    fn thaw_by_another_guard(self: &Arc<Self>, targets: Vec<Arc<Target>>, takeover: Takeover) -> i64 {
        if targets.is_empty() {
            return 0;
        }
        let duty = Duty { holding: Holding::Frozen, lease: None, takeover };
        let started = self.machine.start_guard(&targets, duty, self.on_event());
        let started = started.inspect_err(|error| log::error!("{}", error.desc)).ok();
        if let Some((guard, thawed)) = started.and_then(|guard| guard.thaw().map(|thawed| (guard, thawed))) {
            return self.keep_stuck(guard, targets, thawed);
        }
        self.thaw_here(targets)
    }

    /// Thaws in this process, which cannot be ended while the kernel does not return from that. The last resort.
    fn thaw_here(self: &Arc<Self>, targets: Vec<Arc<Target>>) -> i64 {
        let operations = self.machine.operations();
        let shared = Arc::downgrade(self);
        let on_done: OnDone =
            Arc::new(move || shared.upgrade().into_iter().for_each(|shared| shared.review_leftovers()));
        match Workers::start(targets.iter().cloned(), &operations, Holding::Frozen, &on_done) {
            Ok(workers) => {
                let thawed = workers.thaw_all();
                self.keep_stuck(Arc::new(workers), targets, thawed)
            }
            Err(error) => {
                log::error!("failed to start a thread to thaw: {}", errno::describe(error));
                let count = targets.iter().rev().filter(|target| thaw(&*operations, target)).count();
                i64::try_from(count).unwrap_or(i64::MAX)
            }
        }
    }

    fn keep_stuck(self: &Arc<Self>, guard: Arc<dyn Guard>, targets: Vec<Arc<Target>>, thawed: Thawed) -> i64 {
        self.keep_guard(guard, targets, thawed.stuck);
        thawed.count
    }

    /// Ends a thaw. If file systems were frozen, deferred jobs run first; then the thaw hook runs.
    fn end(&self, were_writers_waiting: bool) -> Result<(), Error> {
        match were_writers_waiting {
            true => self.let_writers_go_on(),
            // An earlier attempt that was given up may have set it since.
            false => self.remove(Marker::clear),
        }
        let hook = self.machine.run_hook(Action::Thaw);
        self.remove(Marker::clear_thaw_hook_pending);
        self.become_thawed();
        hook
    }

    fn let_writers_go_on(&self) {
        self.resume_writing();
        self.remove(Marker::clear);
        self.inner().stage.let_writers_go_on();
    }

    /// Removes files from the state directory.
    fn remove(&self, what: fn(&Marker)) {
        if let Err(error) = self.in_state_directory(what) {
            log::error!("{}", error.desc);
        }
    }

    /// Reads or changes files in the state directory, which may be on a disk that does not answer.
    fn in_state_directory<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Marker) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let marker = self.marker.clone();
        let doing = format!("change {}", marker.directory().display());
        self.recording.run(&doing, Instant::now() + RECORD_TIMEOUT, move |_| what(&marker))
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
