//! What happens to a freeze without a request of a host.
//!
//! Before it serves the first host, an agent takes over the guards that wait for stuck file systems.
//! If it finds the freeze of an earlier agent, a thread takes over its guard, and hosts are served meanwhile. Without a
//! guard it starts one for everything that is mounted. If neither works, because the earlier agent has not quite ended
//! or a mount point does not answer, it tries again every [`RETRY`], until it succeeds, the guard has thawed, or a host
//! thaws. If it finds that freeze hooks ran but nothing is frozen, it runs the thaw hooks.
//!
//! An agent replaces a guard that was killed. A guard that thawed by itself has ended the freeze.

use std::{
    ops::ControlFlow,
    sync::{Arc, PoisonError, Weak},
    time::{Duration, Instant},
};

use qga::wire::message::Error;

use super::{
    Duty, FIND_TIMEOUT, GuardEvent, Held, Holding, Inner, Lease, OnEvent, Shared, TakenOver, Takeover, TakeoverSocket,
    Target,
};
use crate::util::threads;

/// How long after one attempt to take over a freeze the next one is made: soon enough for a host that waits, and a
/// guard needs about as long to notice that its agent is gone.
const RETRY: Duration = Duration::from_secs(3);
/// Stack of the thread that takes over, which may run the thaw hook.
const STACK_BYTES: usize = 256 * 1024;

impl Shared {
    /// Begins to take over what an earlier agent left, and returns.
    pub(super) fn recover(self: &Arc<Self>) {
        let is_frozen = self.inner().stage.is_taking_over();
        if !is_frozen {
            self.take_over_leftovers();
        }
        if is_frozen {
            // The locks of memory did not survive becoming a daemon.
            self.machine.quiesce();
        } else if self.marker.is_thaw_hook_pending() {
            // Commands are served, and a freeze waits.
            self.inner().stage.begin_pending_hook();
        } else {
            return;
        }
        let shared = Arc::clone(self);
        let work = move || shared.take_over_or_end(is_frozen);
        if threads::start("takeover", STACK_BYTES, work).is_err() {
            self.take_over_or_end(is_frozen);
        }
    }

    /// Takes over a freeze, or the hooks of one.
    pub(super) fn take_over_or_end(self: &Arc<Self>, is_frozen: bool) {
        if !is_frozen {
            return self.run_pending_hook();
        }
        let held = match self.take_over() {
            Ok(Some(held)) => held,
            // Its guard has just thawed everything.
            Ok(None) => {
                self.resume_writing();
                return self.run_pending_hook();
            }
            Err(error) => {
                log::error!("nobody guards the freeze that an earlier agent left, for now: {}", error.desc);
                Held::unknown()
            }
        };
        log::warn!("file systems are frozen since an earlier agent");
        let freeze = self.inner().stage.number();
        if let Err((held, reason)) = self.settle(held) {
            log::warn!("the freeze of an earlier agent ends: {reason}");
            self.release(held);
            self.end_without_asking();
        }
        while self.is_unguarded_for_long(freeze) && self.try_again(freeze).is_continue() {}
    }

    fn run_pending_hook(&self) {
        if self.marker.is_thaw_hook_pending() {
            log::warn!("an earlier agent ended before the thaw hook was run");
            // The log has a failure of the hook.
            let _ = self.end(false);
        } else {
            self.become_thawed();
        }
    }

    /// The freeze of another agent: its guard's, or whatever is mounted now if there is no guard.
    fn take_over(self: &Arc<Self>) -> Result<Option<Held>, Error> {
        let (mut held, mut refusal, mut has_thawed) = (None, None, false);
        for taken_over in self.machine.take_over_guards(&|| self.on_event()) {
            match taken_over {
                Ok(TakenOver { guard, targets, lease, is_frozen: true }) if held.is_none() => {
                    let targets = targets.into_iter().map(Arc::new).collect();
                    held = Some(self.holding(targets, guard, lease));
                }
                Ok(taken_over) => {
                    has_thawed = true;
                    self.keep_leftover(taken_over);
                }
                Err(error) => refusal = Some(error),
            }
        }
        match (held, refusal) {
            (Some(held), _) => Ok(Some(held)),
            (None, Some(refusal)) => Err(refusal),
            // A guard that has thawed may not have been able to remove the marker.
            (None, None) if has_thawed || !self.marker.is_set() => Ok(None),
            (None, None) => {
                let found = self.machine.find_all(Instant::now() + FIND_TIMEOUT)?;
                let targets = self.without_stuck(found.into_iter().map(Arc::new).collect());
                self.hold(targets, Holding::Frozen, self.limits.lease).map(Some)
            }
        }
    }

