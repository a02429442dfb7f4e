//! The guard process.
//!
//! It receives what it holds on its standard input, reports that it is ready, and waits. The threads that thaw are
//! started before that, so that thawing needs no further resource. It writes its own messages to standard error, after
//! everything is thawed. Its memory is locked, and the kernel's out-of-memory killer passes it over.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        socket::{SockFlag, getsockopt, setsockopt, sockopt},
        time::TimeVal,
    },
};

use super::{GRACE, limit_waiting, message::Message, message::send_target};
use crate::{
    environment::Environment,
    freeze::{
        Hooks, Lease, Marker,
        machine::lock_memory,
        target::{Kernel, Target},
        worker::{Worker, thaw_each},
    },
    process::{descriptor_passing::take_standard_input, local_socket::is_ours},
    root::Root,
    sys,
    util::errno,
};

/// How often a guard looks whether its agent still lives. A process that was killed while one of its threads is in the
/// kernel for good, for a dead disk, keeps its descriptors: its socket does not end.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// All that a guard has.
struct Guard {
    agent: Option<OwnedFd>,
    takeover_socket: Option<OwnedFd>,
    marker: Marker,
    hooks: Hooks,
    /// The setting, to be told to the guard of the next agent.
    lease: Lease,
    workers: Vec<Worker>,
    signals: SignalFd,
    is_complete: bool,
    lease_ends: Option<Instant>,
    grace_ends: Option<Instant>,
}

/// When a guard leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    /// At once: the agent has thawed what it froze. What others froze stays so.
    Now,
    /// When no freeze that the agent began can succeed any more.
    WithTheAgent,
}

/// Runs the guard to its end.
pub(crate) fn run() -> ExitCode {
    match Guard::get_ready() {
        Ok(Some(mut guard)) => {
            if guard.watch() == Leave::WithTheAgent {
                guard.stay();
            }
            ExitCode::SUCCESS
        }
        // The agent has thought better of it.
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("the guard of a freeze cannot get ready: {}", errno::describe(error));
            ExitCode::FAILURE
        }
    }
}

impl Guard {
    fn get_ready() -> io::Result<Option<Self>> {
        // A name for lists of processes; that of the program is the path by which it was started.
        let _ = prctl::set_name(c"qgad-guard");
        let agent = take_standard_input()?;
        let (mut home, mut hooks, mut lease, mut targets) = (None, Hooks::new(None, Duration::ZERO), None, Vec::new());
        loop {
            match Message::receive(&agent)? {
                Some(Message::Home(directory, None)) => home = Some(directory),
                Some(Message::Hook(path, limit)) => hooks = Hooks::new(Some(path), limit),
                Some(Message::Lease(given)) => lease = given,
                Some(Message::Target(mount_point, descriptor)) => targets.push(Target { mount_point, descriptor }),
                Some(Message::Ready) => break,
                Some(_) => return Err(io::ErrorKind::InvalidData.into()),
                None => return Ok(None),
            }
        }
        let directory: PathBuf = home.ok_or(io::ErrorKind::InvalidData)?;
        let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
        signals.thread_block()?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let start = |target| Worker::start(Arc::new(target), Arc::new(Kernel));
        let workers = targets.into_iter().map(start).collect::<Result<_, _>>()?;
        // Neither is there everywhere, and the guard is better than none without.
        let _ = fs::write("/proc/self/oom_score_adj", "-1000");
        if let Err(error) = lock_memory() {
            log::warn!("the guard of a freeze failed to lock its memory: {}", errno::describe(error));
        }
        Message::Ready.send(&agent)?;
        Ok(Some(Self {
            agent: Some(agent),
            takeover_socket: None,
            marker: Marker::new(&Root::machine(), &directory),
            hooks,
            lease,
            workers,
            signals,
            is_complete: false,
            lease_ends: lease.map(|lease| Instant::now() + lease),
            grace_ends: None,
        }))
    }

