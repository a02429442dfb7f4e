//! The guard of a freeze: the process that freezes, and that also thaws without a request.
//!
//! The guard is this program, started again before anything is frozen. It holds a descriptor of each file system and
//! locks its memory, and from then on needs no disk. It freezes one file system after the other and thaws all, at the
//! agent's request. It thaws by itself:
//!
//! - when the lease ends;
//! - on SIGTERM or SIGINT;
//! - at once when the agent ends before everything is frozen;
//! - when the agent has been gone for [`GRACE`] and no new agent has taken the freeze over.
//!
//! Then it writes a note into the state directory, and runs the thaw hook if there is no agent to do so.
//!
//! The kernel may never return from freezing or thawing a file system. After a thaw the guard stays until it has, and
//! thaws what was frozen late. A process in such a call cannot be killed, but the guard has neither the agent's port
//! nor its lock, so the agent can be killed and replaced. An agent that gets no answer starts another guard to thaw.
//!
//! A new agent connects to the takeover socket in the state directory, also to learn what is stuck. An agent replaces a
//! guard that was killed. The new guard listens on the same socket.
//!
//! This file is the agent's side, `process` is the guard, `message` is the protocol between them, and `takeover_socket`
//! is how an agent finds the guards of another one.

mod message;
mod process;
mod takeover_socket;

use std::{
    collections::HashMap,
    fmt,
    fs::OpenOptions,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt},
        time::TimeVal,
    },
};
use qga::wire::message::Error;

use self::message::Message;
pub(crate) use self::process::run;
use super::{
    BoundedCall, Guard, Hooks, Marker, OnEvent, TakenOver, TakeoverSocket, Target,
    parts::{Action, Duty, GuardEvent, Stuck, Takeover, Thawed},
    workers::{THAW_STALL, THAW_TIMEOUT},
};
use crate::{
    environment::Environment,
    process::spawn::{Child, Program, Stdio},
    util::{errno, threads},
};

/// What makes this program a guard; not an option for people.
pub(crate) const OPTION: &str = "--freeze-guard";
/// How long a freeze outlives its agent: enough for a restart or an upgrade.
pub(crate) const GRACE: Duration = Duration::from_secs(30);
/// The executable of this process. An upgrade may have replaced the file at its path.
const OURSELVES: &str = "/proc/self/exe";
/// How long a guard has to get ready, and to exit. It takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for the answer to a thaw, beyond the time that the thaw may take. Another guard may thaw at the
/// same time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a message may wait for room.
const SEND_TIMEOUT_SECONDS: i64 = 5;
/// Stack of the thread that waits for the guard's end, which runs the thaw and the hook then.
const WATCHER_STACK_BYTES: usize = 256 * 1024;

/// A guard, seen from the agent.
struct Handle {
    socket: Arc<OwnedFd>,
    takeover_socket: Option<TakeoverSocket>,
    /// How many file systems it has.
    count: usize,
    watch: Arc<Watch>,
}

#[derive(Default)]
struct Watch {
    state: Mutex<WatchState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct WatchState {
    /// When each freeze was ordered.
    ordered: HashMap<usize, Instant>,
    /// How freezing each file system went, as far as the kernel has returned.
    frozen: HashMap<usize, nix::Result<()>>,
    /// The agent has asked it to thaw.
    is_told: bool,
    /// What it has thawed, by itself or not.
    thawed: Option<Thawed>,
    /// The process has ended.
    is_gone: bool,
}

/// What every guard is started with.
pub(super) struct Parts<'a> {
    /// Where it keeps what outlives the agent.
    pub(super) marker: &'a Marker,
    /// What it runs after the thaw.
    pub(super) hooks: &'a Hooks,
    /// Making its socket.
    pub(super) listening: &'a BoundedCall,
}

/// Starts a guard and waits until it is ready. It gets its takeover socket last: making the socket may take time, in
/// which an existing freeze must have a guard.
pub(super) fn start(
    targets: &[Arc<Target>],
    duty: Duty,
    parts: &Parts<'_>,
    environment: &Environment,
    on_event: OnEvent,
) -> Result<Arc<dyn Guard>, Error> {
    let start = || -> io::Result<Arc<dyn Guard>> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        limit_waiting(&ours)?;
        let null = OpenOptions::new().write(true).open("/dev/null")?;
        let program = Program::new(OURSELVES, [OPTION], environment.for_children())?;
        let error = io::stderr();
        let child = program.start(Stdio { input: theirs.as_fd(), output: null.as_fd(), error: error.as_fd() })?;
        drop(theirs);
        let prepared = prepare(&ours, targets, &duty, parts).and_then(|()| {
            let takeover_socket = match duty.takeover {
                Takeover::New => takeover_socket::make(parts.listening, parts.marker),
                Takeover::Socket(takeover_socket) => Some(takeover_socket),
                Takeover::None => None,
            };
            let given = takeover_socket.as_ref().map(|takeover_socket| takeover_socket.try_clone()).transpose()?;
            Message::StateDirectory(parts.marker.directory().into(), given).send(&ours)?;
            Ok(takeover_socket)
        });
        match prepared {
            Ok(takeover_socket) => watch(ours, takeover_socket, targets.len(), Some(child), on_event),
            Err(error) => {
                child.discard();
                Err(error)
            }
        }
    };
    start()
        .map_err(|error| Error::generic(format!("failed to start the guard of the freeze: {}", errno::describe(error))))
}

