//! What the real agent tells a service manager that listens.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::{
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::TIMEOUT;

/// A service manager and the agent it started; both end with the test.
struct Service {
    directory: tempfile::TempDir,
    manager: UnixDatagram,
    agent: Child,
}

impl Service {
    fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let manager = UnixDatagram::bind(directory.path().join("manager")).unwrap();
        manager.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_qgad"));
        command.env("QGA_CONF", "config").env("NOTIFY_SOCKET", "manager").envs(variables.iter().copied());
        command.args(["-t", "."]).args(arguments).current_dir(directory.path());
        let agent = command.spawn().unwrap();
        Self { directory, manager, agent }
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn hear(&self) -> String {
        let mut buffer = [0; 500];
        let length = self.manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn end(&mut self) {
        kill(Pid::from_raw(self.agent.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        assert!(self.agent.wait().unwrap().success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

#[test]
fn an_agent_tells_when_it_serves_and_when_it_leaves() {
    let mut service = Service::start(&["-m", "unix-listen", "-p", "socket"], &[]);
    assert_eq!(service.hear(), "READY=1\nSTATUS=serving the host");
    service.end();
    assert_eq!(service.hear(), "STOPPING=1");
}

#[test]
fn an_agent_that_waits_for_its_port_is_ready_and_says_what_it_waits_for() {
    let service = Service::start(&["-p", "port", "-r"], &[]);
    assert_eq!(service.hear(), "READY=1\nSTATUS=waiting for the host's port port");
    // Anything that can be opened does as a port.
    std::os::unix::fs::symlink("/dev/ptmx", service.directory().join("port")).unwrap();
    assert_eq!(service.hear(), "STATUS=serving the host on port");
}

#[test]
fn a_manager_that_has_a_watchdog_is_pinged_again_and_again() {
    let service = Service::start(&["-m", "unix-listen", "-p", "socket"], &[("WATCHDOG_USEC", "20000")]);
    assert_eq!(service.hear(), "READY=1\nSTATUS=serving the host");
    for _ in 0..3 {
        assert_eq!(service.hear(), "WATCHDOG=1");
    }
}
