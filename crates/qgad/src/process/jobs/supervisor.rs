//! The supervisor: the process that owns the jobs.
//!
//! It has one thread, which sleeps until a stream, a signal, an agent or a deadline wakes it. It never blocks: it keeps
//! the output of jobs in memory and writes to no disk, so that a freeze does not stop it. It goes on without an agent;
//! the next one finds it by its socket in the state directory. It ends when it has had no job for [`LINGER`].
//!
//! A program that writes more than is read waits. Of all jobs together, [`MAX_KEPT_BYTES`] are kept; beyond that, each
//! stream still has a small share, so that a job whose output nobody reads does not stop the others.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    process::{self, ExitCode},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    libc::SIGKILL,
    poll::{PollFd, PollFlags, poll},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        socket::{Shutdown, SockFlag, shutdown},
        wait::waitpid,
    },
    unistd::ForkResult,
};
use qga::commands::job::MAX_WAIT;

use super::{
    job::{Job, Progress},
    launch::{Report, launch},
    message::{Kind, Message},
    start::{Start, size},
    stream::signed,
};
use crate::{
    process::{
        descriptor_passing::{self, take_standard_input},
        local_socket, spawn,
    },
    sys,
    util::{errno, timeout},
};

/// Most running jobs: each may take four of the usual 1024 descriptors.
pub(crate) const MAX_RUNNING: usize = 128;
/// Most ended jobs; the oldest are forgotten first.
pub(crate) const MAX_ENDED: usize = 1024;
/// Most output kept of all jobs that run: an eighth of the memory of a small guest. Ended jobs may keep as much again.
pub(crate) const MAX_KEPT_BYTES: usize = 64 * 1024 * 1024;
/// How long a job is kept after its end, or after the last command that named it then.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(60 * 60);
/// How long a supervisor without jobs waits for the next one: hosts run one program after another.
const LINGER: Duration = Duration::from_secs(10);
/// Most agents that are served: one, and those that replace each other.
const MAX_LINKS: usize = 4;
/// Most requests that wait: more than an agent has peers and threads.
const MAX_CONVERSATIONS: usize = 128;
/// Most streams of forgotten jobs that are read to their end, so that nothing is killed for writing to them.
const MAX_LEFT_OPEN: usize = 64;
/// Bytes read at a time. After each piece, the other jobs have their turn.
const PIECE_BYTES: usize = 256 * 1024;

/// The state of a supervisor.
struct Supervisor {
    listener: OwnedFd,
    signals: SignalFd,
    links: BTreeMap<u64, OwnedFd>,
    conversations: BTreeMap<u64, Conversation>,
    jobs: BTreeMap<i64, Job>,
    left_open: Vec<File>,
    next_key: u64,
    idle_since: Option<Instant>,
    piece: Vec<u8>,
}

/// A request that has not been answered.
struct Conversation {
    socket: OwnedFd,
    request: Message,
    /// When it is answered at the latest.
    until: Option<Instant>,
    /// Whether to answer at once.
    is_hurried: bool,
}

/// What a watched descriptor belongs to.
#[derive(Clone, Copy, Debug)]
enum Source {
    Listener,
    Signals,
    Link(u64),
    Conversation(u64),
    Report(i64),
    Input(i64),
    Output(i64, usize),
    LeftOpen(usize),
}

/// Runs the supervisor to its end.
pub(crate) fn run() -> ExitCode {
    // For lists of processes, which would show `exe`. The kernel allows 15 bytes.
    let _ = prctl::set_name(c"qgad-jobs");
    let supervise = || -> io::Result<()> {
        let agent = take_standard_input()?;
        // Not a child of the agent, which would have to reap it.
        if let ForkResult::Parent { .. } = sys::process::fork_single_threaded()? {
            process::exit(0);
        }
        spawn::prepare();
        Supervisor::new(agent)?.serve()
    };
    match supervise() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("the supervisor of jobs cannot go on: {}", errno::describe(error));
            ExitCode::FAILURE
        }
    }
}

