//! What a command can see and reach: the machine, and the state that outlives a connection.

use std::{
    ffi::{OsStr, OsString},
    time::Duration,
};

use nix::{fcntl::OFlag, libc, sys::stat::fstat};
use qga::{
    Spec,
    command::{HELPER_DEADLINE, QUERY_DEADLINE},
    wire::message::Error,
};

use crate::{
    claims::Claims,
    dispatch::Handler,
    errno,
    files::Files,
    freeze::Freezer,
    glob::Globs,
    policy::Policy,
    programs::Programs,
    root::Root,
    spawn::{self, Program, helper::Helper},
    state::State,
    storage::Probes,
};

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
    /// Network interfaces that are not told of.
    pub(crate) interfaces_exclude: Globs,
    /// What the deadline of a query is to be; those of helper programs stay in proportion.
    pub(crate) command_timeout: Duration,
    /// What outlives the agent.
    pub(crate) state: State,
    /// The open files.
    pub(crate) files: Files,
    /// The programs that hosts started.
    pub(crate) programs: Programs,
    /// Questions to devices, some of which may never be answered.
    pub(crate) probes: Probes,
    /// The freeze.
    pub(crate) freezer: Freezer,
    /// Trims, some of which may never end.
    pub(crate) trims: Probes,
    /// Which of the guest's own files somebody is changing.
    pub(crate) claims: Claims,
}

/// The environment as it was at start; the process's own is never looked at again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    variables: Vec<(OsString, OsString)>,
}

/// Variables that are meant for this process and none that it starts.
const OUR_OWN: [&str; 6] =
    ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// Any of the permissions to execute a file.
const EXECUTABLE: libc::mode_t = libc::S_IXUSR | libc::S_IXGRP | libc::S_IXOTH;
/// Where helper programs are looked for when the environment does not say.
const HELPER_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Guest {
    /// How long a command may run before its peer gets an error instead.
    pub(crate) fn deadline(&self, spec: &Spec) -> Duration {
        if spec.deadline > HELPER_DEADLINE {
            return spec.deadline;
        }
        spec.deadline.mul_f64(self.command_timeout.as_secs_f64() / QUERY_DEADLINE.as_secs_f64())
    }

    /// Whether there is a program at this path: a file that somebody may execute.
    pub(crate) fn has_program(&self, path: &str) -> bool {
        let status = self.root.open(path, OFlag::O_PATH).and_then(|file| Ok(fstat(file)?));
        status.is_ok_and(|status| status.st_mode & libc::S_IFMT == libc::S_IFREG && status.st_mode & EXECUTABLE != 0)
    }

    /// Where a program is, by its name.
    pub(crate) fn find_program(&self, name: &str) -> Option<String> {
        let path = self.environment.text("PATH").unwrap_or(HELPER_PATH);
        path.split(':').map(|directory| format!("{directory}/{name}")).find(|program| self.has_program(program))
    }

    /// Runs a program of the guest's to its end, and returns its output. A fake machine has none to run.
    ///
    /// # Errors
    /// When it fails at what it is run for, or takes too long.
    pub(crate) fn run_helper(
        &self,
        path: &str,
        arguments: &[&str],
        input: &[u8],
        action: &str,
        time_limit: Duration,
    ) -> Result<String, Error> {
        if !self.root.is_machine() {
            return Err(Error::generic(format!("this machine cannot run {path}")));
        }
        let program = Program::new(path, arguments.iter().copied(), self.environment.for_helpers())
            .map_err(|error| Error::generic(format!("failed to run {path}: {}", errno::words(error))))?;
        Helper { program, action, input, time_limit }.run()
    }
}

impl Environment {
    /// The process's variables.
    pub(crate) fn of_process() -> Self {
        Self { variables: std::env::vars_os().collect() }
    }

    /// A variable's value.
    pub(crate) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str())
    }

    /// A variable's value, if it is text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.variable(name).and_then(OsStr::to_str)
    }

    /// What a program gets that a command waits for, as `NAME=value`. Where no path is set, all usual places are.
    pub(crate) fn for_helpers(&self) -> Vec<Vec<u8>> {
        let mut variables = spawn::inherited(self.for_children());
        if self.variable("PATH").is_none() {
            variables.push(format!("PATH={HELPER_PATH}").into());
        }
        variables
    }

    /// What a program gets that the agent starts.
    pub(crate) fn for_children(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        let inherited = self.variables.iter().filter(|(key, _)| OUR_OWN.iter().all(|own| key != own));
        inherited.map(|(key, value)| (key.as_os_str(), value.as_os_str()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A guest for tests of what lies above the commands.
    pub(crate) fn guest_without_a_machine() -> Guest {
        guest_at(tempfile::tempdir().unwrap().path())
    }

    /// A guest whose root and state directory are one directory.
    pub(crate) fn guest_at(root: &std::path::Path) -> Guest {
        Guest {
            root: Root::at(root),
            environment: Environment::default(),
            handlers: crate::dispatch::HANDLERS,
            policy: Policy::new(&crate::settings::Settings::default()),
            interfaces_exclude: Globs::default(),
            command_timeout: QUERY_DEADLINE,
            state: State::load(root, true).unwrap(),
            files: Files::default(),
            programs: Programs::new().unwrap(),
            probes: Probes::default(),
            freezer: crate::freeze::tests::freezer_of_nothing(root),
            trims: Probes::default(),
            claims: Claims::default(),
        }
    }

    impl Environment {
        /// Just these variables.
        pub(crate) fn of(variables: &[(&str, &str)]) -> Self {
            Self { variables: variables.iter().map(|(key, value)| (key.into(), value.into())).collect() }
        }
    }

    #[test]
    fn a_helper_has_a_path_in_any_case() {
        let helpers = |variables| Environment::of(variables).for_helpers();
        assert_eq!(helpers(&[("PATH", "/x")]), [b"PATH=/x"]);
        assert_eq!(helpers(&[("A", "b")]), [b"A=b".to_vec(), format!("PATH={HELPER_PATH}").into_bytes()]);
    }

    #[test]
    fn a_fake_machine_runs_no_program_of_the_real_one() {
        let guest = guest_without_a_machine();
        let refusal = guest.run_helper("/bin/true", &[], b"", "do nothing", Duration::from_secs(1)).unwrap_err();
        assert_eq!(refusal.desc, "this machine cannot run /bin/true");
    }

    #[test]
    fn children_do_not_get_what_is_meant_for_the_agent() {
        let variables = [("PATH", "/bin"), ("LISTEN_FDS", "1"), ("NOTIFY_SOCKET", "/run/notify")];
        let environment = Environment::of(&variables);
        assert_eq!(environment.for_children().collect::<Vec<_>>(), [(OsStr::new("PATH"), OsStr::new("/bin"))]);
        assert_eq!(environment.text("LISTEN_FDS"), Some("1"));
    }
}