    /// Waits until there is a reason to leave.
    fn watch(&mut self) -> Leave {
        loop {
            let [has_signal, has_claim, has_message] = self.wait();
            if has_signal && let Ok(Some(signal)) = self.signals.read_signal() {
                return self.end(&format!("its guard was told to end by signal {}", signal.ssi_signo));
            }
            if has_message {
                match self.agent.as_ref().map(Message::receive) {
                    Some(Ok(Some(Message::Complete))) if !self.is_complete => {
                        self.is_complete = true;
                        self.lease_ends = self.lease.map(|lease| Instant::now() + lease);
                    }
                    Some(Ok(Some(Message::Home(_, takeover_socket)))) => self.takeover_socket = takeover_socket,
                    Some(Ok(Some(Message::Leave))) => return Leave::Now,
                    Some(Ok(Some(Message::Thaw))) => {
                        thaw_each(&self.workers);
                        return Leave::WithTheAgent;
                    }
                    Some(Ok(Some(_))) | None => {}
                    Some(Ok(None) | Err(_)) => self.agent = None,
                }
            }
            if self.grace_ends.is_none() && !self.is_agent_alive() {
                if !self.is_complete {
                    return self.end("the agent ended before everything was frozen");
                }
                if self.takeover_socket.is_none() {
                    return self.end("the agent ended, and no other one can take over");
                }
                self.agent = None;
                self.grace_ends = Some(Instant::now() + GRACE);
            }
            if has_claim {
                self.be_claimed();
            }
            let now = Instant::now();
            if self.lease_ends.is_some_and(|end| end <= now) {
                let lease = self.lease.unwrap_or_default().as_secs_f64();
                return self.end(&format!("its lease of {lease} s ended"));
            }
            if self.grace_ends.is_some_and(|end| end <= now) {
                return self.end(&format!("there was no agent for {} s", GRACE.as_secs()));
            }
        }
    }

    /// Waits for a signal, a new agent, a message, or a deadline.
    fn wait(&self) -> [bool; 3] {
        let watched = [
            Some(self.signals.as_fd()),
            self.takeover_socket.as_ref().map(AsFd::as_fd),
            self.agent.as_ref().map(AsFd::as_fd),
        ];
        let wanted = |descriptor| PollFd::new(descriptor, PollFlags::POLLIN);
        let mut polled: Vec<_> = watched.iter().copied().flatten().map(wanted).collect();
        let look = self.agent.as_ref().map(|_| Instant::now() + POLL_INTERVAL);
        let next = [self.lease_ends, self.grace_ends, look].into_iter().flatten().min();
        // Rounded up, so that the deadline has passed when it is looked at.
        let timeout = next.map_or(PollTimeout::NONE, |next| {
            let sleep = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(sleep).unwrap_or(PollTimeout::MAX)
        });
        if poll(&mut polled, timeout).is_err() {
            return [false; 3];
        }
        let mut ready = polled.iter().map(|descriptor| descriptor.any().unwrap_or_default());
        watched.map(|descriptor| descriptor.is_some() && ready.next().unwrap_or_default())
    }

    /// A new agent gets all there is, unless there is one already.
    fn be_claimed(&mut self) {
        let Some(takeover_socket) = &self.takeover_socket else { return };
        let Ok(agent) = sys::socket::accept(takeover_socket, SockFlag::empty()) else { return };
        if self.agent.is_none() && self.is_complete && self.hand_over(&agent).is_ok() {
            self.agent = Some(agent);
            self.grace_ends = None;
        }
    }

    fn hand_over(&self, agent: &OwnedFd) -> nix::Result<()> {
        if !is_ours(agent)? {
            return Err(Errno::EPERM);
        }
        limit_waiting(agent)?;
        for worker in &self.workers {
            let target = worker.target();
            send_target(agent, &target.mount_point, &target.descriptor)?;
        }
        let remaining = self.lease_ends.map(|end| end.saturating_duration_since(Instant::now()));
        Message::Lease(remaining).send(agent)?;
        let takeover_socket =
            self.takeover_socket.as_ref().and_then(|takeover_socket| takeover_socket.try_clone().ok());
        Message::Home(self.marker.directory().into(), takeover_socket).send(agent)?;
        Message::Ready.send(agent)?;
        // From now on it is waited for as long as it takes.
        setsockopt(agent, sockopt::ReceiveTimeout, &TimeVal::new(0, 0))
    }

    /// Whether there is a process at the other end of the socket that is more than a thread that cannot end.
    fn is_agent_alive(&self) -> bool {
        let Some(agent) = &self.agent else { return false };
        let Ok(credentials) = getsockopt(agent, sockopt::PeerCredentials) else { return true };
        let status = Root::machine().read(format!("/proc/{}/stat", credentials.pid()));
        status.map_or(true, |status| !is_dead(&status))
    }

    /// Thaws everything, and says so: in a note, to the agent, in the log.
    fn end(&mut self, reason: &str) -> Leave {
        let thawed = thaw_each(&self.workers);
        let reason = format!("the freeze ended by itself because {reason}");
        if let Err(error) = self.marker.note(&reason) {
            log::error!("{error}");
        }
        self.marker.clear();
        log::warn!("{reason}");
        if !thawed.stuck.is_empty() {
            log::error!("failed to thaw {}: no answer", thawed.stuck.join(", "));
        }
        match &self.agent {
            Some(agent) if self.is_agent_alive() => {
                // An agent that is gone by now finds the note.
                let _ = Message::Thawed.send(agent);
            }
            _ => {
                // A new agent must not run it at the same time. What goes wrong with it is in the log.
                self.marker.clear_thaw_hook_pending();
                let _ = self.hooks.thaw(&Environment::from_process());
            }
        }
        Leave::WithTheAgent
    }

