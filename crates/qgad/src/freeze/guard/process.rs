//! The guard process.
//!
//! It receives its file systems and settings on its standard input, reports that it is ready, and waits. The threads
//! that freeze and thaw are started before that, so that thawing needs no further resource. It writes its own messages
//! to standard error, after everything is thawed. Its memory is locked, and the kernel's out-of-memory killer passes it
//! over.
//!
//! Its main thread makes no call that can block on a file system, and waits for no program: freezing, thawing, the note
//! and the thaw hook have threads. So it always answers, also about what is stuck.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        socket::{SockFlag, getsockopt, setsockopt, sockopt},
        time::TimeVal,
    },
};

use super::{
    GRACE, limit_waiting,
    message::{Message, send_target},
    takeover_socket,
};
use crate::{
    environment::Environment,
    freeze::{
        BoundedCall, Hooks, Lease, Marker, RECORD_TIMEOUT,
        machine::lock_memory,
        parts::{Holding, Thawed},
        target::{Kernel, Operations, Target},
        worker::OnDone,
        workers::Workers,
    },
    process::{descriptor_passing::take_standard_input, local_socket::is_ours},
    root::Root,
    sys,
    util::{errno, threads},
};

/// How often a guard checks whether its agent still runs. If a killed process has a thread that is stuck in the kernel,
/// for instance on a dead disk, its descriptors stay open, and the guard sees no end of the socket.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Stack of the thread that writes the note and runs the hook.
const RECORD_STACK_BYTES: usize = 256 * 1024;

/// All that a guard has.
struct Guard {
    phase: Phase,
    agent: Option<OwnedFd>,
    takeover_socket: Option<OwnedFd>,
    marker: Marker,
    hooks: Arc<Hooks>,
    /// Whether the note about a thaw by itself is still to be written, or the thaw hook to end.
    is_recording: Arc<AtomicBool>,
    /// The setting, for the guard that the next agent starts.
    lease: Lease,
    workers: Workers,
    /// Of which freezes the agent knows the result.
    is_told: Vec<bool>,
    /// The last result of a thaw that was sent to the agent.
    told: Option<Thawed>,
    /// Readable when a worker has done something.
    done: Arc<EventFd>,
    signals: SignalFd,
    lease_ends: Option<Instant>,
    grace_ends: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The agent has not said that everything is frozen.
    Freezing,
    /// Everything is frozen.
    Frozen,
    /// Everything was thawed, except what is stuck.
    Thawed,
}

/// What there is to do.
#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    signal: bool,
    done: bool,
    new_agent: bool,
    message: bool,
}

/// The state of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    Stopped,
    Dead,
}

/// Runs the guard to its end.
pub(crate) fn run() -> ExitCode {
    match Guard::get_ready() {
        Ok(Some(mut guard)) => {
            guard.serve();
            ExitCode::SUCCESS
        }
        // The agent has cancelled the start.
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("the guard of a freeze cannot get ready: {}", errno::describe(error));
            ExitCode::FAILURE
        }
    }
}

impl Guard {
    fn get_ready() -> io::Result<Option<Self>> {
        // Lists of processes would show `exe`.
        let _ = prctl::set_name(c"qgad-guard");
        let agent = take_standard_input()?;
        let (mut state_directory, mut hooks, mut lease, mut targets) =
            (None, Hooks::new(None, Duration::ZERO), None, Vec::new());
        let holding = loop {
            match Message::receive(&agent)? {
                Some(Message::StateDirectory(directory, None)) => state_directory = Some(directory),
                Some(Message::Hook(path, limit)) => hooks = Hooks::new(Some(path), limit),
                Some(Message::Lease(given)) => lease = given,
                Some(Message::Target(target)) => targets.push(Arc::new(target)),
                Some(Message::GetReady(holding)) => break holding,
                Some(_) => return Err(io::ErrorKind::InvalidData.into()),
                None => return Ok(None),
            }
        };
        let directory: PathBuf = state_directory.ok_or(io::ErrorKind::InvalidData)?;
        let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
        signals.thread_block()?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let marker = Marker::new(&Root::machine(), &directory);
        let guard = Self::new(agent, marker, hooks, lease, (targets, &(Arc::new(Kernel) as _), holding), signals)?;
        // Either may be unavailable, and a guard without them is better than none.
        let _ = fs::write("/proc/self/oom_score_adj", "-1000");
        if let Err(error) = lock_memory() {
            log::warn!("the guard of a freeze failed to lock its memory: {}", errno::describe(error));
        }
        guard.tell(&Message::Ready);
        Ok(Some(guard))
    }

