//! Notifications to the service manager, see sd_notify(3).
//!
//! The manager names a socket in `NOTIFY_SOCKET`: by a path, or by an abstract name with `@` in front. It is told when
//! the agent is ready, what it does whenever that changes, and when it leaves. If the manager has a watchdog
//! (`WATCHDOG_USEC`), it gets a ping in half that time; this is the only timer of an idle agent. The pings come from
//! the I/O loop, at the end of a round, so that a loop that hangs sends none. Messages are sent without waiting, and
//! one for which there is no room is dropped.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::environment::Environment;

/// What the agent tells while file systems are frozen.
pub(crate) const FROZEN: &str = "file systems are frozen";

/// The way to the service manager; without one, nothing is told.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// How long the manager waits for a watchdog ping.
    watchdog: Option<Duration>,
    told: Mutex<Told>,
}

/// What the manager knows.
#[derive(Debug, Default)]
struct Told {
    is_ready: bool,
    is_frozen: bool,
    /// What the agent does when nothing is frozen.
    status: String,
}

impl Notifier {
    /// The manager that started this process.
    pub(crate) fn of(environment: &Environment) -> Self {
        let Some(name) = environment.variable("NOTIFY_SOCKET") else { return Self::default() };
        match connect(name) {
            Ok(manager) => Self { manager: Some(manager), watchdog: watchdog(environment), told: Mutex::default() },
            Err(error) => {
                log::warn!("the service manager cannot be told anything: {error}");
                Self::default()
            }
        }
    }

    /// Whether there is somebody to tell.
    pub(crate) fn is_connected(&self) -> bool {
        self.manager.is_some()
    }

    /// How often a watchdog ping is due, if ever.
    pub(crate) fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|timeout| timeout / 2)
    }

    /// The agent is ready, and does this; told when it is new. While file systems are frozen that is told instead.
    pub(crate) fn tell(&self, status: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_ready && told.status == status {
            return;
        }
        status.clone_into(&mut told.status);
        let ready = if told.is_ready { "" } else { "READY=1\n" };
        told.is_ready = true;
        self.send(&format!("{ready}STATUS={}", if told.is_frozen { FROZEN } else { status }));
    }

    /// File systems are frozen, or no more. Returns whether that is new.
    pub(crate) fn tell_frozen(&self, is_frozen: bool) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_frozen == is_frozen {
            return false;
        }
        told.is_frozen = is_frozen;
        self.send(&format!("STATUS={}", if is_frozen { FROZEN } else { &told.status }));
        true
    }

    /// The agent is alive.
    pub(crate) fn ping_watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    /// The agent leaves.
    pub(crate) fn leave(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, message: &str) {
        if let Some((socket, manager)) = &self.manager {
            let _ = socket.send_to_addr(message.as_bytes(), manager);
        }
    }
}

fn connect(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let manager = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(Path::new(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, manager))
}

/// How long the manager waits for a watchdog ping of this process.
fn watchdog(environment: &Environment) -> Option<Duration> {
    if environment.text("WATCHDOG_PID").is_some_and(|pid| pid != std::process::id().to_string()) {
        return None;
    }
    let microseconds = environment.text("WATCHDOG_USEC")?.parse().ok().filter(|&microseconds| microseconds > 0)?;
    Some(Duration::from_micros(microseconds))
}

/// When the next watchdog ping is due.
#[derive(Debug)]
pub(crate) struct WatchdogTimer {
    interval: Duration,
    at: Instant,
}

impl WatchdogTimer {
    /// The first ping is due at once.
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, at: Instant::now() }
    }

    /// When the next ping is due.
    pub(crate) fn next_ping(&self) -> Instant {
        self.at
    }

    /// Whether a ping is due. If so, the next one is due after another interval.
    pub(crate) fn rearm_if_due(&mut self, now: Instant) -> bool {
        let is_due = self.at <= now;
        if is_due {
            self.at = now + self.interval;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the manager at this address hears.
    fn check(address: &SocketAddr, name: &str, tell: impl FnOnce(&Notifier), heard: &[&str]) {
        let manager = UnixDatagram::bind_addr(address).unwrap();
        tell(&Notifier::of(&Environment::of(&[("NOTIFY_SOCKET", name)])));
        manager.set_nonblocking(true).unwrap();
        let mut buffer = [0; 200];
        for expected in heard {
            let length = manager.recv(&mut buffer).unwrap();
            assert_eq!(String::from_utf8_lossy(&buffer[..length]), *expected);
        }
        assert!(manager.recv(&mut buffer).is_err(), "more than that was told");
    }

    fn check_at_a_path(tell: impl FnOnce(&Notifier), heard: &[&str]) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        check(&SocketAddr::from_pathname(&path).unwrap(), path.to_str().unwrap(), tell, heard);
    }

    #[test]
    fn a_manager_is_found_by_a_path_and_by_an_abstract_name() {
        check_at_a_path(Notifier::leave, &["STOPPING=1"]);
        let name = format!("qgad-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        check(&address, &format!("@{name}"), Notifier::leave, &["STOPPING=1"]);
    }

    #[test]
    fn a_manager_that_is_not_there_or_gone_is_no_trouble() {
        Notifier::default().tell("serving");
        for name in ["", "@", "/no/such/socket"] {
            Notifier::of(&Environment::of(&[("NOTIFY_SOCKET", name)])).tell("serving");
        }
    }

    #[test]
    fn what_has_not_changed_is_not_told_again() {
        let tell = |notifier: &Notifier| {
            notifier.tell("waiting");
            notifier.tell("waiting");
            notifier.tell("serving");
        };
        check_at_a_path(tell, &["READY=1\nSTATUS=waiting", "STATUS=serving"]);
    }

    #[test]
    fn a_freeze_hides_what_the_agent_does_until_it_ends() {
        let tell = |notifier: &Notifier| {
            assert!(notifier.tell_frozen(true));
            assert!(!notifier.tell_frozen(true));
            notifier.tell("serving");
            assert!(notifier.tell_frozen(false));
        };
        let frozen = format!("STATUS={FROZEN}");
        check_at_a_path(tell, &[&frozen, &format!("READY=1\n{frozen}"), "STATUS=serving"]);
    }

    #[test]
    fn pings_go_to_a_manager_that_wants_them_from_this_process() {
        let interval = |variables: &[(&str, &str)]| {
            let variables = [&[("NOTIFY_SOCKET", "/nowhere")], variables].concat();
            Notifier::of(&Environment::of(&variables)).watchdog_interval()
        };
        let us = std::process::id().to_string();
        assert_eq!(interval(&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", &us)]), Some(Duration::from_millis(1500)));
        assert_eq!(interval(&[("WATCHDOG_USEC", "3000000")]), Some(Duration::from_millis(1500)));
        assert_eq!(interval(&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "1")]), None);
        assert_eq!(interval(&[("WATCHDOG_USEC", "0")]), None);
        assert_eq!(interval(&[]), None);
    }
}
