//! The guard of a freeze: a process that thaws when nobody else does.
//!
//! It is this very program, started before anything is frozen. It holds a descriptor of each file system, locks its memory,
//! and from then on needs no disk. It thaws by itself when the lease ends, when it is told to end by SIGTERM or SIGINT,
//! at once when the agent goes away before everything is frozen, and when the agent is gone for [`GRACE`] and no new one
//! has come for the freeze. Then it leaves a note, and runs the thaw hook if there is no agent to do that.
//! SIGKILL ends it, too; an agent that lives on starts another one.
//! This file is the agent's side; `process` is the guard itself, `message` what they say to each other.

mod message;
mod process;

use std::{
    fmt,
    fs::OpenOptions,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen, setsockopt,
            socket, socketpair, sockopt,
        },
        stat::{Mode, umask},
        time::TimeVal,
    },
    unistd::geteuid,
};
use qga::wire::message::Error;

use self::message::Message;
pub(crate) use self::process::run;
use super::{Claim, Guard, GuardEnd, Hooks, Lease, Marker, OnEnd, Target, marker};
use crate::{
    errno,
    guest::Environment,
    spawn::{self, Child, Program, Stdio},
};

/// What makes this program a guard; not an option for people.
pub(crate) const OPTION: &str = "--freeze-guard";
/// How long a freeze outlives its agent: enough for a restart or an upgrade.
pub(crate) const GRACE: Duration = Duration::from_secs(30);
/// This very program, whatever is at its path by now.
const OURSELVES: &str = "/proc/self/exe";
/// How long a guard has to get ready, and to leave. It takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a message may wait for room.
const SEND_PATIENCE_SECONDS: i64 = 5;
/// Stack of the thread that waits for the guard's end, which runs the thaw and the hook then.
const WATCHER_STACK_BYTES: usize = 256 * 1024;

/// A guard, seen from the agent.
struct Handle {
    socket: Arc<OwnedFd>,
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
    /// It does nothing any more.
    is_done: bool,
    /// There is no process any more.
    is_gone: bool,
}

/// Starts a guard and waits until it is ready.
pub(super) fn start(
    targets: &[Arc<Target>],
    lease: Lease,
    marker: &Marker,
    hooks: &Hooks,
    environment: &Environment,
    on_end: OnEnd,
) -> Result<Box<dyn Guard>, Error> {
    let start = || -> io::Result<_> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        limit_waiting(&ours)?;
        let listener = listen_at(marker)?;
        let null = OpenOptions::new().write(true).open("/dev/null")?;
        let program = Program::new(OURSELVES, [OPTION], spawn::inherited(environment.for_children()))?;
        let error = io::stderr();
        let child = program.start(Stdio { input: theirs.as_fd(), output: null.as_fd(), error: error.as_fd() })?;
        drop(theirs);
        match prepare(&ours, targets, lease, marker, hooks, listener) {
            Ok(()) => Ok((ours, child)),
            Err(error) => {
                child.discard();
                Err(error)
            }
        }
    };
    let started = start().and_then(|(socket, child)| watch(socket, Some(child), on_end));
    started.map_err(|error| Error::generic(format!("failed to start the guard of the freeze: {}", errno::words(error))))
}

fn prepare(
    socket: &OwnedFd,
    targets: &[Arc<Target>],
    lease: Lease,
    marker: &Marker,
    hooks: &Hooks,
    listener: OwnedFd,
) -> io::Result<()> {
    Message::Home(marker.directory().into(), listener).send(socket)?;
    if let Some((path, limit)) = hooks.setting() {
        Message::Hook(path.into(), limit).send(socket)?;
    }
    Message::Lease(lease).send(socket)?;
    for target in targets {
        message::send_target(socket, &target.place, &target.descriptor)?;
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
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        let (_directory, address) = address(marker)?;
        match connect(socket.as_raw_fd(), &address) {
            Err(Errno::ENOENT | Errno::ECONNREFUSED) => return Ok(None),
            other => other?,
        }
        if !is_ours(&socket)? {
            return Err(io::Error::other("it belongs to somebody else"));
        }
        limit_waiting(&socket)?;
        let (targets, lease) = receive_holdings(&socket)?;
        let guard = watch(socket, None, on_end)?;
        Ok(Some(Claim { guard, targets, lease }))
    };
    claim().map_err(|error| {
        Error::generic(format!(
            "failed to take over the guard at {}: {}",
            marker.socket().display(),
            errno::words(error)
        ))
    })
}