    fn new(
        agent: OwnedFd,
        marker: Marker,
        hooks: Hooks,
        lease: Lease,
        (targets, operations, holding): (Vec<Arc<Target>>, &Arc<dyn Operations>, Holding),
        signals: SignalFd,
    ) -> io::Result<Self> {
        let done = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let raising = Arc::clone(&done);
        // Fails only when it is raised already.
        let on_done: OnDone = Arc::new(move || {
            let _ = raising.write(1);
        });
        let is_told = vec![false; targets.len()];
        let workers = Workers::start(targets, operations, holding, &on_done)?;
        Ok(Self {
            phase: Phase::Freezing,
            agent: Some(agent),
            takeover_socket: None,
            marker,
            hooks: Arc::new(hooks),
            is_recording: Arc::default(),
            lease,
            workers,
            is_told,
            told: None,
            done,
            signals,
            lease_ends: lease.map(|lease| Instant::now() + lease),
            grace_ends: None,
        })
    }

    /// Serves its agent, until everything is thawed.
    fn serve(&mut self) {
        loop {
            let ready = self.wait();
            if ready.signal
                && let Ok(Some(signal)) = self.signals.read_signal()
            {
                self.end(&format!("its guard was told to end by signal {}", signal.ssi_signo));
            }
            if ready.message {
                self.serve_agent();
            }
            if ready.done {
                let _ = self.done.read();
            }
            if self.phase == Phase::Freezing {
                self.tell_frozen();
            }
            self.check_agent();
            if ready.new_agent {
                self.accept_takeover();
            }
            self.check_time();
            // An agent that is told of a thaw looks for the note.
            let may_tell = self.phase == Phase::Thawed && !self.is_recording.load(Ordering::Acquire);
            if may_tell && self.tell_thawed().stuck.is_empty() {
                return self.remove_takeover_socket();
            }
        }
    }

    /// Waits for a signal, a worker, a new agent, a message, or a deadline.
    fn wait(&self) -> Ready {
        let watched = [
            Some(self.signals.as_fd()),
            Some(self.done.as_fd()),
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
            return Ready::default();
        }
        let mut ready = polled.iter().map(|descriptor| descriptor.any().unwrap_or_default());
        let [signal, done, new_agent, message] =
            watched.map(|descriptor| descriptor.is_some() && ready.next().unwrap_or_default());
        Ready { signal, done, new_agent, message }
    }

    fn serve_agent(&mut self) {
        match self.agent.as_ref().map(Message::receive) {
            Some(Ok(Some(Message::Freeze(index)))) if self.phase == Phase::Freezing => self.workers.freeze_one(index),
            Some(Ok(Some(Message::Complete))) if self.phase == Phase::Freezing => {
                self.phase = Phase::Frozen;
                self.lease_ends = self.lease.map(|lease| Instant::now() + lease);
            }
            Some(Ok(Some(Message::StateDirectory(_, takeover_socket)))) => self.takeover_socket = takeover_socket,
            Some(Ok(Some(Message::Thaw))) if self.phase != Phase::Thawed => {
                self.thaw();
            }
            Some(Ok(Some(_))) | None => {}
            Some(Ok(None) | Err(_)) => self.agent = None,
        }
    }