impl Supervisor {
    fn new(agent: OwnedFd) -> io::Result<Self> {
        let mut kind = [0];
        let received = descriptor_passing::receive(&agent, &mut kind)?;
        let Some((_, Some(listener))) = received else { return Err(io::ErrorKind::InvalidData.into()) };
        let signals: SigSet = [Signal::SIGCHLD].into_iter().collect();
        signals.thread_block()?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        fcntl(&agent, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
        Message::new(Kind::Ready, [], Vec::new()).send(&agent)?;
        Ok(Self {
            listener,
            signals,
            links: BTreeMap::from([(0, agent)]),
            conversations: BTreeMap::new(),
            jobs: BTreeMap::new(),
            left_open: Vec::new(),
            next_key: 1,
            idle_since: Some(Instant::now()),
            piece: vec![0; PIECE_BYTES],
        })
    }

    fn serve(mut self) -> io::Result<()> {
        loop {
            for (source, events) in self.wait()? {
                self.handle(source, events);
            }
            let now = Instant::now();
            for job in self.jobs.values_mut() {
                job.act(now);
            }
            self.answer_conversations(now);
            self.forget_old(now);
            let is_idle = self.jobs.is_empty() && self.left_open.is_empty() && self.conversations.is_empty();
            self.idle_since = is_idle.then(|| self.idle_since.unwrap_or(now));
            if self.idle_since.is_some_and(|since| now >= since + LINGER) {
                self.end();
                return Ok(());
            }
        }
    }

    /// Sleeps until there is something to do.
    fn wait(&self) -> io::Result<Vec<(Source, PollFlags)>> {
        let watched = self.watched();
        let mut polled: Vec<_> =
            watched.iter().map(|&(_, descriptor, events)| PollFd::new(descriptor, events)).collect();
        match poll(&mut polled, timeout::until(self.next_deadline())) {
            Err(Errno::EINTR) => return Ok(Vec::new()),
            other => other?,
        };
        let events = polled.iter().map(|polled| polled.revents().unwrap_or(PollFlags::empty()));
        let ready = watched.iter().zip(events).filter(|(_, events)| !events.is_empty());
        Ok(ready.map(|(&(source, ..), events)| (source, events)).collect())
    }

    /// The descriptors to watch. Not those of streams without room: their programs wait.
    fn watched(&self) -> Vec<(Source, BorrowedFd<'_>, PollFlags)> {
        let readable = PollFlags::POLLIN;
        let mut watched = vec![
            (Source::Listener, self.listener.as_fd(), readable),
            (Source::Signals, self.signals.as_fd(), readable),
        ];
        watched.extend(self.links.iter().map(|(&key, link)| (Source::Link(key), link.as_fd(), readable)));
        for (&key, conversation) in &self.conversations {
            let events = if conversation.is_hurried { PollFlags::empty() } else { readable };
            watched.push((Source::Conversation(key), conversation.socket.as_fd(), events));
        }
        let is_full = self.kept_bytes(|job| !job.has_exited()) >= MAX_KEPT_BYTES;
        for (&id, job) in &self.jobs {
            watched.extend(job.report().map(|report| (Source::Report(id), report.as_fd(), readable)));
            watched.extend(job.wanting_input().map(|(pipe, has_bytes)| {
                let events = if has_bytes { PollFlags::POLLOUT } else { PollFlags::empty() };
                (Source::Input(id), pipe.as_fd(), events)
            }));
            let outputs = job.readable(is_full);
            watched.extend(outputs.map(|(index, source)| (Source::Output(id, index), source.as_fd(), readable)));
        }
        let left_open = self.left_open.iter().enumerate();
        watched.extend(left_open.map(|(index, stream)| (Source::LeftOpen(index), stream.as_fd(), readable)));
        watched
    }

    fn next_deadline(&self) -> Option<Instant> {
        let answers = self.conversations.values().filter(|one| !one.is_hurried).filter_map(|one| one.until);
        let jobs = self.jobs.values().flat_map(|job| [job.next_deadline(), job.over_since().map(|at| at + MAX_AGE)]);
        let end = self.idle_since.map(|since| since + LINGER);
        answers.chain(jobs.flatten()).chain(end).min()
    }

    fn handle(&mut self, source: Source, events: PollFlags) {
        match source {
            Source::Listener => self.accept(),
            Source::Signals => {
                while let Ok(Some(_)) = self.signals.read_signal() {}
                let now = Instant::now();
                self.jobs.values_mut().for_each(|job| job.look_for_end(now));
            }
            Source::Link(key) => self.receive_from(key),
            Source::Conversation(key) if events.contains(PollFlags::POLLHUP) => self.end_conversation(key),
            Source::Conversation(key) => {
                if let Some(conversation) = self.conversations.get_mut(&key) {
                    conversation.is_hurried = true;
                }
            }
            Source::Report(id) => self.learn_of_start(id),
            Source::Input(id) => {
                if let Some(job) = self.jobs.get_mut(&id) {
                    // A pipe without a reader.
                    if events.contains(PollFlags::POLLERR) { job.close_input() } else { job.feed() }
                }
            }
            Source::Output(id, index) => {
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.drain(index, &mut self.piece);
                }
            }
            Source::LeftOpen(index) => {
                let is_temporary = |kind| matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
                let is_open = match self.left_open.get_mut(index).map(|stream| stream.read(&mut self.piece)) {
                    Some(Ok(count)) => count > 0,
                    Some(Err(error)) => is_temporary(error.kind()),
                    None => true,
                };
                if !is_open {
                    // Removing a stream changes the positions of the others, whose events come again.
                    self.left_open.remove(index);
                }
            }
        }
    }

