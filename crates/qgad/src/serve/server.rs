//! The I/O loop: one thread that never blocks and never runs a command that could.
//!
//! It sleeps until a stream, a signal, the end of a job or a deadline has something for it, and has no timer of its own:
//! an idle agent never wakes up, unless the service manager wants signs of life, which it gives itself after a round.
//! SIGTERM and SIGINT end it at once, whatever commands are doing.
//! At most [`MAX_CONNECTIONS`] peers are served at once, in turns; further ones wait in the socket's backlog, and so do those
//! for whom there is no descriptor: they are tried again every [`ACCEPT_INTERVAL`].

use std::{
    io,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};

use super::{
    connection::{CHUNK_BYTES, Connection, Progress},
    dispatch::Dispatcher,
    executor::Executor,
    spare_memory::SpareMemory,
};
use crate::{
    channel::{Accepted, Channel, EndOfInput, Listener, Port, Retry},
    service::notify::{Notifier, Pulse},
    util::{errno, timeout},
};

/// Most peers served at once: each may hold a message of 64 MiB and a command's thread.
pub(crate) const MAX_CONNECTIONS: usize = 16;

/// How often a peer that waits for a descriptor is tried again: whoever closes one does not say so.
const ACCEPT_INTERVAL: Duration = Duration::from_secs(1);
const SIGNALS: u64 = 0;
const TASKS: u64 = 1;
const LISTENER: u64 = 2;
const RETRY: u64 = 3;
const FIRST_CONNECTION: u64 = 4;

/// Why the loop ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// SIGTERM or SIGINT.
    BySignal,
    /// The port broke, and is not to be waited for.
    ByChannel,
}

/// The loop and all it looks after.
#[derive(Debug)]
pub(crate) struct Server {
    epoll: Epoll,
    signals: SignalFd,
    dispatcher: Dispatcher,
    executor: Executor,
    source: Source,
    /// With their keys; they are few.
    connections: Vec<(u64, Connection)>,
    next_connection: u64,
    /// Connections with more to do, which wait for nothing but their turn.
    unfinished: Vec<u64>,
    chunk: Vec<u8>,
    spare_memory: SpareMemory,
    notifier: Arc<Notifier>,
    pulse: Option<Pulse>,
    ended: Option<Ended>,
}

#[derive(Debug)]
enum Source {
    Listener { listener: Listener, may_accept: bool, failure: Option<AcceptFailure> },
    Port { port: Port, waits_for_it: bool, retry: Option<Retry>, last_failure: String },
}

/// Peers wait although they could be served.
#[derive(Debug)]
struct AcceptFailure {
    reason: Errno,
    /// When they are tried again, unless that waits for a peer to leave.
    retry_at: Option<Instant>,
}