    /// Tells the agent which freezes the kernel has returned from.
    fn tell_frozen(&mut self) {
        for index in 0..self.is_told.len() {
            if !self.is_told[index]
                && let Some(result) = self.workers.frozen_one(index)
            {
                self.is_told[index] = true;
                self.tell(&Message::Frozen(index, result));
            }
        }
    }

    /// Tells the agent what is thawed, if that has changed.
    fn tell_thawed(&mut self) -> &Thawed {
        let thawed = self.workers.thawed();
        if self.told.as_ref() != Some(&thawed) {
            self.tell(&Message::Thawed(thawed.clone()));
        }
        self.told.insert(thawed)
    }

    fn tell(&self, message: &Message) {
        // `check_agent` notices one that is gone or does not read.
        let _ = self.agent.as_ref().map(|agent| message.send(agent));
    }

    fn check_agent(&mut self) {
        if self.grace_ends.is_some() || self.life_of_agent() != Life::Dead {
            return;
        }
        self.agent = None;
        match self.phase {
            Phase::Freezing => self.end("the agent ended before everything was frozen"),
            Phase::Frozen if self.takeover_socket.is_none() => {
                self.end("the agent ended, and no other one can take over");
            }
            Phase::Frozen => self.grace_ends = Some(Instant::now() + GRACE),
            Phase::Thawed => {}
        }
    }

    fn check_time(&mut self) {
        let now = Instant::now();
        if self.lease_ends.is_some_and(|end| end <= now) {
            self.end(&format!("its lease of {} s ended", self.lease.unwrap_or_default().as_secs_f64()));
        }
        if self.grace_ends.is_some_and(|end| end <= now) {
            self.end(&format!("there was no agent for {} s", GRACE.as_secs()));
        }
    }

    /// Accepts a new agent and hands everything over, unless there is an agent already.
    fn accept_takeover(&mut self) {
        let Some(takeover_socket) = &self.takeover_socket else { return };
        let Ok(agent) = sys::socket::accept(takeover_socket, SockFlag::SOCK_CLOEXEC) else { return };
        if self.agent.is_none() && self.phase != Phase::Freezing && self.hand_over(&agent).is_ok() {
            self.agent = Some(agent);
            self.grace_ends = None;
        }
    }

    fn hand_over(&self, agent: &OwnedFd) -> nix::Result<()> {
        if !is_ours(agent)? {
            return Err(Errno::EPERM);
        }
        limit_waiting(agent)?;
        for target in self.workers.targets() {
            send_target(agent, target)?;
        }
        let remaining = self.lease_ends.map(|end| end.saturating_duration_since(Instant::now()));
        Message::Lease(remaining).send(agent)?;
        let takeover_socket =
            self.takeover_socket.as_ref().and_then(|takeover_socket| takeover_socket.try_clone().ok());
        Message::StateDirectory(self.marker.directory().into(), takeover_socket).send(agent)?;
        if self.phase == Phase::Thawed {
            Message::Thawed(self.workers.thawed()).send(agent)?;
        }
        Message::Ready.send(agent)?;
        // From now on, receiving from it has no timeout.
        setsockopt(agent, sockopt::ReceiveTimeout, &TimeVal::new(0, 0))
    }

    /// The state of the process at the other end of the socket.
    fn life_of_agent(&self) -> Life {
        let Some(agent) = &self.agent else { return Life::Dead };
        let Ok(credentials) = getsockopt(agent, sockopt::PeerCredentials) else { return Life::Running };
        let status = Root::machine().read(format!("/proc/{}/stat", credentials.pid()));
        status.map_or(Life::Running, |status| life(&status))
    }

    /// Thaws everything. Nothing can be frozen after that.
    fn thaw(&mut self) {
        self.phase = Phase::Thawed;
        (self.lease_ends, self.grace_ends) = (None, None);
        self.workers.thaw_all();
    }

