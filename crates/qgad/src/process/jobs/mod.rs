//! Jobs, seen from the agent.
//!
//! The jobs belong to another process, the [`supervisor`], so that they outlive the agent, however it ends. The agent
//! starts it with the first job, and finds that of an earlier agent by the socket `qga.state.jobs` in the state
//! directory. Sending a request never blocks: each has a socket of its own, which becomes readable with the answer.

mod job;
mod launch;
mod members;
mod message;
mod start;
mod stream;
pub(crate) mod supervisor;

use std::{
    fs::OpenOptions,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, poll},
    sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair},
};
use qga::{
    commands::job::{AcceptedInput, Job, JobOutput, JobState, Unattended},
    wire::message::Error,
};

use self::message::{Kind, Message};
pub(crate) use self::{
    start::{Directory, Owner, Start, size},
    supervisor::run as run_supervisor,
};
use super::{
    descriptor_passing, local_socket,
    spawn::{Program, Stdio},
};
use crate::{
    environment::Environment,
    util::{
        errno,
        keyed_lock::{KeyedLock, KeyedLockGuard},
        timeout,
    },
};

/// The option that makes this executable a supervisor; for internal use.
pub(crate) const SUPERVISOR_OPTION: &str = "--job-supervisor";
/// The executable of this process. An upgrade may have replaced the file at its path.
const OURSELVES: &str = "/proc/self/exe";
/// The socket by which the next agent finds the supervisor.
const SOCKET: &str = "qga.state.jobs";
/// The kind of a message on a link, which carries only a socket: first the listening one, then one for each request.
const SOCKET_KIND: u8 = 0;
/// Agents that wait for the supervisor at a time.
const BACKLOG: i32 = 4;
/// How long a supervisor has to get ready. It takes milliseconds.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long starting a program may take. The command's own timeout ends a little later.
const START_TIMEOUT: Duration = Duration::from_secs(50);
/// Most supervisors that are tried: one without jobs may just be ending.
const MAX_ATTEMPTS: usize = 3;

/// The jobs, reached through their supervisor.
#[derive(Debug)]
pub(crate) struct Jobs {
    socket: PathBuf,
    link: Mutex<Option<Arc<OwnedFd>>>,
    starting: KeyedLock,
}

/// A request that was sent. Its descriptor becomes readable with the answer.
#[derive(Clone, Debug)]
pub(crate) struct Pending(Arc<OwnedFd>);

/// A request about existing jobs. The job's id comes first.
#[derive(Debug)]
pub(crate) enum Request {
    /// Read: the offsets in both streams, most bytes of each, milliseconds to wait.
    Read { id: i64, out_offset: i64, err_offset: Option<i64>, count: i64, wait: i64 },
    /// Write: where the bytes begin, whether they are the last, milliseconds to wait.
    Write { id: i64, offset: Option<i64>, is_last: bool, wait: i64, bytes: Vec<u8> },
    /// Send a signal.
    Signal { id: i64, number: i32 },
    /// Change the size of the terminal.
    Resize { id: i64, rows: i64, columns: i64 },
    /// Forget it.
    Forget { id: i64 },
    /// List all.
    List,
}

impl Jobs {
    /// The jobs of the agents with this state directory.
    pub(crate) fn new(state_directory: &Path) -> Self {
        Self { socket: state_directory.join(SOCKET), link: Mutex::default(), starting: KeyedLock::default() }
    }

    /// Connects to the supervisor of an earlier agent, unless this agent is connected already.
    pub(crate) fn find(&self) {
        let found = self.only_one().and_then(|_only_one| {
            if self.link().is_none() {
                *self.link() = self.connect()?;
            }
            Ok(())
        });
        if let Err(error) = found {
            log::error!("failed to reach the jobs: {}", self.describe(error));
        }
    }