fn prepare(socket: &OwnedFd, targets: &[Arc<Target>], duty: &Duty, parts: &Parts<'_>) -> io::Result<()> {
    Message::StateDirectory(parts.marker.directory().into(), None).send(socket)?;
    if let Some((path, limit)) = parts.hooks.setting() {
        Message::Hook(path.into(), limit).send(socket)?;
    }
    Message::Lease(duty.lease).send(socket)?;
    for target in targets {
        message::send_target(socket, target)?;
    }
    Message::GetReady(duty.holding).send(socket)?;
    match Message::receive(socket)? {
        Some(Message::Ready) => Ok(()),
        _ => Err(io::Error::other("it did not get ready")),
    }
}

/// Takes over the guards of agents that are gone. An error is a guard that cannot be taken over yet.
pub(super) fn take_over_all(marker: &Marker, on_event: &dyn Fn() -> OnEvent) -> Vec<Result<TakenOver, Error>> {
    let take_over_one = |(path, socket): (std::path::PathBuf, io::Result<OwnedFd>)| {
        socket.and_then(|socket| take_over(socket, on_event())).map_err(|error| {
            Error::generic(format!("failed to take over the guard at {}: {}", path.display(), errno::describe(error)))
        })
    };
    takeover_socket::connect_to_all(marker).into_iter().map(take_over_one).collect()
}

fn take_over(socket: OwnedFd, on_event: OnEvent) -> io::Result<TakenOver> {
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::empty()))?;
    limit_waiting(&socket)?;
    let (mut targets, mut lease, mut takeover_socket, mut thawed) = (Vec::new(), None, None, None);
    loop {
        match Message::receive(&socket)? {
            Some(Message::Target(target)) => targets.push(target),
            Some(Message::Lease(remaining)) => lease = remaining,
            Some(Message::StateDirectory(_, given)) => takeover_socket = given,
            Some(Message::Thawed(result)) => thawed = Some(result),
            Some(Message::Ready) => break,
            _ => return Err(io::Error::other("another agent has it")),
        }
    }
    let is_frozen = thawed.is_none();
    let watch_state = WatchState { is_told: !is_frozen, thawed, ..WatchState::default() };
    let takeover_socket = takeover_socket.map(Arc::new);
    let guard = watch_from(watch_state, socket, takeover_socket, targets.len(), None, on_event)?;
    Ok(TakenOver { guard, targets, lease, is_frozen })
}

fn watch(
    socket: OwnedFd,
    takeover_socket: Option<TakeoverSocket>,
    count: usize,
    child: Option<Child>,
    on_event: OnEvent,
) -> io::Result<Arc<dyn Guard>> {
    watch_from(WatchState::default(), socket, takeover_socket, count, child, on_event)
}

/// Starts a thread that receives messages of the guard and waits for its end.
fn watch_from(
    state: WatchState,
    socket: OwnedFd,
    takeover_socket: Option<TakeoverSocket>,
    count: usize,
    child: Option<Child>,
    mut on_event: OnEvent,
) -> io::Result<Arc<dyn Guard>> {
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 0))?;
    let socket = Arc::new(socket);
    let watch = Arc::new(Watch { state: Mutex::new(state), changed: Condvar::new() });
    let handle = Handle { socket: Arc::clone(&socket), takeover_socket, count, watch: Arc::clone(&watch) };
    let work = move || {
        while let Ok(Some(message)) = Message::receive(&socket) {
            if let Some(event) = watch.change(|state| state.learn(message)) {
                on_event(event);
            }
        }
        if let Some(child) = child {
            wait_for(&child);
        }
        let was_told = watch.change(|state| {
            state.is_gone = true;
            state.is_told || state.thawed.is_some()
        });
        on_event(if was_told { GuardEvent::Returned } else { GuardEvent::Ended });
    };
    threads::start("guard", WATCHER_STACK_BYTES, work)?;
    Ok(Arc::new(handle))
}

