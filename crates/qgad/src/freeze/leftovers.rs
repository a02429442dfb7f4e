//! What is stuck: file systems for which the kernel has not returned from a freeze or a thaw.
//!
//! A freeze that was abandoned may still keep writers waiting, so such a file system is never reported as thawed: the
//! status and each thaw are errors that name it, say since when it is stuck, and what may end that. A freeze that
//! includes it fails at once; other file systems can be frozen. Its guard thaws it as soon as the kernel returns, and
//! logs that.

use std::{sync::Arc, time::Instant};

use qga::wire::message::Error;

use super::{
    FIND_TIMEOUT, Guard, Inner, Shared, TakenOver, Takeover, Target,
    parts::{Action, Stuck},
};

/// Most guards that wait for stuck file systems. With more, freezes are refused.
const MAX_LEFTOVERS: usize = 8;

/// A guard that waits for stuck file systems, and all its file systems.
#[derive(Debug)]
pub(super) struct Leftover {
    guard: Arc<dyn Guard>,
    targets: Vec<Arc<Target>>,
    /// What was stuck at the last look.
    stuck: Vec<Stuck>,
    /// The guard was killed, and another one thaws.
    is_replaced: bool,
}

impl Leftover {
    /// Updates what is stuck.
    fn look(&mut self) {
        let stuck = self.guard.stuck();
        for returned in self.stuck.iter().filter(|old| stuck.iter().all(|new| new.index != old.index)) {
            if let Some(target) = self.targets.get(returned.index) {
                let seconds = returned.since.elapsed().as_secs();
                log::warn!("{} was stuck for {seconds} s and is thawed", target.mount_point.display());
            }
        }
        self.stuck = stuck;
    }

    fn stuck_targets(&self) -> Vec<Arc<Target>> {
        self.stuck.iter().filter_map(|stuck| self.targets.get(stuck.index).cloned()).collect()
    }
}

impl Inner {
    /// Whether a file system is stuck.
    pub(super) fn is_anything_stuck(&self) -> bool {
        !self.leftovers.is_empty()
    }

    /// The file systems that are stuck.
    pub(super) fn stuck(&self) -> Vec<(Arc<Target>, Stuck)> {
        let of_one = |leftover: &Leftover| {
            let known = |stuck: Stuck| Some((Arc::clone(leftover.targets.get(stuck.index)?), stuck));
            leftover.guard.stuck().into_iter().filter_map(known).collect::<Vec<_>>()
        };
        self.leftovers.iter().flat_map(of_one).collect()
    }
}

impl Shared {
    /// Keeps a guard until none of its file systems is stuck.
    pub(super) fn keep_guard(self: &Arc<Self>, guard: Arc<dyn Guard>, targets: Vec<Arc<Target>>, stuck: Vec<Stuck>) {
        if stuck.is_empty() {
            return;
        }
        self.inner().leftovers.push(Leftover { guard, targets, stuck, is_replaced: false });
        if let Err(error) = self.check_nothing_is_stuck("failed to thaw ") {
            log::error!("{}", error.desc);
        }
        // It may not be stuck any more.
        self.review_leftovers();
    }

    /// The stuck file systems in words.
    pub(super) fn check_nothing_is_stuck(&self, doing: &str) -> Result<(), Error> {
        let stuck = self.inner().stuck();
        self.describe(&stuck).map_or(Ok(()), |reason| Err(Error::generic(format!("{doing}{reason}"))))
    }

    /// Refuses to freeze what is stuck, by name: its late thaw would end the new freeze.
    pub(super) fn refuse_stuck(&self, targets: &[Arc<Target>]) -> Result<(), Error> {
        let (mut stuck, count) = {
            let inner = self.inner();
            (inner.stuck(), inner.leftovers.len())
        };
        stuck.retain(|(stuck, _)| targets.iter().any(|target| target.is_same_as(stuck)));
        match self.describe(&stuck) {
            None if count < MAX_LEFTOVERS => Ok(()),
            None => Err(Error::generic(format!("failed to freeze: {count} earlier freezes are stuck"))),
            Some(reason) => Err(Error::generic(format!("failed to freeze {reason}"))),
        }
    }