    /// Sends a request. `None` when there are no jobs.
    pub(crate) fn ask(&self, request: Request) -> io::Result<Option<Pending>> {
        let Some(link) = self.link().clone() else { return Ok(None) };
        match converse(&link, &request.into_message()) {
            Err(error) if message::is_gone(&error) => {
                self.lose(&link);
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// Starts a job and returns its process id once its program runs.
    pub(crate) fn start(&self, start: &Start, environment: &Environment) -> io::Result<i64> {
        let request = start.to_message();
        for _ in 0..MAX_ATTEMPTS {
            let link = self.supervisor(environment)?;
            let pending = match converse(&link, &request) {
                Err(error) if message::is_gone(&error) => {
                    self.lose(&link);
                    continue;
                }
                other => other?,
            };
            let not_started = |_| io::Error::other(format!("no answer after {} s", START_TIMEOUT.as_secs()));
            wait_for(&pending.0, START_TIMEOUT).map_err(not_started)?;
            match Message::receive(&pending.0)? {
                Some(Message { kind: Kind::Ending, .. }) => self.lose(&link),
                Some(Message { kind: Kind::Failed, bytes, .. }) => {
                    return Err(io::Error::other(String::from_utf8_lossy(&bytes).into_owned()));
                }
                Some(answer) => return Ok(answer.number(0)),
                None => {
                    self.lose(&link);
                    return Err(io::Error::other("the supervisor of jobs has ended"));
                }
            }
        }
        Err(io::Error::other("the supervisors of jobs end too early"))
    }

    /// The connection to the supervisor, which is started if there is none.
    fn supervisor(&self, environment: &Environment) -> io::Result<Arc<OwnedFd>> {
        if let Some(link) = &*self.link() {
            return Ok(Arc::clone(link));
        }
        let _only_one = self.only_one()?;
        if let Some(link) = &*self.link() {
            return Ok(Arc::clone(link));
        }
        let link = match self.connect()? {
            Some(link) => link,
            None => Arc::new(self.start_supervisor(environment)?),
        };
        *self.link() = Some(Arc::clone(&link));
        Ok(link)
    }

    /// Keeps other commands from looking for a supervisor, and from starting one.
    fn only_one(&self) -> io::Result<KeyedLockGuard<'_>> {
        let busy = || io::Error::other("another command still starts the supervisor of jobs");
        self.starting.lock(SOCKET.into(), START_TIMEOUT).ok_or_else(busy)
    }

    fn connect(&self) -> io::Result<Option<Arc<OwnedFd>>> {
        let Some(link) = local_socket::connect(&self.socket)? else { return Ok(None) };
        Ok(become_ready(&link)?.then(|| Arc::new(link)))
    }

    fn start_supervisor(&self, environment: &Environment) -> io::Result<OwnedFd> {
        let listener = local_socket::listen(&self.socket, BACKLOG)
            .map_err(|error| io::Error::other(format!("failed to listen at {}", self.describe(error))))?;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        descriptor_passing::send(&ours, SOCKET_KIND, &[], Some(&listener))?;
        let null = OpenOptions::new().write(true).open("/dev/null")?;
        let program = Program::new(OURSELVES, [SUPERVISOR_OPTION], environment.for_children())?;
        let child =
            program.start(Stdio { input: theirs.as_fd(), output: null.as_fd(), error: io::stderr().as_fd() })?;
        drop(theirs);
        let is_ready = become_ready(&ours);
        // The process that was started has forked the supervisor and exited, so the supervisor is no child of ours.
        child.discard();
        if is_ready? { Ok(ours) } else { Err(io::Error::other("the supervisor of jobs did not get ready")) }
    }

    /// The supervisor is gone.
    fn lose(&self, lost: &Arc<OwnedFd>) {
        let mut link = self.link();
        if link.as_ref().is_some_and(|link| Arc::ptr_eq(link, lost)) {
            *link = None;
        }
    }

    fn link(&self) -> MutexGuard<'_, Option<Arc<OwnedFd>>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn describe(&self, error: io::Error) -> String {
        format!("{}: {}", self.socket.display(), errno::describe(error))
    }
}

/// Sends a request. Its socket is passed to the supervisor once it contains the request.
fn converse(link: &OwnedFd, request: &Message) -> io::Result<Pending> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    request.send(&ours)?;
    descriptor_passing::send(link, SOCKET_KIND, &[], Some(&theirs))?;
    Ok(Pending(Arc::new(ours)))
}