/// Reaps it.
fn wait_for(child: &Child) {
    while let Ok(None) = child.try_wait() {
        let _ = poll(&mut [PollFd::new(child.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
    }
}

impl WatchState {
    /// Records a message of the guard, and returns the event if it was not an answer.
    fn learn(&mut self, message: Message) -> Option<GuardEvent> {
        match message {
            Message::Frozen(index, result) => {
                self.frozen.insert(index, result);
                None
            }
            Message::Thawed(thawed) => match self.thawed.replace(thawed) {
                None if self.is_told => None,
                None => Some(GuardEvent::Thawed),
                Some(_) => Some(GuardEvent::Returned),
            },
            _ => None,
        }
    }
}

impl Watch {
    fn state(&self) -> MutexGuard<'_, WatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, once it is as wanted, or at the deadline.
    fn wait(&self, deadline: Instant, is_wanted: impl Fn(&WatchState) -> bool) -> MutexGuard<'_, WatchState> {
        let timeout = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.state(), timeout, |state| !is_wanted(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn change<T>(&self, change: impl FnOnce(&mut WatchState) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.notify_all();
        result
    }
}

impl Guard for Handle {
    fn freeze(&self, index: usize) {
        self.watch.change(|state| state.ordered.insert(index, Instant::now()));
        self.say(&Message::Freeze(index));
    }

    fn frozen(&self, index: usize, deadline: Instant) -> Option<nix::Result<()>> {
        self.watch.wait(deadline, |state| state.frozen.contains_key(&index)).frozen.get(&index).copied()
    }

    fn complete(&self) {
        self.say(&Message::Complete);
    }

    fn thaw(&self) -> Option<Thawed> {
        let has_thawed = self.watch.change(|state| {
            state.is_told = true;
            state.thawed.clone()
        });
        // By itself. Not waited for: this may be the thread that has received the message.
        if has_thawed.is_some() {
            return has_thawed;
        }
        self.say(&Message::Thaw);
        let stalls = THAW_STALL * u32::try_from(self.count).unwrap_or(u32::MAX);
        let deadline = Instant::now() + THAW_TIMEOUT + stalls + ANSWER_TIMEOUT;
        let has_answered = |state: &WatchState| state.thawed.is_some() || state.is_gone;
        let thawed = self.watch.wait(deadline, has_answered).thawed.clone()?;
        // Until it has exited, the file systems that it holds cannot be unmounted.
        if thawed.stuck.is_empty() && !self.watch.wait(Instant::now() + TIMEOUT, |state| state.is_gone).is_gone {
            log::error!("the guard of the freeze does not leave");
        }
        Some(thawed)
    }

    fn stuck(&self) -> Vec<Stuck> {
        self.watch.state().stuck()
    }

    fn is_gone(&self) -> bool {
        self.watch.state().is_gone
    }

    fn takeover_socket(&self) -> Option<TakeoverSocket> {
        self.takeover_socket.clone()
    }
}

impl WatchState {
    /// What the kernel has not returned from. A guard that was killed or stopped cannot say, but what it was told is
    /// known.
    fn stuck(&self) -> Vec<Stuck> {
        if let Some(thawed) = &self.thawed {
            return thawed.stuck.clone();
        }
        let unanswered = self.ordered.iter().filter(|(index, _)| !self.frozen.contains_key(index));
        unanswered.map(|(&index, &since)| Stuck { index, action: Action::Freeze, since }).collect()
    }
}

impl Handle {
    fn say(&self, message: &Message) {
        match message.send(&self.socket) {
            // It is gone, and the thread that watches it deals with that.
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => {}
            Err(error) => log::error!("failed to reach the guard of the freeze: {}", errno::describe(error)),
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Guard").field(&*self.watch.state()).finish()
    }
}

/// Sends and receives have a timeout.
fn limit_waiting(socket: &OwnedFd) -> nix::Result<()> {
    setsockopt(socket, sockopt::SendTimeout, &TimeVal::new(SEND_TIMEOUT_SECONDS, 0))?;
    let timeout = i64::try_from(TIMEOUT.as_secs()).unwrap_or(i64::MAX);
    setsockopt(socket, sockopt::ReceiveTimeout, &TimeVal::new(timeout, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_that_was_killed_leaves_stuck_what_it_has_not_said_to_be_frozen() {
        let mut state = WatchState::default();
        let now = Instant::now();
        state.ordered.extend([(0, now), (1, now)]);
        assert_eq!(state.learn(Message::Frozen(0, Ok(()))), None);
        assert_eq!(state.stuck(), [Stuck { index: 1, action: Action::Freeze, since: now }]);
        assert_eq!(state.learn(Message::Thawed(Thawed::default())), Some(GuardEvent::Thawed));
        assert_eq!(state.stuck(), []);
    }

    #[test]
    fn what_a_guard_tells_after_its_thaw_is_news_of_what_was_stuck() {
        let mut state = WatchState { is_told: true, ..WatchState::default() };
        assert_eq!(state.learn(Message::Thawed(Thawed::default())), None);
        assert_eq!(state.learn(Message::Thawed(Thawed::default())), Some(GuardEvent::Returned));
    }
}
