//! The agent's environment variables.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

/// The environment at start. That of the process is never read again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    variables: Vec<(OsString, OsString)>,
}

/// Variables that the service manager sets for this process only.
const OUR_OWN: [&str; 6] =
    ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// Where helper programs are looked up when the environment has no `PATH`.
pub(crate) const HELPER_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Environment {
    /// The variables of the process.
    pub(crate) fn from_process() -> Self {
        Self { variables: std::env::vars_os().collect() }
    }

    /// The value of a variable.
    pub(crate) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str())
    }

    /// The value of a variable, if it is UTF-8.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.variable(name).and_then(OsStr::to_str)
    }

    /// The environment of helper programs, as `NAME=value`. It always has a `PATH`.
    pub(crate) fn for_helpers(&self) -> Vec<Vec<u8>> {
        let mut variables = self.for_children();
        if self.variable("PATH").is_none() {
            variables.push(format!("PATH={HELPER_PATH}").into());
        }
        variables
    }

    /// The environment of other programs, as `NAME=value`.
    pub(crate) fn for_children(&self) -> Vec<Vec<u8>> {
        let inherited = self.variables.iter().filter(|(key, _)| OUR_OWN.iter().all(|own| key != own));
        inherited.map(|(key, value)| [key.as_bytes(), b"=", value.as_bytes()].concat()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Environment {
        /// Just these variables.
        pub(crate) fn of(variables: &[(&str, &str)]) -> Self {
            Self { variables: variables.iter().map(|(key, value)| (key.into(), value.into())).collect() }
        }
    }

    #[test]
    fn a_helper_always_has_a_path() {
        let helpers = |variables| Environment::of(variables).for_helpers();
        assert_eq!(helpers(&[("PATH", "/x")]), [b"PATH=/x"]);
        assert_eq!(helpers(&[("A", "b")]), [b"A=b".to_vec(), format!("PATH={HELPER_PATH}").into_bytes()]);
    }

    #[test]
    fn children_do_not_get_the_variables_of_the_service_manager() {
        let variables = [("PATH", "/bin"), ("LISTEN_FDS", "1"), ("NOTIFY_SOCKET", "/run/notify")];
        let environment = Environment::of(&variables);
        assert_eq!(environment.for_children(), [b"PATH=/bin"]);
        assert_eq!(environment.text("LISTEN_FDS"), Some("1"));
    }
}