    /// Waits until the agent says that no freeze is under way, or until its last thread is gone and the socket ends. A
    /// freeze that succeeded since the thaw is undone then.
    fn stay(mut self) {
        self.takeover_socket = None;
        while let Some(agent) = &self.agent {
            match Message::receive(agent) {
                Ok(Some(Message::Leave)) => return,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => self.agent = None,
            }
        }
        thaw_each(&self.workers);
        for worker in &self.workers {
            worker.thawed_at_last();
        }
    }
}

/// Whether a process is no more than what is left of one, by the letter behind its name in proc(5)'s `stat`.
fn is_dead(status: &[u8]) -> bool {
    let behind_name = status.iter().rposition(|&byte| byte == b')').map(|end| &status[end + 1..]);
    behind_name.is_some_and(|fields| matches!(fields.trim_ascii_start().first(), Some(b'Z' | b'X')))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::sys::socket::{AddressFamily, SockType, socketpair};

    use super::*;
    use crate::freeze::{
        target::Operations,
        tests::{Fake, target},
    };

    /// A guard of `/a`, which is frozen, that does something until it leaves; the agent's end of its socket is passed
    /// on.
    fn check(
        prepare: impl FnOnce(&mut Guard),
        converse: impl FnOnce(OwnedFd, &Arc<Fake>),
        has_frozen_in_the_end: &[&str],
    ) {
        let directory = tempfile::tempdir().unwrap();
        let fake = Fake::new(&[]);
        fake.freeze(&target("/a")).unwrap();
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let mut guard = Guard {
            agent: Some(theirs),
            takeover_socket: None,
            marker: Marker::new(&Root::machine(), directory.path()),
            hooks: Hooks::new(None, Duration::ZERO),
            lease: None,
            workers: vec![Worker::start(Arc::new(target("/a")), Arc::clone(&fake) as _).unwrap()],
            signals: SignalFd::with_flags(&SigSet::empty(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).unwrap(),
            is_complete: false,
            lease_ends: None,
            grace_ends: None,
        };
        prepare(&mut guard);
        let guarding = thread::spawn(move || {
            if guard.watch() == Leave::WithTheAgent {
                guard.stay();
            }
        });
        converse(ours, &fake);
        guarding.join().unwrap();
        assert_eq!(fake.frozen(), has_frozen_in_the_end);
    }

    /// What an abandoned thread of the agent does.
    fn freeze_late(fake: &Fake) {
        fake.wait_for(|fake| fake.frozen().is_empty());
        fake.freeze(&target("/a")).unwrap();
    }

    #[test]
    fn a_freeze_that_succeeds_after_the_thaw_in_an_agent_that_ends_is_undone() {
        let converse = |agent: OwnedFd, fake: &Arc<Fake>| {
            Message::Thaw.send(&agent).unwrap();
            freeze_late(fake);
        };
        check(|_| {}, converse, &[]);
    }

    #[test]
    fn a_freeze_that_succeeds_after_the_lease_in_an_agent_that_ends_is_undone() {
        let converse = |agent: OwnedFd, fake: &Arc<Fake>| {
            assert!(matches!(Message::receive(&agent), Ok(Some(Message::Thawed))));
            freeze_late(fake);
        };
        check(|guard| guard.lease_ends = Some(Instant::now()), converse, &[]);
    }

    #[test]
    fn a_guard_that_is_told_to_leave_leaves_what_others_froze() {
        let converse = |agent: OwnedFd, fake: &Arc<Fake>| {
            Message::Thaw.send(&agent).unwrap();
            freeze_late(fake);
            Message::Leave.send(&agent).unwrap();
        };
        check(|_| {}, converse, &["/a"]);
        check(|_| {}, |agent, _| Message::Leave.send(&agent).unwrap(), &["/a"]);
    }

    #[test]
    fn without_a_way_for_another_agent_a_freeze_ends_with_its_agent() {
        check(|guard| guard.is_complete = true, |_, _| {}, &[]);
    }

    #[test]
    fn a_process_is_dead_by_its_state_and_not_by_its_name() {
        assert!(is_dead(b"1 (qgad) Z 1 1"));
        assert!(is_dead(b"1 (a) S b) X 1 1"));
        assert!(!is_dead(b"1 (a) Z b) D 1 1"));
        assert!(!is_dead(b"1 (qgad) S 1 1") && !is_dead(b""));
    }
}
