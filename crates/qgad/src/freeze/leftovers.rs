//! What is stuck: file systems for which the kernel has not returned from a freeze or a thaw.
//!
//! A freeze that was given up may still keep writers waiting, so nobody is told that such a file system is thawed: the
//! status and each thaw are errors that name it, say for how long, and what may end it. A freeze that includes it fails
//! at once; of other file systems it works. Its guard thaws it as soon as the kernel returns, and the log has that.

use std::{sync::Arc, time::Instant};

use qga::wire::message::Error;

use super::{
    Claim, FIND_TIMEOUT, Guard, Inner, Shared, Takeover, Target,
    parts::{Action, Stuck},
};

/// How many guards may wait for what is stuck. Further freezes are refused then.
const MAX_LEFTOVERS: usize = 8;

/// A guard that waits for what is stuck, and its file systems.
#[derive(Debug)]
pub(super) struct Leftover {
    guard: Arc<dyn Guard>,
    targets: Vec<Arc<Target>>,
    /// What was stuck when that was last looked at.
    stuck: Vec<Stuck>,
    /// The guard was killed, and another one thaws.
    is_replaced: bool,
}

impl Leftover {
    /// Sees what the kernel has returned from.
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
    /// Keeps a guard, until what it has told to be stuck is not any more.
    pub(super) fn leave_over(self: &Arc<Self>, guard: Arc<dyn Guard>, targets: Vec<Arc<Target>>, stuck: Vec<Stuck>) {
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

    /// Says what is stuck.
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

    /// Looks at what was stuck: guards have told something, or one has ended.
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
        // What the kernel froze for a guard that was killed, nobody has thawed.
        for (guard, targets) in killed {
            self.thaw_by_another_guard(targets, Takeover::New);
            self.inner().leftovers.retain(|leftover| !Arc::ptr_eq(&leftover.guard, &guard));
        }
        if !self.inner().stage.is_frozen_or_freezing() {
            self.resume_writing();
        }
    }

    /// Takes over the guards that another agent left with what is stuck.
    pub(super) fn claim_leftovers(self: &Arc<Self>) {
        for claim in self.machine.claim_guards(&|| self.on_event()) {
            match claim {
                Ok(claim) => self.keep_leftover(claim),
                Err(error) => log::warn!("{}", error.desc),
            }
        }
    }

    /// Keeps a guard of another agent. What nobody knows to be frozen is not to stay so.
    pub(super) fn keep_leftover(self: &Arc<Self>, claim: Claim) {
        let thawed = if claim.is_frozen { claim.guard.thaw() } else { None };
        let stuck = thawed.map_or_else(|| claim.guard.stuck(), |thawed| thawed.stuck);
        self.leave_over(claim.guard, claim.targets.into_iter().map(Arc::new).collect(), stuck);
    }

    /// Names what is stuck, with what may end that.
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
        let way_out = self.machine.way_out().map(|way_out| format!("; {way_out}")).unwrap_or_default();
        Some(described.join("; ") + &way_out)
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
