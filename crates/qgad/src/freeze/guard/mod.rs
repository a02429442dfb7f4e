//! The guard of a freeze: a process that thaws when nobody else does.
//!
//! The guard is this program, started again before anything is frozen. It holds a descriptor of each file system and
//! locks its memory, and from then on needs no disk. It thaws by itself
//!
//! - when the lease ends;
//! - on SIGTERM or SIGINT;
//! - at once when the agent ends before everything is frozen;
//! - when the agent has been gone for [`GRACE`] and no new agent has taken the freeze over.
//!
//! Then it leaves a note, and runs the thaw hook if there is no agent to do so.
//!
//! A freeze that the agent began may still succeed after that, even if the agent was killed. So the guard ends only
//! when the agent says that no freeze is under way, or when the agent's last thread is gone; in that case it thaws once
//! more. A new agent connects to a socket in the state directory. An agent replaces a guard that was killed by SIGKILL.
//! The new guard listens on the same socket.
//!
//! This file is the agent's side, `process` is the guard, and `message` is the protocol between them.

mod message;
mod process;

use std::{
    fmt,
    fs::OpenOptions,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt},
        time::TimeVal,
    },
};
use qga::wire::message::Error;

use self::message::Message;
pub(crate) use self::process::run;
use super::{BoundedCall, Claim, Guard, GuardEnd, Hooks, Lease, Marker, OnEnd, TakeoverSocket, Target};
use crate::{
    environment::Environment,
    process::{
        local_socket,
        spawn::{Child, Program, Stdio},
    },
    util::{errno, threads},
};

/// What makes this program a guard; not an option for people.
pub(crate) const OPTION: &str = "--freeze-guard";
/// How long a freeze outlives its agent: enough for a restart or an upgrade.
pub(crate) const GRACE: Duration = Duration::from_secs(30);
/// This very program, whatever is at its path by now.
const OURSELVES: &str = "/proc/self/exe";
/// How long a guard has to get ready, and to leave. It takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long making the socket for a new agent may take: as long as a busy disk, not as a frozen one.
const TAKEOVER_SOCKET_TIMEOUT: Duration = Duration::from_secs(2);
/// Agents that wait for the guard at a time.
const BACKLOG: i32 = 1;
/// How long a message may wait for room.
const SEND_TIMEOUT_SECONDS: i64 = 5;
/// Stack of the thread that waits for the guard's end, which runs the thaw and the hook then.
const WATCHER_STACK_BYTES: usize = 256 * 1024;

/// A guard, seen from the agent.
struct Handle {
    socket: Arc<OwnedFd>,
    takeover_socket: Option<TakeoverSocket>,
    watch: Arc<Watch>,
}

#[derive(Default)]
struct Watch {
    state: Mutex<WatchState>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct WatchState {
    /// It was told to leave.
    is_told: bool,
    /// It has thawed by itself.
    has_thawed: bool,
    /// There is no process any more.
    is_gone: bool,
}

/// What a guard is started with that is the same for each.
pub(super) struct Parts<'a> {
    /// Where it keeps what outlives the agent.
    pub(super) marker: &'a Marker,
    /// What it runs after the thaw.
    pub(super) hooks: &'a Hooks,
    /// Making its socket.
    pub(super) listening: &'a BoundedCall,
}

/// Starts a guard and waits until it is ready. It gets its socket last: one that cannot be made is not worth a moment
/// in which nobody guards a freeze that is there already.
pub(super) fn start(
    targets: &[Arc<Target>],
    lease: Lease,
    takeover_socket: Option<TakeoverSocket>,
    parts: &Parts<'_>,
    environment: &Environment,
    on_end: OnEnd,
) -> Result<Arc<dyn Guard>, Error> {
    let start = || -> io::Result<_> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        limit_waiting(&ours)?;
        let null = OpenOptions::new().write(true).open("/dev/null")?;
        let program = Program::new(OURSELVES, [OPTION], environment.for_children())?;
        let error = io::stderr();
        let child = program.start(Stdio { input: theirs.as_fd(), output: null.as_fd(), error: error.as_fd() })?;
        drop(theirs);
        let prepared = prepare(&ours, targets, lease, parts).and_then(|()| {
            let takeover_socket = takeover_socket.or_else(|| make_takeover_socket(parts.listening, parts.marker));
            let given = takeover_socket.as_ref().map(|takeover_socket| takeover_socket.try_clone()).transpose()?;
            Message::Home(parts.marker.directory().into(), given).send(&ours)?;
            Ok(takeover_socket)
        });
        match prepared {
            Ok(takeover_socket) => Ok((ours, takeover_socket, child)),
            Err(error) => {
                child.discard();
                Err(error)
            }
        }
    };
    let started =
        start().and_then(|(socket, takeover_socket, child)| watch(socket, takeover_socket, Some(child), on_end));
    started
        .map_err(|error| Error::generic(format!("failed to start the guard of the freeze: {}", errno::describe(error))))
}

fn prepare(socket: &OwnedFd, targets: &[Arc<Target>], lease: Lease, parts: &Parts<'_>) -> io::Result<()> {
    Message::Home(parts.marker.directory().into(), None).send(socket)?;
    if let Some((path, limit)) = parts.hooks.setting() {
        Message::Hook(path.into(), limit).send(socket)?;
    }
    Message::Lease(lease).send(socket)?;
    for target in targets {
        message::send_target(socket, &target.mount_point, &target.descriptor)?;
    }
    Message::Ready.send(socket)?;
    match Message::receive(socket)? {
        Some(Message::Ready) => Ok(()),
        _ => Err(io::Error::other("it did not get ready")),
    }
}