    /// Those that are not stuck.
    pub(super) fn without_stuck(&self, mut targets: Vec<Arc<Target>>) -> Vec<Arc<Target>> {
        let stuck = self.inner().stuck();
        targets.retain(|target| !stuck.iter().any(|(stuck, _)| target.is_same_as(stuck)));
        targets
    }

    /// Updates what is stuck, after a message from a guard or the end of one.
    pub(super) fn review_leftovers(self: &Arc<Self>) {
        let mut killed = Vec::new();
        let mut inner = self.inner();
        if !inner.is_anything_stuck() {
            return;
        }
        inner.leftovers.retain_mut(|leftover| {
            leftover.look();
            if !leftover.is_replaced && leftover.guard.is_gone() && !leftover.stuck.is_empty() {
                leftover.is_replaced = true;
                killed.push((Arc::clone(&leftover.guard), leftover.stuck_targets()));
            }
            !leftover.stuck.is_empty()
        });
        drop(inner);
        // The kernel may have frozen a file system for a guard that was killed before it could thaw it.
        for (guard, targets) in killed {
            self.thaw_by_another_guard(targets, Takeover::New);
            self.inner().leftovers.retain(|leftover| !Arc::ptr_eq(&leftover.guard, &guard));
        }
        if !self.inner().stage.is_frozen_or_freezing() {
            self.resume_writing();
        }
    }

    /// Takes over the guards of stuck file systems that another agent left.
    pub(super) fn take_over_leftovers(self: &Arc<Self>) {
        for taken_over in self.machine.take_over_guards(&|| self.on_event()) {
            match taken_over {
                Ok(taken_over) => self.keep_leftover(taken_over),
                Err(error) => log::warn!("{}", error.desc),
            }
        }
    }

    /// Keeps a guard of another agent. If it holds an unknown freeze, that is thawed.
    pub(super) fn keep_leftover(self: &Arc<Self>, taken_over: TakenOver) {
        let thawed = if taken_over.is_frozen { taken_over.guard.thaw() } else { None };
        let stuck = thawed.map_or_else(|| taken_over.guard.stuck(), |thawed| thawed.stuck);
        self.keep_guard(taken_over.guard, taken_over.targets.into_iter().map(Arc::new).collect(), stuck);
    }

    /// Describes stuck file systems, and what may end that.
    fn describe(&self, stuck: &[(Arc<Target>, Stuck)]) -> Option<String> {
        let describe = |(target, stuck): &(Arc<Target>, Stuck)| {
            let doing = match stuck.action {
                Action::Freeze => "freezing",
                Action::Thaw => "thawing",
            };
            let seconds = stuck.since.elapsed().as_secs();
            format!("{}: the kernel has not returned from {doing} it for {seconds} s", target.mount_point.display())
        };
        let described: Vec<_> = stuck.iter().map(describe).collect();
        if described.is_empty() {
            return None;
        }
        let abort_hint = self.machine.abort_hint().map(|abort_hint| format!("; {abort_hint}")).unwrap_or_default();
        Some(described.join("; ") + &abort_hint)
    }

    /// Thaws what others froze, and returns how many that were.
    pub(super) fn thaw_others(self: &Arc<Self>) -> i64 {
        match self.machine.find_all(Instant::now() + FIND_TIMEOUT) {
            Ok(targets) => {
                let targets = self.without_stuck(targets.into_iter().map(Arc::new).collect());
                self.thaw_by_another_guard(targets, Takeover::None)
            }
            Err(error) => {
                log::error!("failed to look for other frozen file systems: {}", error.desc);
                0
            }
        }
    }
}