impl Server {
    /// Takes over a channel. With `waits_for_port` a port that is not there, or breaks, is opened when it comes.
    ///
    /// Blocks SIGTERM and SIGINT for this thread and those it starts: call it before there are any others.
    pub(crate) fn new(channel: Channel, waits_for_port: bool, dispatcher: Dispatcher) -> io::Result<Self> {
        let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
        signals.thread_block()?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let executor = Executor::new(Arc::clone(dispatcher.guest()))?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
        epoll.add(executor.wake_up(), EpollEvent::new(EpollFlags::EPOLLIN, TASKS))?;
        let (source, opened) = match channel {
            Channel::Listener(listener) => {
                epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, LISTENER))?;
                (Source::Listener { listener, may_accept: false, failure: None }, None)
            }
            Channel::Port(port, opened) => {
                let last_failure = String::new();
                (Source::Port { port, waits_for_it: waits_for_port, retry: None, last_failure }, Some(opened))
            }
        };
        let notifier = Arc::new(Notifier::of(&dispatcher.guest().environment));
        let mut server = Self {
            pulse: notifier.sign_of_life_interval().map(Pulse::new),
            notifier,
            epoll,
            signals,
            dispatcher,
            executor,
            source,
            connections: Vec::new(),
            next_connection: FIRST_CONNECTION,
            unfinished: Vec::new(),
            chunk: Vec::with_capacity(CHUNK_BYTES),
            spare_memory: SpareMemory::default(),
            ended: None,
        };
        match opened {
            Some(Some(stream)) => server.serve_port(stream)?,
            Some(None) => server.open_port()?,
            None => {}
        }
        Ok(server)
    }

    /// Serves until there is a reason to stop.
    pub(crate) fn run(mut self) -> io::Result<Ended> {
        let mut events = [EpollEvent::empty(); 2 * MAX_CONNECTIONS];
        self.tell_manager();
        loop {
            let count = match self.epoll.wait(&mut events, self.time_to_sleep()) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(error) => return Err(error.into()),
            };
            for event in &events[..count] {
                self.handle(*event)?;
            }
            self.handle_deadlines()?;
            for key in std::mem::take(&mut self.unfinished) {
                self.advance(key)?;
            }
            if let Some(ended) = self.ended {
                self.notifier.leave();
                return Ok(ended);
            }
            self.tell_manager();
        }
    }

    /// What the agent does, in words for the administrator.
    fn tell_manager(&self) {
        if !self.notifier.is_heard() {
            return;
        }
        if self.dispatcher.guest().freezer.is_frozen() && self.notifier.tell_frozen(true) {
            // A freeze may end by itself, which is nothing that wakes the loop.
            let notifier = Arc::clone(&self.notifier);
            self.dispatcher.guest().freezer.when_thawed(move || {
                notifier.tell_frozen(false);
            });
        }
        let status = match &self.source {
            Source::Port { port, retry: Some(_), .. } => {
                format!("waiting for the host's port {}", port.path().display())
            }
            Source::Port { port, .. } => format!("serving the host on {}", port.path().display()),
            Source::Listener { .. } => "serving the host".into(),
        };
        self.notifier.tell(&status);
    }

    fn time_to_sleep(&self) -> EpollTimeout {
        if !self.unfinished.is_empty() {
            return EpollTimeout::ZERO;
        }
        let retry = self.source.retry_at();
        let pulse = self.pulse.as_ref().map(Pulse::at);
        let deadlines = [self.executor.next_deadline(), retry, self.spare_memory.give_back_at(), pulse];
        timeout::until(deadlines.into_iter().flatten().min())
    }

    fn handle(&mut self, event: EpollEvent) -> io::Result<()> {
        match event.data() {
            SIGNALS => {
                if let Ok(Some(signal)) = self.signals.read_signal() {
                    log::info!("received signal {}, leaving", signal.ssi_signo);
                    self.ended = Some(Ended::BySignal);
                }
            }
            TASKS => self.handle_completions()?,
            LISTENER => {
                if let Source::Listener { may_accept, .. } = &mut self.source {
                    *may_accept = true;
                }
                self.accept_peers()?;
            }
            RETRY => self.open_port()?,
            key => {
                if let Some((_, connection)) = self.connections.iter_mut().find(|(of, _)| *of == key) {
                    let events = event.events();
                    connection.wake(
                        events.contains(EpollFlags::EPOLLHUP),
                        events.intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR),
                    );
                    self.advance(key)?;
                }
            }
        }
        Ok(())
    }

    fn handle_deadlines(&mut self) -> io::Result<()> {
        let now = Instant::now();
        self.spare_memory.give_back_old(now);
        if self.pulse.as_mut().is_some_and(|pulse| pulse.beats(now)) {
            self.notifier.give_sign_of_life();
        }
        if self.executor.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.handle_completions()?;
        }
        if self.source.retry_at().is_none_or(|at| at > now) {
            return Ok(());
        }
        match &mut self.source {
            Source::Listener { may_accept, failure, .. } => {
                *may_accept = true;
                if let Some(failure) = failure {
                    failure.retry_at = None;
                }
                self.accept_peers()
            }
            Source::Port { .. } => self.open_port(),
        }
    }

    fn handle_completions(&mut self) -> io::Result<()> {
        for completion in self.executor.completions() {
            let waiting = self.connections.iter_mut().find(|(_, one)| one.running() == Some(completion.task_id));
            match waiting {
                Some((key, connection)) => {
                    connection.complete(completion.reply);
                    let key = *key;
                    self.advance(key)?;
                }
                // A peer that left does not get its reply.
                None => self.spare_memory.note(completion.reply.map_or(0, |reply| reply.len())),
            }
        }
        Ok(())
    }

    fn advance(&mut self, key: u64) -> io::Result<()> {
        let Some(index) = self.connections.iter().position(|(of, _)| *of == key) else { return Ok(()) };
        let connection = &mut self.connections[index].1;
        let failure = match connection.advance(&self.dispatcher, &mut self.executor, &mut self.chunk) {
            Ok(progress @ (Progress::Waits | Progress::Continues)) => {
                if matches!(progress, Progress::Continues) && !self.unfinished.contains(&key) {
                    self.unfinished.push(key);
                }
                self.spare_memory.note(connection.take_moved(false));
                if let Some(interest) = connection.new_interest() {
                    self.epoll.modify(&*connection, &mut EpollEvent::new(interest, key))?;
                }
                return Ok(());
            }
            Ok(Progress::Over) => None,
            Err(error) => Some(error),
        };
        self.spare_memory.note(connection.take_moved(true));
        self.connections.swap_remove(index);
        match &mut self.source {
            Source::Listener { may_accept, .. } => {
                if let Some(error) = failure {
                    log::debug!("a peer's connection failed: {error}");
                }
                *may_accept = true;
                self.accept_peers()
            }
            Source::Port { port, waits_for_it, .. } => {
                let reason = failure.map_or_else(|| "it ended".into(), |error| error.to_string());
                log::error!("error reading channel '{}': {reason}", port.path().display());
                if *waits_for_it {
                    log::warn!("agent stopped unexpectedly, restarting...");
                    return self.watch_port();
                }
                self.ended = Some(Ended::ByChannel);
                Ok(())
            }
        }
    }

    fn accept_peers(&mut self) -> io::Result<()> {
        while self.connections.len() < MAX_CONNECTIONS {
            let Source::Listener { listener, may_accept: may_accept @ true, failure } = &mut self.source else {
                return Ok(());
            };
            let accepted = listener.accept();
            let last_failure = failure.take().map(|failure| failure.reason);
            match accepted {
                Ok(Accepted::Peer(stream)) => {
                    if let Err(error) = self.serve(stream, EndOfInput::Closes) {
                        log::error!("failed to serve a peer: {}", errno::describe(error));
                    }
                }
                Ok(Accepted::Refused) => {
                    // Others have their turn before the next one, which the socket then tells of again.
                    let mut again = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, LISTENER);
                    return Ok(self.epoll.modify(&*listener, &mut again)?);
                }
                Ok(Accepted::Nobody) => *may_accept = false,
                Err(reason) => {
                    *may_accept = false;
                    *failure = Some(AcceptFailure { reason, retry_at: Some(Instant::now() + ACCEPT_INTERVAL) });
                    if last_failure != Some(reason) {
                        log::error!("failed to accept a peer, which waits: {}", errno::describe(reason));
                    }
                }
            }
        }
        Ok(())
    }

    /// Opens the port, or waits until that may succeed.
    fn open_port(&mut self) -> io::Result<()> {
        let Source::Port { port, retry, last_failure, .. } = &mut self.source else { return Ok(()) };
        *retry = None;
        match port.open() {
            Ok(stream) => {
                last_failure.clear();
                self.serve_port(stream)
            }
            Err(failure) => {
                if *last_failure != failure {
                    log::warn!("{failure}");
                    log::warn!("waiting for channel path...");
                    *last_failure = failure;
                }
                self.watch_port()
            }
        }
    }

    /// Waits until opening the port may succeed. A port that just broke is not opened at once: it may break again.
    fn watch_port(&mut self) -> io::Result<()> {
        let Source::Port { port, retry, .. } = &mut self.source else { return Ok(()) };
        let watch = Retry::watch(port.path());
        if let Some(descriptor) = watch.descriptor() {
            self.epoll.add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, RETRY))?;
        }
        *retry = Some(watch);
        Ok(())
    }

    fn serve_port(&mut self, stream: OwnedFd) -> io::Result<()> {
        let Source::Port { port, .. } = &self.source else { return Ok(()) };
        let end_of_input = port.end_of_input();
        self.serve(stream, end_of_input)
    }

    fn serve(&mut self, stream: OwnedFd, end_of_input: EndOfInput) -> io::Result<()> {
        let key = self.next_connection;
        self.next_connection += 1;
        let connection = Connection::new(stream, end_of_input);
        self.epoll.add(&connection, EpollEvent::new(connection.first_interest(), key))?;
        self.connections.push((key, connection));
        Ok(())
    }
}