/// Waits until a supervisor is ready, and returns whether it is. The link does not block after that.
fn become_ready(link: &OwnedFd) -> io::Result<bool> {
    wait_for(link, READY_TIMEOUT)?;
    let is_ready = matches!(Message::receive(link), Ok(Some(Message { kind: Kind::Ready, .. })));
    fcntl(link, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
    Ok(is_ready)
}

fn wait_for(socket: &OwnedFd, time: Duration) -> io::Result<()> {
    let deadline = Instant::now() + time;
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut polled, timeout::until(Some(deadline))) {
            Ok(0) if Instant::now() < deadline => {}
            Ok(0) => return Err(io::Error::other("the supervisor of jobs does not answer")),
            Err(nix::errno::Errno::EINTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}

impl Request {
    fn into_message(self) -> Message {
        let or_absent = |number: Option<i64>| number.unwrap_or(message::ABSENT);
        match self {
            Self::Read { id, out_offset, err_offset, count, wait } => {
                Message::new(Kind::Read, [id, out_offset, or_absent(err_offset), count, wait], Vec::new())
            }
            Self::Write { id, offset, is_last, wait, bytes } => {
                Message::new(Kind::Write, [id, or_absent(offset), is_last.into(), wait], bytes)
            }
            Self::Signal { id, number } => Message::new(Kind::Signal, [id, number.into()], Vec::new()),
            Self::Resize { id, rows, columns } => Message::new(Kind::Resize, [id, rows, columns], Vec::new()),
            Self::Forget { id } => Message::new(Kind::Forget, [id], Vec::new()),
            Self::List => Message::new(Kind::List, [], Vec::new()),
        }
    }
}

impl AsFd for Pending {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The answers; `None` when the supervisor has ended instead.
impl Pending {
    /// Asks for an answer at once, whatever the job does.
    pub(crate) fn ask_for_answer(&self) {
        // Fails only when the supervisor has ended, which also ends the wait.
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Write);
    }

    /// The answer to a request that has nothing to return.
    pub(crate) fn done(&self) -> Result<Option<()>, Error> {
        Ok(self.answer()?.map(drop))
    }

    /// The answer to a read.
    pub(crate) fn output(&self) -> Result<Option<JobOutput>, Error> {
        let Some(mut answer) = self.answer()? else { return Ok(None) };
        let length = usize::try_from(answer.number(0)).unwrap_or(0).min(answer.bytes.len());
        let errors = answer.bytes.split_off(length);
        let err_offset = answer.given(4);
        Ok(Some(JobOutput {
            out_b64: std::mem::take(&mut answer.bytes).into(),
            out_offset: answer.number(1),
            out_eof: answer.number(2) == 1,
            err_b64: err_offset.map(|_| errors.into()),
            err_offset,
            err_eof: err_offset.map(|_| answer.number(5) == 1),
            state: state(answer.number(6)),
            exit_code: answer.given(7),
            signal: answer.given(8),
            timed_out: answer.number(9) == 1,
        }))
    }

    /// The answer to a write.
    pub(crate) fn accepted(&self) -> Result<Option<AcceptedInput>, Error> {
        let accepted = |answer: Message| {
            let closed = answer.number(2) == 1;
            AcceptedInput { count: answer.number(0), offset: answer.number(1), closed }
        };
        Ok(self.answer()?.map(accepted))
    }

    /// The answer to the list.
    pub(crate) fn list(&self) -> Result<Option<Vec<Job>>, Error> {
        let Some(answer) = self.answer()? else { return Ok(None) };
        let Some((&length, numbers)) = answer.numbers.split_first() else { return Ok(Some(Vec::new())) };
        let mut strings = answer.bytes.split(|&byte| byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
        let jobs = numbers.chunks_exact(usize::try_from(length).unwrap_or(0).max(1)).map(|numbers| {
            let number = |position: usize| numbers.get(position).copied().unwrap_or(message::ABSENT);
            let given = |position| Some(number(position)).filter(|&number| number != message::ABSENT);
            Job {
                id: number(0),
                pid: number(1),
                path: strings.next().unwrap_or_default(),
                user: strings.next().filter(|user| !user.is_empty()),
                terminal: number(2) == 1,
                unattended: if number(3) == 1 { Unattended::HangUp } else { Unattended::Keep },
                age: number(4),
                in_offset: number(5),
                state: state(number(6)),
                exit_code: given(7),
                signal: given(8),
                timed_out: number(9) == 1,
                out_begin: number(10),
                out_end: number(11),
                err_begin: number(12),
                err_end: number(13),
            }
        });
        Ok(Some(jobs.collect()))
    }

    fn answer(&self) -> Result<Option<Message>, Error> {
        match Message::receive(&self.0) {
            Ok(Some(Message { kind: Kind::Failed, bytes, .. })) => Err(Error::generic(String::from_utf8_lossy(&bytes))),
            Ok(answer) => Ok(answer.filter(|answer| answer.kind == Kind::Done)),
            Err(error) => Err(Error::generic(format!("failed to ask about the job: {}", errno::describe(error)))),
        }
    }
}

fn state(has_exited: i64) -> JobState {
    if has_exited == 1 { JobState::Exited } else { JobState::Running }
}
