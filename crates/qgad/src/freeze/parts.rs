//! What the state machine of a freeze works with: the machine, and the guard. Tests have parts of their own, which fail on
//! purpose.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use qga::wire::message::Error;

use super::target::{Operations, Target};

/// What the state machine needs of the machine; in a test, a part that fails on purpose.
pub(crate) trait Machine: fmt::Debug + Send + Sync {
    /// Opens the file systems to freeze, first to last: those that are named, or all.
    fn find(&self, named: Option<&[String]>, until: Instant) -> Result<Vec<Target>, Error>;

    /// Opens all file systems that might be frozen, in the same order, also what is never frozen by us.
    fn find_all(&self, until: Instant) -> Result<Vec<Target>, Error>;

    /// How they are frozen and thawed.
    fn operations(&self) -> Arc<dyn Operations>;

    /// Starts a guard that holds the targets; nothing is frozen before.
    fn start_guard(&self, targets: &[Arc<Target>], lease: Lease, on_end: OnEnd) -> Result<Box<dyn Guard>, Error>;

    /// Takes over the guard of an agent that is gone, if there is one.
    fn claim_guard(&self, on_end: OnEnd) -> Result<Option<Claim>, Error>;

    /// Runs the administrator's hook.
    fn run_hook(&self, action: Action) -> Result<(), Error>;

    /// Locks memory and keeps the log in it.
    fn hold_still(&self);

    /// Undoes that.
    fn move_again(&self);
}

/// The process that thaws when nobody else does.
pub(crate) trait Guard: fmt::Debug + Send + Sync {
    /// Everything is frozen: the lease begins.
    fn complete(&self);

    /// It is to leave, thawing first what the agent could not.
    fn end(&self, thaw: bool);

    /// Whether it has left.
    fn is_gone(&self) -> bool;
}

/// How long a freeze may last; for ever if not given.
pub(crate) type Lease = Option<Duration>;

/// Called once, from a thread of its own, when a guard ends that was not told to.
pub(crate) type OnEnd = Box<dyn FnOnce(GuardEnd) + Send>;

/// How a guard ended that was not told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuardEnd {
    /// It has thawed everything and left a note.
    Thawed,
    /// It is gone, and everything still frozen.
    Lost,
}

/// A guard that was taken over.
#[derive(Debug)]
pub(crate) struct Claim {
    /// The guard.
    pub(crate) guard: Box<dyn Guard>,
    /// What it holds, in the order of freezing.
    pub(crate) targets: Vec<Target>,
    /// What is left of the lease.
    pub(crate) lease: Lease,
}

/// What a hook is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// File systems are about to be frozen.
    Freeze,
    /// They are thawed.
    Thaw,
}
