//! The I/O loop: one thread that never blocks and never runs a command that could.
//!
//! It sleeps until a stream, a signal, the end of a task or a deadline wakes it. It has no timer of its own: an idle
//! agent never wakes, except to ping the watchdog of a service manager that has one. SIGTERM and SIGINT end the loop at
//! once, even while commands run. At most [`MAX_CONNECTIONS`] peers are served at once, in turns. Further ones wait in
//! the socket's backlog.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Instant};

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
    channel::{Channel, EndOfInput, Next, Source},
    service::notify::{Notifier, WatchdogTimer},
    util::{errno, timeout},
};

/// Most peers served at once: each may hold a message of 64 MiB and a command's thread.
pub(crate) const MAX_CONNECTIONS: usize = 16;

const SIGNALS: u64 = 0;
const TASKS: u64 = 1;
const SOURCE: u64 = 2;
const FIRST_CONNECTION: u64 = 3;
/// Edge-triggered: an event says that there may be a stream, and streams are taken until there is none.
const SOURCE_FLAGS: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);

/// Why the loop ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// SIGTERM or SIGINT.
    BySignal,
    /// The port broke, and is not to be waited for.
    ByChannel,
}

/// The loop, with its streams, timers and tasks.
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
    watchdog: Option<WatchdogTimer>,
    ended: Option<Ended>,
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
        let notifier = Arc::new(Notifier::of(&dispatcher.guest().environment));
        let mut server = Self {
            watchdog: notifier.watchdog_interval().map(WatchdogTimer::new),
            notifier,
            epoll,
            signals,
            dispatcher,
            executor,
            source: Source::new(channel, waits_for_port),
            connections: Vec::new(),
            next_connection: FIRST_CONNECTION,
            unfinished: Vec::new(),
            chunk: Vec::with_capacity(CHUNK_BYTES),
            spare_memory: SpareMemory::default(),
            ended: None,
        };
        server.watch_source()?;
        server.serve_new_peers()?;
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
        if !self.notifier.is_connected() {
            return;
        }
        if self.dispatcher.guest().freezer.is_frozen() && self.notifier.tell_frozen(true) {
            // A freeze may end by itself, which is nothing that wakes the loop.
            let notifier = Arc::clone(&self.notifier);
            self.dispatcher.guest().freezer.when_thawed(move || {
                notifier.tell_frozen(false);
            });
        }
        self.notifier.tell(&self.source.status());
    }

    fn time_to_sleep(&self) -> EpollTimeout {
        if !self.unfinished.is_empty() {
            return EpollTimeout::ZERO;
        }
        let retry = self.source.retry_at();
        let watchdog = self.watchdog.as_ref().map(WatchdogTimer::next_ping);
        let deadlines = [self.executor.next_deadline(), retry, self.spare_memory.give_back_at(), watchdog];
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
            SOURCE => {
                self.source.wake();
                self.serve_new_peers()?;
            }
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
        if self.watchdog.as_mut().is_some_and(|watchdog| watchdog.rearm_if_due(now)) {
            self.notifier.ping_watchdog();
        }
        if self.executor.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.handle_completions()?;
        }
        if self.source.retry_at().is_some_and(|at| at <= now) {
            self.source.wake();
            self.serve_new_peers()?;
        }
        Ok(())
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
                None => self.spare_memory.note(completion.reply.map_or(0, |reply| reply.len()), Instant::now()),
            }
        }
        self.spare_memory.note(self.executor.take_freed_bytes(), Instant::now());
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
                self.spare_memory.note(connection.take_moved(false), Instant::now());
                if let Some(interest) = connection.new_interest() {
                    self.epoll.modify(&*connection, &mut EpollEvent::new(interest, key))?;
                }
                return Ok(());
            }
            Ok(Progress::Over) => None,
            Err(error) => Some(error),
        };
        self.spare_memory.note(connection.take_moved(true), Instant::now());
        if let Some(task_id) = self.connections.swap_remove(index).1.running() {
            self.executor.hurry(task_id);
        }
        if !self.source.lose_stream(failure) {
            self.ended = Some(Ended::ByChannel);
            return Ok(());
        }
        self.serve_new_peers()
    }

    /// Serves the peers that the source has, as long as there is room for them.
    fn serve_new_peers(&mut self) -> io::Result<()> {
        while self.connections.len() < MAX_CONNECTIONS {
            match self.source.next() {
                Next::Stream(stream, EndOfInput::Closes) => {
                    if let Err(error) = self.serve(stream, EndOfInput::Closes) {
                        log::error!("failed to serve a peer: {}", errno::describe(error));
                    }
                }
                Next::Stream(stream, end_of_input) => self.serve(stream, end_of_input)?,
                Next::Watch => self.watch_source()?,
                Next::Refused => return self.watch_source_anew(),
                Next::Nothing => break,
            }
        }
        Ok(())
    }

    /// Watches the descriptor that the source has now.
    fn watch_source(&mut self) -> io::Result<()> {
        let Some(descriptor) = self.source.descriptor() else { return Ok(()) };
        Ok(self.epoll.add(descriptor, EpollEvent::new(SOURCE_FLAGS, SOURCE))?)
    }

    /// Has the source's descriptor reported again, although nothing is new.
    fn watch_source_anew(&mut self) -> io::Result<()> {
        let Some(descriptor) = self.source.descriptor() else { return Ok(()) };
        Ok(self.epoll.modify(descriptor, &mut EpollEvent::new(SOURCE_FLAGS, SOURCE))?)
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

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{BufRead, BufReader, Write},
        os::unix::net::UnixStream,
        path::Path,
        thread,
        time::Duration,
    };

    use qga::{Class, Spec};

    use super::*;
    use crate::{
        channel::Listener,
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
