//! The guard itself.
//!
//! It gets what it holds on its standard input, says that it is ready, and waits. Threads that thaw are started before that,
//! so that thawing needs nothing that might not be had. What it has to say of its own goes to standard error, once
//! everything is thawed. Its memory is locked, and the system's out-of-memory killer passes it over.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
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
        socket::{SockFlag, accept4},
    },
};

use super::{GRACE, is_ours, limit_waiting, message::Message, message::send_target};
use crate::{
    errno,
    freeze::{
        Hooks, Lease, Marker,
        keeper::{Keeper, thaw_each},
        machine::lock_memory,
        marker,
        target::{Kernel, Target},
    },
    guest::Environment,
    root::Root,
    sys,
};

/// All that a guard has.
struct Guard {
    agent: Option<OwnedFd>,
    listener: OwnedFd,
    marker: Marker,
    hooks: Hooks,
    /// The setting, to be told to the guard of the next agent.
    lease: Lease,
    keepers: Vec<Keeper>,
    signals: SignalFd,
    is_complete: bool,
    lease_ends: Option<Instant>,
    grace_ends: Option<Instant>,
}

/// How a guard leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    /// The agent has thawed what it froze. What others froze stays so.
    AsItIs,
    /// With everything thawed, as soon as that answers.
    AllThawed,
}

/// Runs the guard to its end.
pub(crate) fn run() -> ExitCode {
    match Guard::get_ready() {
        Ok(Some(mut guard)) => {
            if guard.watch() == Leave::AllThawed {
                guard.wait_for_the_last();
            }
            ExitCode::SUCCESS
        }
        // The agent has thought better of it.
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("the guard of a freeze cannot get ready: {}", errno::words(error));
            ExitCode::FAILURE
        }
    }
}

impl Guard {
    fn get_ready() -> io::Result<Option<Self>> {
        // A name for lists of processes; that of the program is the path by which it was started.
        let _ = prctl::set_name(c"qgad-guard");
        let agent = sys::fd::take_inherited(0)?;
        let (mut home, mut hooks, mut lease, mut targets) = (None, Hooks::new(None, Duration::ZERO), None, Vec::new());
        loop {
            match Message::receive(&agent)? {
                Some(Message::Home(directory, listener)) => home = Some((directory, listener)),
                Some(Message::Hook(path, limit)) => hooks = Hooks::new(Some(path), limit),
                Some(Message::Lease(given)) => lease = given,
                Some(Message::Target(place, descriptor)) => targets.push(Target { place, descriptor }),
                Some(Message::Ready) => break,
                Some(_) => return Err(io::ErrorKind::InvalidData.into()),
                None => return Ok(None),
            }
        }
        let (directory, listener): (PathBuf, _) = home.ok_or(io::ErrorKind::InvalidData)?;
        let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
        signals.thread_block()?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let start = |target| Keeper::start(Arc::new(target), Arc::new(Kernel));
        let keepers = targets.into_iter().map(start).collect::<Result<_, _>>()?;
        // Neither is there everywhere, and the guard is better than none without.
        let _ = fs::write("/proc/self/oom_score_adj", "-1000");
        if let Err(error) = lock_memory() {
            log::warn!("the guard of a freeze failed to lock its memory: {}", errno::words(error));
        }
        Message::Ready.send(&agent)?;
        Ok(Some(Self {
            agent: Some(agent),
            listener,
            marker: Marker::new(&Root::machine(), &directory),
            hooks,
            lease,
            keepers,
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
                    Some(Ok(Some(Message::Leave))) => return Leave::AsItIs,
                    Some(Ok(Some(Message::Thaw))) => {
                        thaw_each(&self.keepers);
                        return Leave::AllThawed;
                    }
                    Some(Ok(Some(_))) => {}
                    Some(Ok(None) | Err(_)) | None if !self.is_complete => {
                        self.agent = None;
                        return self.end("the agent ended before everything was frozen");
                    }
                    Some(Ok(None) | Err(_)) | None => {
                        self.agent = None;
                        self.grace_ends = Some(Instant::now() + GRACE);
                    }
                }
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
        let wanted = |descriptor| PollFd::new(descriptor, PollFlags::POLLIN);
        let agent = self.agent.as_ref().map_or(self.signals.as_fd(), AsFd::as_fd);
        let mut descriptors = [wanted(self.signals.as_fd()), wanted(self.listener.as_fd()), wanted(agent)];
        let watched = if self.agent.is_some() { 3 } else { 2 };
        let next = [self.lease_ends, self.grace_ends].into_iter().flatten().min();
        // Rounded up, so that the deadline has passed when it is looked at.
        let timeout = next.map_or(PollTimeout::NONE, |next| {
            let sleep = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(sleep).unwrap_or(PollTimeout::MAX)
        });
        if poll(&mut descriptors[..watched], timeout).is_err() {
            return [false; 3];
        }
        let mut ready = [false; 3];
        for (ready, descriptor) in ready.iter_mut().zip(&descriptors[..watched]) {
            *ready = descriptor.any().unwrap_or_default();
        }
        ready
    }

    /// A new agent gets all there is, unless there is one already.
    fn be_claimed(&mut self) {
        let accepted = accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC);
        let Ok(agent) = accepted.map(sys::fd::take) else { return };
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
        for keeper in &self.keepers {
            let target = keeper.target();
            send_target(agent, &target.place, &target.descriptor)?;
        }
        let remaining = self.lease_ends.map(|end| end.saturating_duration_since(Instant::now()));
        Message::Lease(remaining).send(agent)?;
        Message::Ready.send(agent)
    }

    /// Thaws everything, and says so: in a note, to the agent, in the log.
    fn end(&mut self, reason: &str) -> Leave {
        let thawed = thaw_each(&self.keepers);
        let reason = format!("the freeze ended by itself because {reason}");
        if let Err(error) = self.marker.note(&reason) {
            log::error!("{error}");
        }
        self.marker.clear();
        marker::remove(&self.marker.socket());
        log::warn!("{reason}");
        if !thawed.stuck.is_empty() {
            log::error!("failed to thaw {}: no answer", thawed.stuck.join(", "));
        }
        match self.agent.take() {
            Some(agent) => {
                // An agent that is gone by now finds the note.
                let _ = Message::Thawed.send(&agent);
            }
            None => {
                // What goes wrong with it is in the log.
                let _ = self.hooks.thaw(&Environment::of_process());
            }
        }
        Leave::AllThawed
    }

    /// Nothing that was given up stays frozen.
    fn wait_for_the_last(mut self) {
        self.agent = None;
        for keeper in &self.keepers {
            keeper.thaw();
            keeper.thawed_at_last();
        }
    }
}