impl Source {
    /// When something is tried again that nobody announces.
    fn retry_at(&self) -> Option<Instant> {
        match self {
            Self::Listener { failure, .. } => failure.as_ref().and_then(|failure| failure.retry_at),
            Self::Port { retry, .. } => retry.as_ref().and_then(Retry::at),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{BufRead, BufReader, Write},
        os::unix::net::UnixStream,
        path::Path,
        thread,
    };

    use qga::{Class, Spec};

    use super::*;
    use crate::{
        guest::tests::guest_without_a_machine,
        serve::dispatch::{HANDLERS, Handler, Prepared, Step},
    };

    /// How long a test waits for what must come.
    const TIMEOUT: Duration = Duration::from_secs(60);
    const PONG: &str = "{\"return\": {}}\n";

    /// Serves on a socket, with one more command that never returns, until the test program ends.
    fn serve(socket: &Path) {
        const HANG: Spec = Spec { timeout: Duration::from_millis(50), ..Spec::new("test-hang", Class::Query) };
        let hang = Handler {
            spec: HANG,
            audit_subject: |_| None,
            prepare: |_, _, _| {
                let hang = Step::Run(Box::new(|_, _| {
                    loop {
                        thread::park();
                    }
                }));
                Ok(Prepared { audit_subject: None, step: hang })
            },
        };
        let handlers = HANDLERS.iter().map(|handler| Handler { ..*handler });
        let handlers = Box::leak(handlers.chain([hang]).collect());
        let dispatcher = Dispatcher::with_handlers(handlers, Arc::new(guest_without_a_machine()));
        let listener = Listener::unix(socket).unwrap();
        thread::spawn(move || Server::new(Channel::Listener(listener), false, dispatcher).unwrap().run());
    }

    fn connect(socket: &Path, request: &str) -> BufReader<UnixStream> {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        BufReader::new(stream)
    }

    fn next_line(peer: &mut BufReader<UnixStream>) -> String {
        let mut line = String::new();
        peer.read_line(&mut line).unwrap();
        line
    }

    #[test]
    fn a_command_that_hangs_is_answered_in_its_turn_and_delays_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        serve(&socket);
        let mut stuck = connect(&socket, r#"{"execute":"test-hang","id":1}{"execute":"guest-ping"}"#);
        let mut other = connect(&socket, r#"{"execute":"guest-ping"}"#);
        assert_eq!(next_line(&mut other), PONG);
        let refusal = r#"{"id": 1, "error": {"class": "GenericError", "desc": "test-hang timed out after 0.05 s"}}"#;
        assert_eq!(next_line(&mut stuck), format!("{refusal}\n"));
        assert_eq!(next_line(&mut stuck), PONG);
    }

    #[test]
    fn a_peer_that_sends_without_end_has_a_turn_and_no_more() {
        let dispatcher = Dispatcher::new(Arc::new(guest_without_a_machine()));
        let mut executor = Executor::new(Arc::clone(dispatcher.guest())).unwrap();
        // Always readable, always writable.
        let peer = File::options().read(true).write(true).open("/dev/zero").unwrap();
        let mut connection = Connection::new(peer.into(), EndOfInput::Closes);
        let progress = connection.advance(&dispatcher, &mut executor, &mut Vec::with_capacity(CHUNK_BYTES));
        assert!(matches!(progress, Ok(Progress::Continues)), "{progress:?}");
    }

    #[test]
    fn a_peer_that_leaves_while_its_command_runs_costs_the_others_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        serve(&socket);
        drop(connect(&socket, r#"{"execute":"test-hang"}"#));
        assert_eq!(next_line(&mut connect(&socket, r#"{"execute":"guest-ping"}"#)), PONG);
    }

    #[test]
    fn peers_beyond_the_limit_wait_until_another_leaves() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        serve(&socket);
        let mut served: Vec<_> =
            (0..MAX_CONNECTIONS).map(|_| connect(&socket, r#"{"execute":"guest-ping"}"#)).collect();
        served.iter_mut().for_each(|peer| assert_eq!(next_line(peer), PONG));
        let mut waiting = connect(&socket, r#"{"execute":"guest-ping"}"#);
        // After a whole round of another peer, the loop has looked at everything.
        let mut leaving = served.pop().unwrap();
        leaving.get_mut().write_all(br#"{"execute":"guest-ping"}"#).unwrap();
        assert_eq!(next_line(&mut leaving), PONG);
        waiting.get_ref().set_nonblocking(true).unwrap();
        assert_eq!(waiting.fill_buf().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        waiting.get_ref().set_nonblocking(false).unwrap();
        drop(leaving);
        assert_eq!(next_line(&mut waiting), PONG);
    }
}
