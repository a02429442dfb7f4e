//! What a freeze works with: the machine and the guard. Tests have their own, which fail on purpose.

use std::{
    fmt,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use qga::wire::message::Error;

use super::target::{Operations, Target};

/// What the state machine needs of the machine; in a test, a part that fails on purpose.
pub(crate) trait Machine: fmt::Debug + Send + Sync {
    /// Opens the file systems to freeze, first to last: those that are named, or all.
    fn find(&self, named: Option<&[String]>, deadline: Instant) -> Result<Vec<Target>, Error>;

    /// Opens all file systems that might be frozen, in the same order, also what is never frozen by us.
    fn find_all(&self, deadline: Instant) -> Result<Vec<Target>, Error>;

    /// How they are frozen and thawed.
    fn operations(&self) -> Arc<dyn Operations>;

    /// Starts a guard that holds the targets; nothing is frozen before. One that takes the place of another one waits
    /// for new agents where that did.
    fn start_guard(
        &self,
        targets: &[Arc<Target>],
        lease: Lease,
        takeover_socket: Option<TakeoverSocket>,
        on_end: OnEnd,
    ) -> Result<Arc<dyn Guard>, Error>;

    /// Takes over the guard of an agent that is gone, if there is one.
    fn claim_guard(&self, on_end: OnEnd) -> Result<Option<Claim>, Error>;

    /// Runs the administrator's hook.
    fn run_hook(&self, action: Action) -> Result<(), Error>;

    /// Locks memory and keeps the log in it.
    fn quiesce(&self);

    /// Undoes that.
    fn resume(&self);
}

/// The process that thaws when no agent does.
pub(crate) trait Guard: fmt::Debug + Send + Sync {
    /// Everything is frozen: the lease begins.
    fn complete(&self);

    /// The agent could not thaw everything yet. The guard is to do that, and to thaw once more when the agent is gone
    /// without having told it to leave.
    fn thaw(&self);

    /// Everything is thawed, and no freeze can succeed late: it is to leave.
    fn leave(&self);

    /// Whether it has left by then.
    fn is_gone(&self, deadline: Instant) -> bool;

    /// Where it waits for a new agent, if it does.
    fn takeover_socket(&self) -> Option<TakeoverSocket>;
}

/// The socket on which a new agent is waited for. It is kept, because none can be made while its directory is frozen.
pub(crate) type TakeoverSocket = Arc<OwnedFd>;

/// How long a freeze may last; without end if not given.
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
    pub(crate) guard: Arc<dyn Guard>,
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
