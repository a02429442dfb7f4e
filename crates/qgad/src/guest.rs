//! What commands work on: the machine, and the state of the agent that outlives a connection.

use std::time::Duration;

use qga::{
    Spec,
    command::{HELPER_TIMEOUT, QUERY_TIMEOUT},
};

use crate::{
    activity::Activity,
    environment::Environment,
    freeze::Freezer,
    open_files::OpenFiles,
    policy::Policy,
    process::{helpers::Helpers, jobs::Jobs, programs::Programs},
    root::Root,
    service::state::State,
    storage::Probes,
    util::{
        glob::Globs,
        in_use::{InUse, Use},
        keyed_lock::KeyedLock,
    },
};

/// The machine and the agent's own state, shared by all sessions.
#[derive(Debug)]
pub(crate) struct Guest {
    /// The machine's files.
    pub(crate) root: Root,
    /// The environment variables that the agent was started with.
    pub(crate) environment: Environment,
    /// Which commands are served.
    pub(crate) policy: Policy,
    /// Network interfaces that are not reported.
    pub(crate) interfaces_exclude: Globs,
    /// The timeout of a query. Those of helper programs stay in proportion.
    pub(crate) command_timeout: Duration,
    /// The state that outlives the agent.
    pub(crate) state: State,
    /// The open files.
    pub(crate) files: OpenFiles,
    /// The programs that hosts started.
    pub(crate) programs: Programs,
    /// The jobs, also those of an earlier agent.
    pub(crate) jobs: Jobs,
    /// Questions to devices, which may never answer.
    pub(crate) probes: Probes,
    /// The freeze.
    pub(crate) freezer: Freezer,
    /// Trims, which may never end.
    pub(crate) trims: Probes,
    /// What the agent has done since its start.
    pub(crate) activity: Activity,
    /// The resources that commands use and that may not answer.
    pub(crate) in_use: InUse,
    /// Locks of the guest's own files that commands change.
    pub(crate) file_locks: KeyedLock,
}

impl Guest {
    /// The helper programs of the machine.
    pub(crate) fn helpers(&self) -> Helpers<'_> {
        Helpers::new(&self.root, &self.environment)
    }

    /// For a command that uses a file, a program or a user: it names each resource before it uses it.
    pub(crate) fn begin_use(&self, spec: &Spec) -> Use<'_> {
        self.in_use.begin(self.timeout(spec))
    }

    /// How long a command may run until its peer gets an error instead.
    pub(crate) fn timeout(&self, spec: &Spec) -> Duration {
        if spec.timeout > HELPER_TIMEOUT {
            return spec.timeout;
        }
        spec.timeout.mul_f64(self.command_timeout.as_secs_f64() / QUERY_TIMEOUT.as_secs_f64())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A guest for tests that need none of its files.
    pub(crate) fn guest_without_a_machine() -> Guest {
        guest_at(tempfile::tempdir().unwrap().path())
    }

    /// A guest whose root and state directory are the same directory.
    pub(crate) fn guest_at(root: &std::path::Path) -> Guest {
        Guest {
            root: Root::at(root),
            environment: Environment::default(),
            policy: Policy::new(&crate::config::settings::Settings::default()),
            interfaces_exclude: Globs::default(),
            command_timeout: QUERY_TIMEOUT,
            state: State::load(root, true).unwrap(),
            files: OpenFiles::default(),
            programs: Programs::new().unwrap(),
            jobs: Jobs::new(root),
            probes: crate::storage::probes::tests::probes(),
            freezer: crate::freeze::tests::freezer_of_nothing(root),
            trims: crate::storage::probes::tests::probes(),
            activity: Activity::begin(),
            in_use: InUse::default(),
            file_locks: KeyedLock::default(),
        }
    }
}