    /// Nobody waits for the answer any more. A program that has not been started by then is not to be.
    fn end_conversation(&mut self, key: u64) {
        let Some(Conversation { request, .. }) = self.conversations.remove(&key) else { return };
        let started = self.jobs.get(&request.number(0)).filter(|_| request.kind == Kind::Start);
        if let Some(job) = started.filter(|job| job.report().is_some()) {
            let _ = sys::process::send_signal(job.pid().as_raw(), SIGKILL);
        }
    }

    fn accept(&mut self) {
        let Ok(link) = sys::socket::accept(&self.listener, SockFlag::SOCK_NONBLOCK) else { return };
        let is_ready = || Message::new(Kind::Ready, [], Vec::new()).send(&link).is_ok();
        if local_socket::is_ours(&link) != Ok(true) || !is_ready() {
            return;
        }
        if self.links.len() >= MAX_LINKS {
            self.links.pop_first();
        }
        let key = self.new_key();
        self.links.insert(key, link);
    }

    fn receive_from(&mut self, key: u64) {
        let Some(link) = self.links.get(&key) else { return };
        match descriptor_passing::receive(link, &mut [0]) {
            Ok(Some((_, Some(socket)))) => self.converse(socket),
            Err(Errno::EAGAIN) => {}
            Ok(Some((_, None)) | None) | Err(_) => drop(self.links.remove(&key)),
        }
    }

    /// Receives a request, which was sent before its socket was passed.
    fn converse(&mut self, socket: OwnedFd) {
        let Ok(Some(request)) = Message::receive(&socket) else { return };
        if self.conversations.len() >= MAX_CONVERSATIONS {
            answer(&socket, &Message::failed(format!("{MAX_CONVERSATIONS} requests about jobs wait already")));
            return;
        }
        let now = Instant::now();
        if let Some(job) = self.jobs.get_mut(&request.number(0)).filter(|_| request.kind != Kind::List) {
            job.attend(now);
        }
        let wait = match request.kind {
            Kind::Read => request.number(4),
            Kind::Write => request.number(3),
            _ => 0,
        };
        let wait = Duration::from_millis(u64::try_from(wait).unwrap_or(0)).min(MAX_WAIT);
        let is_start = request.kind == Kind::Start;
        if is_start && let Err(reason) = self.start(&request, now) {
            answer(&socket, &Message::failed(reason));
            return;
        }
        let until = (!is_start).then_some(now + wait);
        let key = self.new_key();
        self.conversations.insert(key, Conversation { socket, request, until, is_hurried: false });
    }

    fn start(&mut self, request: &Message, now: Instant) -> Result<(), String> {
        let start = Start::from_message(request).ok_or("the supervisor of jobs does not understand the request")?;
        if self.jobs.values().filter(|job| !job.is_over()).count() >= MAX_RUNNING {
            return Err(format!("{MAX_RUNNING} jobs are running already"));
        }
        if self.jobs.contains_key(&start.id) {
            return Err(format!("there is a job {} already", start.id));
        }
        let let_go = || {
            self.jobs.values_mut().for_each(Job::close_streams);
            self.left_open.clear();
            self.conversations.clear();
            self.links.clear();
            if let Ok(null) = File::open("/dev/null") {
                self.listener = null.into();
            }
        };
        let launched = launch(&start, let_go).map_err(errno::describe)?;
        self.jobs.insert(start.id, Job::new(&start, launched, now));
        Ok(())
    }