    /// Waits for the time of the next attempt, if it is wanted.
    fn is_unguarded_for_long(&self, freeze: u64) -> bool {
        let is_unguarded = |inner: &mut Inner| inner.unguarded(freeze).is_some();
        let waited = self.changed.wait_timeout_while(self.inner(), RETRY, is_unguarded);
        let (mut inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        is_unguarded(&mut inner)
    }

    /// Tries again to take over a freeze without a guard.
    pub(super) fn try_again(self: &Arc<Self>, freeze: u64) -> ControlFlow<()> {
        match self.take_over() {
            Ok(Some(found)) => {
                if let Some(guard) = &found.guard {
                    guard.complete();
                }
                let mut inner = self.inner();
                match inner.unguarded(freeze) {
                    Some(held) => {
                        *held = found;
                        drop(inner);
                        log::warn!("the freeze of an earlier agent is guarded");
                    }
                    // A host has thawed meanwhile.
                    None => {
                        drop(inner);
                        self.release(found);
                    }
                }
                ControlFlow::Break(())
            }
            // Its guard has thawed everything.
            Ok(None) => {
                self.end_by_itself(freeze, None);
                ControlFlow::Break(())
            }
            Err(error) => {
                log::debug!("nobody guards the freeze yet: {}", error.desc);
                ControlFlow::Continue(())
            }
        }
    }

    /// What is done when a guard that is started now does something by itself.
    pub(super) fn on_event(self: &Arc<Self>) -> OnEvent {
        let shared: Weak<Self> = Arc::downgrade(self);
        let freeze = self.inner().stage.number();
        Box::new(move |event| {
            let Some(shared) = shared.upgrade() else { return };
            match event {
                GuardEvent::Returned => shared.review_leftovers(),
                GuardEvent::Thawed | GuardEvent::Ended => shared.guard_ended(freeze, event),
            }
        })
    }

    fn guard_ended(self: &Arc<Self>, freeze: u64, event: GuardEvent) {
        let mut inner = self.inner();
        if inner.stage.number() != freeze {
            return;
        }
        inner.stage.cancel("its guard ended too early");
        let Some(held) = inner.stage.held(freeze) else { return };
        if event == GuardEvent::Thawed {
            drop(inner);
            return self.end_by_itself(freeze, None);
        }
        let takeover_socket = held.guard.take().and_then(|guard| guard.takeover_socket());
        let (targets, lease) = (held.targets.clone(), held.remaining_lease());
        drop(inner);
        self.replace_guard(freeze, &targets, lease, takeover_socket);
    }

    /// The guard was killed. Starts another one, or ends the freeze.
    fn replace_guard(
        self: &Arc<Self>,
        freeze: u64,
        targets: &[Arc<Target>],
        lease: Lease,
        takeover_socket: Option<TakeoverSocket>,
    ) {
        log::warn!("the guard of the freeze was killed and is replaced");
        let takeover = takeover_socket.map_or(Takeover::New, Takeover::Socket);
        let duty = Duty { holding: Holding::Frozen, lease, takeover };
        match self.machine.start_guard(targets, duty, self.on_event()) {
            Ok(guard) => {
                guard.complete();
                let mut inner = self.inner();
                match inner.unguarded(freeze) {
                    Some(held) => held.guard = Some(guard),
                    None => {
                        drop(inner);
                        self.release(self.holding(targets.to_vec(), guard, lease));
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
    fn end_by_itself(self: &Arc<Self>, freeze: u64, note: Option<&'static str>) {
        let Some(held) = self.inner().stage.end_by_itself(freeze) else { return };
        // A guard whose agent was stopped for a while has run it.
        let was_hook_run = held.is_hook_noted && !self.marker.is_thaw_hook_pending();
        self.release(held);
        self.marker.remember_end();
        if let Some(note) = note {
            let noted = self.in_state_directory(move |marker| marker.note(note)).map_err(|error| error.desc);
            noted.and_then(|noted| noted).unwrap_or_else(|error| log::error!("{error}"));
        }
        log::warn!("the freeze has ended by itself; the next thaw says why");
        self.let_writers_go_on();
        if was_hook_run {
            return self.become_thawed();
        }
        // The log has a failure of the hook.
        let _ = self.end(false);
    }
}

impl Inner {
    /// What a freeze holds, if it lasts and has no guard.
    fn unguarded(&mut self, freeze: u64) -> Option<&mut Held> {
        self.stage.held(freeze).filter(|held| held.guard.is_none())
    }
}

#[cfg(test)]
mod tests;