/// Takes over the guard of an agent that is gone.
///
/// # Errors
/// When there is one, but it does not let itself be taken over.
pub(super) fn claim(marker: &Marker, on_end: OnEnd) -> Result<Option<Claim>, Error> {
    let claim = || -> io::Result<_> {
        let Some(socket) = local_socket::connect(&marker.socket())? else { return Ok(None) };
        limit_waiting(&socket)?;
        let (targets, lease, takeover_socket) = receive_holdings(&socket)?;
        let guard = watch(socket, takeover_socket.map(Arc::new), None, on_end)?;
        Ok(Some(Claim { guard, targets, lease }))
    };
    claim().map_err(|error| {
        Error::generic(format!(
            "failed to take over the guard at {}: {}",
            marker.socket().display(),
            errno::describe(error)
        ))
    })
}

fn receive_holdings(socket: &OwnedFd) -> io::Result<(Vec<Target>, Lease, Option<OwnedFd>)> {
    let (mut targets, mut lease, mut takeover_socket) = (Vec::new(), None, None);
    loop {
        match Message::receive(socket)? {
            Some(Message::Target(mount_point, descriptor)) => targets.push(Target { mount_point, descriptor }),
            Some(Message::Lease(remaining)) => lease = remaining,
            Some(Message::Home(_, given)) => takeover_socket = given,
            Some(Message::Ready) => return Ok((targets, lease, takeover_socket)),
            _ => return Err(io::Error::other("another agent has it")),
        }
    }
}

/// Waits on a thread of its own for the guard to thaw by itself, and for its end.
fn watch(
    socket: OwnedFd,
    takeover_socket: Option<TakeoverSocket>,
    child: Option<Child>,
    on_end: OnEnd,
) -> io::Result<Arc<dyn Guard>> {
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 0))?;
    let (socket, watch) = (Arc::new(socket), Arc::new(Watch::default()));
    let handle = Handle { socket: Arc::clone(&socket), takeover_socket, watch: Arc::clone(&watch) };
    let work = move || {
        let mut on_end = Some(on_end);
        let mut end = |how| {
            let is_told = watch.change(|state| state.has_thawed |= how == GuardEnd::Thawed).is_told;
            if let Some(on_end) = on_end.take().filter(|_| !is_told) {
                on_end(how);
            }
        };
        while let Ok(Some(message)) = Message::receive(&socket) {
            if matches!(message, Message::Thawed) {
                end(GuardEnd::Thawed);
            }
        }
        end(GuardEnd::Lost);
        if let Some(child) = child {
            wait_for(&child);
        }
        watch.change(|state| state.is_gone = true);
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

impl Watch {
    fn state(&self) -> MutexGuard<'_, WatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, deadline: Instant, wanted: impl Fn(&WatchState) -> bool) -> bool {
        let timeout = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.state(), timeout, |state| !wanted(state));
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        wanted(&state)
    }

    fn change(&self, change: impl FnOnce(&mut WatchState)) -> WatchState {
        let mut state = self.state();
        change(&mut state);
        self.changed.notify_all();
        *state
    }
}

impl Guard for Handle {
    fn complete(&self) {
        self.say(&Message::Complete);
    }

    fn thaw(&self) {
        self.watch.change(|state| state.is_told = true);
        self.say(&Message::Thaw);
    }

    fn leave(&self) {
        self.watch.change(|state| state.is_told = true);
        self.say(&Message::Leave);
        // Not for the end of one that has told of its thaw: who was told does not wait for itself.
        let is_done = |state: &WatchState| state.is_gone || state.has_thawed;
        if !self.watch.wait(Instant::now() + TIMEOUT, is_done) {
            log::error!("the guard of the freeze does not leave");
        }
    }

    fn is_gone(&self, deadline: Instant) -> bool {
        self.watch.wait(deadline, |state| state.is_gone)
    }

    fn takeover_socket(&self) -> Option<TakeoverSocket> {
        self.takeover_socket.clone()
    }
}

impl Handle {
    fn say(&self, message: &Message) {
        match message.send(&self.socket) {
            // It is gone, which its watcher knows better.
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

/// Makes the socket at which a new agent is waited for. There is none where the state directory is frozen, as it may be
/// when an agent finds a freeze whose guard was killed, or cannot hold one.
fn make_takeover_socket(bounded_call: &BoundedCall, marker: &Marker) -> Option<TakeoverSocket> {
    let doing = format!("listen at {}", marker.socket().display());
    let path = marker.socket();
    let made = bounded_call
        .run(&doing, Instant::now() + TAKEOVER_SOCKET_TIMEOUT, move |_| local_socket::listen(&path, BACKLOG))
        .and_then(|made| {
            made.map_err(|error| Error::generic(format!("failed to {doing}: {}", errno::describe(error))))
        });
    match made {
        Ok(takeover_socket) => Some(Arc::new(takeover_socket)),
        Err(error) => {
            log::warn!("the freeze will not outlive the agent: {}", error.desc);
            None
        }
    }
}

/// Sends and receives have a timeout on both sides.
fn limit_waiting(socket: &OwnedFd) -> nix::Result<()> {
    setsockopt(socket, sockopt::SendTimeout, &TimeVal::new(SEND_TIMEOUT_SECONDS, 0))?;
    let timeout = i64::try_from(TIMEOUT.as_secs()).unwrap_or(i64::MAX);
    setsockopt(socket, sockopt::ReceiveTimeout, &TimeVal::new(timeout, 0))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::root::Root;

    #[test]
    fn where_no_socket_can_be_made_there_is_none() {
        let marker = Marker::new(&Root::machine(), Path::new("/nonexistent"));
        assert!(make_takeover_socket(&BoundedCall::default(), &marker).is_none());
    }
}