fn receive_holdings(socket: &OwnedFd) -> io::Result<(Vec<Target>, Lease)> {
    let mut targets = Vec::new();
    let mut lease = None;
    loop {
        match Message::receive(socket)? {
            Some(Message::Target(place, descriptor)) => targets.push(Target { place, descriptor }),
            Some(Message::Lease(remaining)) => lease = remaining,
            Some(Message::Ready) => return Ok((targets, lease)),
            _ => return Err(io::Error::other("another agent has it")),
        }
    }
}

/// Waits on a thread of its own for the guard's end.
fn watch(socket: OwnedFd, child: Option<Child>, on_end: OnEnd) -> io::Result<Box<dyn Guard>> {
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 0))?;
    let (socket, watch) = (Arc::new(socket), Arc::new(Watch::default()));
    let handle = Handle { socket: Arc::clone(&socket), watch: Arc::clone(&watch) };
    let work = move || {
        let mut how = GuardEnd::Lost;
        while let Ok(Some(message)) = Message::receive(&socket) {
            if matches!(message, Message::Thawed) {
                how = GuardEnd::Thawed;
            }
        }
        let is_told = watch.change(|state| state.is_done = true).is_told;
        if !is_told {
            on_end(how);
        }
        if let Some(child) = child {
            wait_for(&child);
        }
        watch.change(|state| state.is_gone = true);
    };
    thread::Builder::new().name("guard".into()).stack_size(WATCHER_STACK_BYTES).spawn(work)?;
    Ok(Box::new(handle))
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

    fn end(&self, thaw: bool) {
        self.watch.change(|state| state.is_told = true);
        self.say(if thaw { &Message::Thaw } else { &Message::Leave });
        if !thaw {
            let waited = self.watch.changed.wait_timeout_while(self.watch.state(), PATIENCE, |state| !state.is_done);
            let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if !state.is_done {
                log::error!("the guard of the freeze does not leave");
            }
        }
    }

    fn is_gone(&self) -> bool {
        self.watch.state().is_gone
    }
}

impl Handle {
    fn say(&self, message: &Message) {
        match message.send(&self.socket) {
            // It is gone, which its watcher knows better.
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => {}
            Err(error) => log::error!("failed to reach the guard of the freeze: {}", errno::words(error)),
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Guard").field(&*self.watch.state()).finish()
    }
}

/// Where a new agent is waited for; only who runs as we do can come.
fn listen_at(marker: &Marker) -> io::Result<OwnedFd> {
    marker::remove(&marker.socket());
    let socket =
        socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    let (_directory, address) = address(marker)?;
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = bind(socket.as_raw_fd(), &address);
    umask(before);
    bound?;
    listen(&socket, Backlog::new(1)?)?;
    Ok(socket)
}

/// The socket's address, by way of its directory's descriptor: addresses are short, paths may be long.
fn address(marker: &Marker) -> io::Result<(OwnedFd, UnixAddr)> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = open(marker.directory(), flags, Mode::empty())?;
    let socket = marker.socket();
    let name = Path::new(socket.file_name().unwrap_or_default());
    let path = [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name.as_os_str().as_bytes()].concat();
    let address = UnixAddr::new(path.as_slice())?;
    Ok((directory, address))
}

/// Whether the other side of a socket runs as we do.
fn is_ours(socket: &OwnedFd) -> nix::Result<bool> {
    Ok(getsockopt(socket, sockopt::PeerCredentials)?.uid() == geteuid().as_raw())
}

/// Neither side waits for ever for the other one.
fn limit_waiting(socket: &OwnedFd) -> nix::Result<()> {
    setsockopt(socket, sockopt::SendTimeout, &TimeVal::new(SEND_PATIENCE_SECONDS, 0))?;
    let patience = i64::try_from(PATIENCE.as_secs()).unwrap_or(i64::MAX);
    setsockopt(socket, sockopt::ReceiveTimeout, &TimeVal::new(patience, 0))
}
