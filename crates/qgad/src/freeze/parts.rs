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

    /// How they are thawed where no guard can be started.
    fn operations(&self) -> Arc<dyn Operations>;

    /// Starts a guard that holds the targets; nothing is frozen before.
    fn start_guard(&self, targets: &[Arc<Target>], duty: Duty, on_event: OnEvent) -> Result<Arc<dyn Guard>, Error>;

    /// Takes over the guards of agents that are gone. An error is a guard that cannot be taken over yet.
    fn claim_guards(&self, on_event: &dyn Fn() -> OnEvent) -> Vec<Result<Claim, Error>>;

    /// Runs the administrator's hook.
    fn run_hook(&self, action: Action) -> Result<(), Error>;

    /// What ends a system call that a user's file system keeps from returning, if there may be such a one.
    fn way_out(&self) -> Option<String>;

    /// Locks memory and keeps the log in it.
    fn quiesce(&self);

    /// Undoes that, except that the log stays in memory where it would be written to one of these.
    fn resume(&self, stuck: &[Arc<Target>]);
}

/// The process that freezes, and that thaws when no agent does.
///
/// The kernel may never return from freezing or thawing, and its thread, and the process of that thread, cannot be
/// ended then. So no agent makes these calls itself: it can always be ended and replaced.
pub(crate) trait Guard: fmt::Debug + Send + Sync {
    /// Orders the freeze of one of its file systems.
    fn freeze(&self, index: usize);

    /// How that went, if the kernel has returned from it by then.
    fn frozen(&self, index: usize, deadline: Instant) -> Option<nix::Result<()>>;

    /// Everything is frozen: the lease begins.
    fn complete(&self);

    /// Has everything thawed, and waits for that. Nothing if it does not answer. It leaves once everything is thawed.
    fn thaw(&self) -> Option<Thawed>;

    /// What the kernel has not returned from after a thaw.
    fn stuck(&self) -> Vec<Stuck>;

    /// Whether it has ended.
    fn is_gone(&self) -> bool;

    /// Where it waits for a new agent, if it does.
    fn takeover_socket(&self) -> Option<TakeoverSocket>;
}

/// What a guard is started for.
#[derive(Clone, Debug)]
pub(crate) struct Duty {
    /// What is frozen already.
    pub(crate) holding: Holding,
    /// How long the freeze may last.
    pub(crate) lease: Lease,
    /// How a new agent finds the guard.
    pub(crate) takeover: Takeover,
}

/// What of a guard's file systems is frozen when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holding {
    /// Nothing by us: what others froze stays so.
    Nothing,
    /// Any of them may be, and is to be thawed.
    Frozen,
}

/// How a new agent finds a guard.
#[derive(Clone, Debug)]
pub(crate) enum Takeover {
    /// At a socket that is made for it.
    New,
    /// At that of the guard whose place it takes.
    Socket(TakeoverSocket),
    /// Not at all: it ends with its agent.
    None,
}

/// The socket on which a new agent is waited for. It is kept, because none can be made while its directory is frozen.
pub(crate) type TakeoverSocket = Arc<OwnedFd>;

/// How long a freeze may last; without end if not given.
pub(crate) type Lease = Option<Duration>;

/// The result of a thaw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Thawed {
    /// How many file systems had been frozen.
    pub(crate) count: i64,
    /// Those from which the kernel has not returned. Each is thawed as soon as it can be.
    pub(crate) stuck: Vec<Stuck>,
}

/// A system call that the kernel has not returned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stuck {
    /// The file system, among those of its guard.
    pub(crate) index: usize,
    /// What the kernel does.
    pub(crate) action: Action,
    /// Since when.
    pub(crate) since: Instant,
}

/// Called from a thread of its own when a guard does something that it was not asked for.
pub(crate) type OnEvent = Box<dyn FnMut(GuardEvent) + Send>;

/// What a guard does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuardEvent {
    /// It has thawed everything and left a note.
    Thawed,
    /// After it was told to thaw: the kernel has returned from what was stuck, or the guard has ended.
    Returned,
    /// Its process has ended before it was told to thaw.
    Ended,
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
    /// Whether they are frozen. Otherwise they were thawed, except what is stuck.
    pub(crate) is_frozen: bool,
}

/// What is done to file systems, and what a hook is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// File systems are frozen, or about to be.
    Freeze,
    /// They are thawed.
    Thaw,
}
