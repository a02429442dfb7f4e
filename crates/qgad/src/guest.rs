//! What a command can see and reach: the machine, and the state that outlives a connection.

use std::{
    ffi::OsString,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use qga::{Spec, command::QUERY_DEADLINE};

use crate::{dispatch::Handler, policy::Policy, root::Root};

/// The machine and the agent's own state, shared by all sessions.
#[derive(Debug)]
pub(crate) struct Guest {
    /// The machine's files.
    pub(crate) root: Root,
    /// What the agent was started with.
    pub(crate) environment: Environment,
    /// Every command there is, in the protocol's order.
    pub(crate) handlers: &'static [Handler],
    /// Which of them are served.
    pub(crate) policy: Policy,
    /// What the deadline of a query is to be; those of other commands stay in proportion.
    pub(crate) command_timeout: Duration,
    /// Whether file systems are frozen.
    pub(crate) is_frozen: AtomicBool,
}

/// The variables that commands depend on, read once at start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// `TZ`: the time zone, in place of /etc/localtime.
    pub(crate) time_zone: Option<OsString>,
    /// `QGA_OS_RELEASE`: the file that names the operating system, in place of the usual two.
    pub(crate) os_release: Option<OsString>,
}

impl Guest {
    /// How long a command may run before its peer gets an error instead.
    pub(crate) fn deadline(&self, spec: &Spec) -> Duration {
        spec.deadline.mul_f64(self.command_timeout.as_secs_f64() / QUERY_DEADLINE.as_secs_f64())
    }

    /// Whether file systems are frozen now.
    pub(crate) fn is_frozen(&self) -> bool {
        self.is_frozen.load(Ordering::Acquire)
    }
}