    /// Thaws everything by itself, and reports that in the log and in a note for a later agent.
    fn end(&mut self, reason: &str) {
        if self.phase == Phase::Thawed {
            return;
        }
        self.thaw();
        let reason = format!("the freeze ended by itself because {reason}");
        log::warn!("{reason}");
        for stuck in self.workers.thawed().stuck {
            if let Some(target) = self.workers.targets().nth(stuck.index) {
                log::error!("failed to thaw {}: no answer", target.mount_point.display());
            }
        }
        let record = Record {
            reason,
            marker: self.marker.clone(),
            // Neither a new agent nor one that was stopped for a while must run it again.
            hooks: (self.life_of_agent() != Life::Running).then(|| Arc::clone(&self.hooks)),
        };
        let (is_recording, done) = (Arc::clone(&self.is_recording), Arc::clone(&self.done));
        is_recording.store(true, Ordering::Release);
        let work = move || {
            record.keep();
            is_recording.store(false, Ordering::Release);
            // Fails only when it is raised already.
            let _ = done.write(1);
        };
        if let Err(error) = threads::start("record", RECORD_STACK_BYTES, work) {
            log::error!("failed to start a thread: {}", errno::describe(error));
            self.is_recording.store(false, Ordering::Release);
        }
    }

    /// Removes the name of the takeover socket: everything is thawed.
    fn remove_takeover_socket(&mut self) {
        if let Some(takeover_socket) = self.takeover_socket.take() {
            write(&BoundedCall::default(), &self.marker, move |marker| {
                takeover_socket::remove(marker, &takeover_socket);
            });
        }
    }
}

/// What is left of a freeze that ended by itself.
struct Record {
    reason: String,
    marker: Marker,
    /// The thaw hook, if nobody else runs it.
    hooks: Option<Arc<Hooks>>,
}

impl Record {
    /// Writes the note, and runs the thaw hook.
    fn keep(self) {
        let Self { reason, marker, hooks } = self;
        // The state directory may be on what is stuck.
        let writing = BoundedCall::default();
        write(&writing, &marker, move |marker| {
            marker.note(&reason).unwrap_or_else(|error| log::error!("{error}"));
            marker.clear();
        });
        if let Some(hooks) = hooks {
            write(&writing, &marker, Marker::clear_thaw_hook_pending);
            // What goes wrong with it is in the log.
            let _ = hooks.thaw(&Environment::from_process());
        }
    }
}

/// Changes files in the state directory.
fn write(bounded_call: &BoundedCall, marker: &Marker, what: impl FnOnce(&Marker) + Send + 'static) {
    let doing = format!("change {}", marker.directory().display());
    let marker = marker.clone();
    if let Err(error) = bounded_call.run(&doing, Instant::now() + RECORD_TIMEOUT, move |_| what(&marker)) {
        log::error!("{}", error.desc);
    }
}