    /// Reads whether a program runs, or why it could not be started.
    fn learn_of_start(&mut self, id: i64) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let outcome = match job.report().and_then(Report::failure) {
            None => {
                job.has_started();
                Message::done([job.pid().as_raw().into()], Vec::new())
            }
            Some(reason) => {
                // The process has just reported a failure, and exits. A user whose rights it has may have stopped it.
                let _ = sys::process::send_signal(job.pid().as_raw(), SIGKILL);
                let _ = waitpid(job.pid(), None);
                self.jobs.remove(&id);
                Message::failed(reason)
            }
        };
        let is_asked = |one: &Conversation| one.request.kind == Kind::Start && one.request.number(0) == id;
        self.conversations.retain(|_, conversation| {
            if is_asked(conversation) {
                answer(&conversation.socket, &outcome);
            }
            !is_asked(conversation)
        });
    }

    /// Answers the requests that are due.
    fn answer_conversations(&mut self, now: Instant) {
        for (key, conversation) in std::mem::take(&mut self.conversations) {
            match self.carry_out(&conversation, now) {
                Some(reply) => answer(&conversation.socket, &reply),
                None => drop(self.conversations.insert(key, conversation)),
            }
        }
    }

    fn carry_out(&mut self, conversation: &Conversation, now: Instant) -> Progress {
        let Conversation { request, is_hurried, until, .. } = conversation;
        let may_wait = !is_hurried && until.is_none_or(|until| until > now);
        let id = request.number(0);
        match request.kind {
            // It is answered when its program runs.
            Kind::Start => return None,
            Kind::List => return Some(self.list(now)),
            _ => {}
        }
        let Some(job) = self.jobs.get_mut(&id) else {
            return Some(Message::failed(format!("job {id} does not exist")));
        };
        match request.kind {
            Kind::Read => job.read(request, may_wait),
            Kind::Write => job.write(request, id, may_wait),
            Kind::Signal => Some(job.signal_by_request(id, request.number(1))),
            Kind::Resize => Some(match size(request.number(1), request.number(2)) {
                Some(size) => job.resize(id, &size),
                None => Message::failed("a terminal has 1 to 65535 rows and columns"),
            }),
            Kind::Forget if job.has_exited() => {
                self.forget(id);
                Some(Message::done([], Vec::new()))
            }
            Kind::Forget => Some(Message::failed(format!("job {id} has not exited"))),
            _ => Some(Message::failed("the supervisor of jobs does not know the request")),
        }
    }

    fn list(&self, now: Instant) -> Message {
        let (mut numbers, mut bytes) = (Vec::new(), Vec::new());
        for (&id, job) in &self.jobs {
            let (more_numbers, more_bytes) = job.describe(id, now);
            if numbers.is_empty() {
                numbers.push(signed(more_numbers.len()));
            }
            numbers.extend(more_numbers);
            bytes.extend(more_bytes);
        }
        Message::done(numbers, bytes)
    }

    /// Forgets jobs that exited too long ago, or of which there are too many.
    fn forget_old(&mut self, now: Instant) {
        loop {
            let ended = self.jobs.iter().filter_map(|(&id, job)| Some((job.over_since()?, id)));
            let Some((since, oldest)) = ended.clone().min() else { return };
            let is_too_much = ended.count() > MAX_ENDED || self.kept_bytes(Job::has_exited) > MAX_KEPT_BYTES;
            if now < since + MAX_AGE && !is_too_much {
                return;
            }
            self.forget(oldest);
        }
    }

    fn forget(&mut self, id: i64) {
        let Some(job) = self.jobs.remove(&id) else { return };
        self.left_open.extend(job.into_open_streams());
        let surplus = self.left_open.len().saturating_sub(MAX_LEFT_OPEN);
        self.left_open.drain(..surplus);
    }

    fn kept_bytes(&self, of: impl Fn(&Job) -> bool) -> usize {
        self.jobs.values().filter(|job| of(job)).map(Job::kept_bytes).sum()
    }

    fn new_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    /// Ends, and answers requests that were sent meanwhile.
    fn end(self) {
        for link in self.links.values() {
            let _ = shutdown(link.as_raw_fd(), Shutdown::Both);
            while let Ok(Some((_, socket))) = descriptor_passing::receive(link, &mut [0]) {
                if let Some(socket) = socket {
                    answer(&socket, &Message::new(Kind::Ending, [], Vec::new()));
                }
            }
        }
    }
}

/// Answers a request. The agent may be gone.
fn answer(socket: &OwnedFd, message: &Message) {
    let _ = message.send(socket);
}
