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

    /// Opens all file systems that might be frozen, in the same order, excluded ones too.
    fn find_all(&self, deadline: Instant) -> Result<Vec<Target>, Error>;

    /// How they are thawed where no guard can be started.
    fn operations(&self) -> Arc<dyn Operations>;

    /// Starts a guard that holds the targets; nothing is frozen before.
    fn start_guard(&self, targets: &[Arc<Target>], duty: Duty, on_event: OnEvent) -> Result<Arc<dyn Guard>, Error>;

    /// Takes over the guards of agents that are gone. An error is a guard that cannot be taken over yet.
    fn take_over_guards(&self, on_event: &dyn Fn() -> OnEvent) -> Vec<Result<TakenOver, Error>>;

    /// Runs the administrator's hook.
    fn run_hook(&self, action: Action) -> Result<(), Error>;

    /// What may end a stuck system call: the FUSE connections that wait, if there are any.
    fn abort_hint(&self) -> Option<String>;

    /// Locks memory and keeps the log in it.
    fn quiesce(&self);

    /// Undoes that. A log on one of these file systems stays in memory.
    fn resume(&self, stuck: &[Arc<Target>]);
}

/// The process that freezes, and that thaws when no agent does.
///
/// The kernel may never return from freezing or thawing, and then the calling process cannot be killed. So the guard
/// makes these calls, and the agent can always be killed and replaced.
pub(crate) trait Guard: fmt::Debug + Send + Sync {
    /// Orders the freeze of one of its file systems.
    fn freeze(&self, index: usize);

    /// How that went, if the kernel has returned from it by then.
    fn frozen(&self, index: usize, deadline: Instant) -> Option<nix::Result<()>>;

    /// Everything is frozen: the lease begins.
    fn complete(&self);

    /// Has everything thawed, and waits for that; `None` if it does not answer. It exits once everything is thawed.
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
    /// None: what other programs froze stays frozen.
    Nothing,
    /// Any of them may be frozen, and is to be thawed.
    Frozen,
}

/// How a new agent finds a guard.
#[derive(Clone, Debug)]
pub(crate) enum Takeover {
    /// By a new takeover socket.
    New,
    /// By the takeover socket of the guard that it replaces.
    Socket(TakeoverSocket),
    /// Not at all: it ends with its agent.
    None,
}

/// The socket on which a guard waits for a new agent. The agent keeps it, too, for a further guard: none can be made
/// while its directory is frozen.
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

/// Called when a guard does something by itself, from a thread that watches the guard.
pub(crate) type OnEvent = Box<dyn FnMut(GuardEvent) + Send>;

/// What a guard did by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuardEvent {
    /// It has thawed everything and left a note.
    Thawed,
    /// After a thaw: the kernel has returned from a stuck call, or the guard has ended.
    Returned,
    /// Its process has ended before a thaw.
    Ended,
}

/// A guard that was taken over.
#[derive(Debug)]
pub(crate) struct TakenOver {
    /// The guard.
    pub(crate) guard: Arc<dyn Guard>,
    /// What it holds, in the order of freezing.
    pub(crate) targets: Vec<Target>,
    /// What is left of the lease.
    pub(crate) lease: Lease,
    /// Whether they are frozen. Otherwise they were thawed, except what is stuck.
    pub(crate) is_frozen: bool,
}

/// What is done to file systems, and the argument of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// File systems are frozen, or about to be.
    Freeze,
    /// They are thawed.
    Thaw,
}