/// The state of a process, by the letter behind its name in proc(5)'s `stat`.
fn life(status: &[u8]) -> Life {
    let behind_name = status.iter().rposition(|&byte| byte == b')').map(|end| &status[end + 1..]);
    match behind_name.and_then(|fields| fields.trim_ascii_start().first()) {
        Some(b'Z' | b'X') => Life::Dead,
        Some(b'T' | b't') => Life::Stopped,
        _ => Life::Running,
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::sys::socket::{AddressFamily, SockType, socketpair};

    use super::*;
    use crate::freeze::{
        parts::Action,
        tests::{Fake, Trouble, target},
    };

    /// Runs a guard of `/a` until it exits; the action gets the agent's end of its socket.
    fn check(
        troubles: &[(&str, Trouble)],
        prepare: impl FnOnce(&mut Guard),
        converse: impl FnOnce(OwnedFd, &Arc<Fake>),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let fake = Fake::new(troubles);
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let signals = SignalFd::with_flags(&SigSet::empty(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).unwrap();
        let marker = Marker::new(&Root::machine(), directory.path());
        let operations: Arc<dyn Operations> = Arc::clone(&fake) as _;
        let held = (vec![Arc::new(target("/a"))], &operations, Holding::Nothing);
        let mut guard = Guard::new(theirs, marker, Hooks::new(None, Duration::ZERO), None, held, signals).unwrap();
        prepare(&mut guard);
        let guarding = thread::spawn(move || guard.serve());
        converse(ours, &fake);
        guarding.join().unwrap();
        assert_eq!(fake.frozen(), [""; 0]);
    }

    fn receive(agent: &OwnedFd) -> Message {
        Message::receive(agent).unwrap().unwrap()
    }

    fn freeze(agent: &OwnedFd) {
        Message::Freeze(0).send(agent).unwrap();
        assert!(matches!(receive(agent), Message::Frozen(0, Ok(()))));
    }

    fn expect_thawed(agent: &OwnedFd, expected_count: i64) {
        let Message::Thawed(Thawed { count, stuck }) = receive(agent) else { panic!("it does not say so") };
        assert_eq!((count, stuck), (expected_count, Vec::new()));
    }

    #[test]
    fn it_freezes_and_thaws_as_it_is_told_and_leaves() {
        check(
            &[],
            |_| {},
            |agent, fake| {
                freeze(&agent);
                Message::Complete.send(&agent).unwrap();
                assert_eq!(fake.frozen(), ["/a"]);
                Message::Thaw.send(&agent).unwrap();
                expect_thawed(&agent, 1);
            },
        );
    }

    #[test]
    fn what_is_stuck_is_told_and_thawed_late() {
        check(
            &[("/a", Trouble::Hangs)],
            |_| {},
            |agent, fake| {
                Message::Freeze(0).send(&agent).unwrap();
                Message::Thaw.send(&agent).unwrap();
                let Message::Thawed(Thawed { count, stuck }) = receive(&agent) else { panic!("it does not say so") };
                assert_eq!((count, stuck.len(), stuck[0].action), (0, 1, Action::Freeze));
                fake.go_on();
                // The freeze returns before the thaw does.
                loop {
                    let Message::Thawed(Thawed { count, stuck }) = receive(&agent) else {
                        panic!("it does not say so")
                    };
                    if stuck.is_empty() {
                        return assert_eq!(count, 1);
                    }
                }
            },
        );
    }

    #[test]
    fn what_is_stuck_is_thawed_late_without_an_agent() {
        check(
            &[("/a", Trouble::Hangs)],
            |_| {},
            |agent, fake| {
                Message::Freeze(0).send(&agent).unwrap();
                fake.wait_for(|fake| fake.log() == ["freeze /a"]);
                drop(agent);
                fake.go_on();
            },
        );
    }

    #[test]
    fn without_a_way_for_another_agent_a_freeze_ends_with_its_agent() {
        check(
            &[],
            |_| {},
            |agent, _| {
                freeze(&agent);
                Message::Complete.send(&agent).unwrap();
            },
        );
    }

    #[test]
    fn a_lease_ends_the_freeze_and_says_so() {
        check(&[], |_| {}, |agent, _| freeze(&agent));
        check(
            &[],
            |guard| guard.lease = Some(Duration::from_millis(1)),
            |agent, _| {
                freeze(&agent);
                Message::Complete.send(&agent).unwrap();
                expect_thawed(&agent, 1);
            },
        );
    }

    #[test]
    fn a_process_is_dead_or_stopped_by_its_state_and_not_by_its_name() {
        assert_eq!(life(b"1 (qgad) Z 1 1"), Life::Dead);
        assert_eq!(life(b"1 (a) S b) X 1 1"), Life::Dead);
        assert_eq!(life(b"1 (qgad) T 1 1"), Life::Stopped);
        for running in [&b"1 (a) Z b) D 1 1"[..], b"1 (qgad) S 1 1", b""] {
            assert_eq!(life(running), Life::Running);
        }
    }
}
