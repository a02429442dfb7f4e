//! A job attended from here: its output as it comes, input as it comes, signals, and a terminal.
//!
//! One loop waits for the agent, the input and signals at once. A read waits in the agent nearly always; a request that
//! is sent meanwhile ends its wait, so that a key costs two round trips and silence costs nothing. An agent that has
//! much to send reads no request, so nothing large is sent while a read is outstanding: large writes go alone, with
//! reads between them.
//! A connection that breaks is made again within [`RECONNECT_TIMEOUT`], and the job goes on where it was: no byte is
//! lost or doubled. A signal on its way may be lost. When qgactl ends before the job, the job goes on, too.

mod escape;
mod input;
mod output;
mod signals;
pub(crate) mod terminal;

use std::{
    collections::VecDeque,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, raise},
};
use qga::{
    Command,
    client::{self, JobEnd, JobReader, JobWriter},
    commands::job::{HANG_UP_AFTER, JobRead, JobResize, JobSignal, JobWrite},
};

pub(crate) use self::input::Source;

use self::{
    input::{Input, MAX_PENDING},
    output::Output,
    signals::Signals,
    terminal::RawTerminal,
};
use crate::{
    connect::{Agent, Target, named},
    failure::{Failure, say},
};

/// How long the agent waits for output: at first, and of a job that has been silent. An agent that is killed leaves no
/// sign on a virtio-serial port, so that it is noticed by this and [`REPLY_TIMEOUT`]; the second is also how often an
/// idle shell wakes anybody.
const READ_WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Largest write while a read is outstanding: as base64, far less than a socket's buffer.
const SMALL_WRITE: usize = 32 * 1024;
/// How long a reply may take beyond what the agent is asked to wait: all of them come from memory, so that a healthy
/// agent needs milliseconds, and a host under load a second. Giving up too early costs a new connection only.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an agent that was lost is looked for: as long as a job with a terminal waits for its host.
const RECONNECT_TIMEOUT: Duration = HANG_UP_AFTER;
/// Between two attempts to reach the agent.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// How attending a job ended.
pub(crate) enum Outcome {
    /// The job did.
    Ended(JobEnd),
    /// The user left it, and it goes on.
    Left,
    /// A signal asked for an end, and the job goes on.
    Signalled(Signal),
}

/// A request that has no reply yet.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Read { waits: bool },
    Write { bytes: usize, ends: bool },
    Signal,
    Resize,
}

/// A job, and everything that it is connected to here.
pub(crate) struct Session<'a> {
    target: &'a Target,
    agent: Agent,
    reader: JobReader,
    writer: JobWriter,
    input: Input,
    output: Output,
    signals: Signals,
    terminal: Option<RawTerminal>,
    /// Requests without a reply, in their order, each with the deadline of that.
    sent: VecDeque<(Sent, Instant)>,
    /// Signals to pass on.
    passing: VecDeque<Signal>,
    owes_size: bool,
    /// A write has gone alone, and the next read has its turn.
    read_is_next: bool,
    /// How long the next read waits.
    read_wait: Duration,
    lost_since: Option<Instant>,
}

impl<'a> Session<'a> {
    /// Attends a job; the terminal that is standard input belongs to a job that has one.
    pub(crate) fn begin(
        target: &'a Target,
        agent: Agent,
        (reader, writer): (JobReader, JobWriter),
        source: Source,
        has_terminal: bool,
    ) -> anyhow::Result<Self> {
        // First this: a signal must find either no raw mode or somebody to end it.
        let signals = Signals::block(has_terminal).context("failed to watch for signals")?;
        let terminal = has_terminal.then(RawTerminal::enter).transpose().context("failed to take over the terminal")?;
        Ok(Self {
            target,
            agent,
            reader,
            writer,
            input: Input::new(source, has_terminal)?,
            output: Output::default(),
            signals,
            terminal,
            sent: VecDeque::new(),
            passing: VecDeque::new(),
            // It may have changed since the start.
            owes_size: has_terminal,
            read_is_next: false,
            read_wait: READ_WAITS.0,
            lost_since: None,
        })
    }

    /// Attends the job to its end, or until the user leaves. The agent is one that answers, if the job has ended.
    pub(crate) fn run(mut self) -> anyhow::Result<(Outcome, Agent)> {
        loop {
            let outcome = match self.step() {
                Err(error) if is_of_the_connection(&error) => self.reconnect(&error)?,
                outcome => outcome?,
            };
            if let Some(outcome) = outcome {
                drop(self.terminal);
                self.output.check()?;
                return Ok((outcome, self.agent));
            }
        }
    }

    /// Sends what is due, waits, and does what there is to do.
    fn step(&mut self) -> anyhow::Result<Option<Outcome>> {
        self.send_due()?;
        let deadline = self.sent.iter().map(|(_, deadline)| *deadline).chain(self.input.due_at()).min();
        let (agent_is_ready, is_disturbed) = self.wait(true, deadline)?;
        if is_disturbed && let Some(outcome) = self.take_signals_and_input()? {
            return Ok(Some(outcome));
        }
        if agent_is_ready {
            return self.receive();
        }
        match self.sent.iter().any(|(_, deadline)| *deadline <= Instant::now()) {
            true => Err(named::<JobRead>(client::Error::TimedOut).into()),
            false => Ok(None),
        }
    }

    fn send_due(&mut self) -> Result<(), Failure> {
        let id = self.reader.id();
        while let Some(signal) = self.passing.pop_front() {
            self.send(&JobSignal { id, signal: signal.as_str().into() }, Sent::Signal, Duration::ZERO)?;
        }
        if std::mem::take(&mut self.owes_size) {
            let (rows, columns) = terminal::size();
            self.send(&JobResize { id, rows: rows.into(), columns: columns.into() }, Sent::Resize, Duration::ZERO)?;
        }
        let is_reading = self.sent.iter().any(|(sent, _)| matches!(sent, Sent::Read { .. }));
        let is_writing = self.sent.iter().any(|(sent, _)| matches!(sent, Sent::Write { .. }));
        if self.sent.is_empty() && self.input.is_due() && !self.read_is_next {
            self.write(MAX_PENDING)?;
            self.read_is_next = true;
        } else if !is_writing
            && self.input.is_due()
            && matches!(self.sent.front(), Some((Sent::Read { waits: true }, _)))
        {
            self.write(SMALL_WRITE)?;
        } else if !is_reading && self.sent.iter().all(|(sent, _)| sent.is_small()) {
            let waits = !self.input.is_due();
            let wait = if waits { self.read_wait } else { Duration::ZERO };
            self.send(&self.reader.request(wait), Sent::Read { waits }, wait)?;
            self.read_is_next = false;
        }
        Ok(())
    }

    fn write(&mut self, most: usize) -> Result<(), Failure> {
        let (piece, ends) = self.input.next(most);
        let request = self.writer.request(piece, ends, Duration::ZERO);
        let bytes = piece.len();
        self.send(&request, Sent::Write { bytes, ends }, Duration::ZERO)
    }

    fn send<C: Command>(&mut self, command: &C, sent: Sent, wait: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + wait + REPLY_TIMEOUT;
        self.agent.client.send(command, deadline).map_err(named::<C>)?;
        self.sent.push_back((sent, deadline));
        Ok(())
    }

    /// Waits until something happens or the deadline passes; the agent is left out if it is lost. Returns whether the
    /// agent said something, and whether there is a signal or input.
    fn wait(&mut self, has_agent: bool, deadline: Option<Instant>) -> anyhow::Result<(bool, bool)> {
        let sleep = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // Rounded up, so that the deadline has passed then.
        let timeout = sleep.map_or(PollTimeout::NONE, |sleep| {
            PollTimeout::try_from(sleep + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let agent = self.agent.client.transport().descriptor().filter(|_| has_agent);
        let mut polled: Vec<_> = [Some(self.signals.as_fd()), self.input.descriptor(), agent]
            .into_iter()
            .flatten()
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("failed to wait for the agent"),
        }
        let is_ready = |entry: &PollFd| entry.revents().is_some_and(|events| !events.is_empty());
        let agent_is_ready = has_agent && polled.pop().is_some_and(|agent| is_ready(&agent));
        Ok((agent_is_ready, polled.iter().any(is_ready)))
    }

    fn take_signals_and_input(&mut self) -> anyhow::Result<Option<Outcome>> {
        while let Some(signal) = self.signals.next()? {
            match (signal, &self.terminal) {
                (Signal::SIGWINCH, _) => self.owes_size = true,
                (Signal::SIGTSTP, Some(terminal)) => {
                    terminal.restore();
                    raise(Signal::SIGSTOP)?;
                    terminal.make_raw()?;
                    self.owes_size = true;
                }
                (signal, Some(_)) => return Ok(Some(Outcome::Signalled(signal))),
                (signal, None) => self.passing.push_back(signal),
            }
        }
        let leaves = self.input.fill().context("failed to read the input")?;
        Ok(leaves.then_some(Outcome::Left))
    }

    /// Takes the replies that are there.
    fn receive(&mut self) -> anyhow::Result<Option<Outcome>> {
        loop {
            let outcome = self.receive_next()?;
            if outcome.is_some() || !self.agent.client.has_reply() {
                return Ok(outcome);
            }
        }
    }

    /// Takes the next reply, if it is there as a whole.
    fn receive_next(&mut self) -> anyhow::Result<Option<Outcome>> {
        // Without a question, this is the end of the stream, or noise.
        let Some(&(sent, _)) = self.sent.front() else { return Err(named::<JobRead>(client::Error::Closed).into()) };
        match sent {
            Sent::Read { .. } => {
                let Some(reply) = self.try_receive::<JobRead>()? else { return Ok(None) };
                let output = self.reader.accept(reply).map_err(named::<JobRead>)?;
                if output.out.is_empty() && output.err.is_empty() {
                    self.read_wait = (self.read_wait * 2).min(READ_WAITS.1);
                } else {
                    self.read_wait = READ_WAITS.0;
                    self.input.retry();
                }
                if self.output.deliver(&output) {
                    // What the program would have got here.
                    self.passing.push_back(Signal::SIGPIPE);
                }
                return Ok(output.end.map(Outcome::Ended));
            }
            Sent::Write { bytes, ends } => {
                if let Some(reply) = self.try_receive::<JobWrite>()? {
                    let accepted = self.writer.accept(reply, bytes).map_err(named::<JobWrite>)?;
                    self.input.settle(accepted, bytes, ends);
                }
            }
            // The job may have ended meanwhile.
            Sent::Signal => match self.try_receive::<JobSignal>() {
                Err(failure) if !failure.is_of_the_connection() => say(&format!("qgactl: {failure}")),
                reply => drop(reply?),
            },
            Sent::Resize => match self.try_receive::<JobResize>() {
                Err(failure) if !failure.is_of_the_connection() => {}
                reply => drop(reply?),
            },
        }
        Ok(None)
    }

    fn try_receive<C: Command>(&mut self) -> Result<Option<C::Reply>, Failure> {
        let reply = self.agent.client.try_receive::<C>();
        if !matches!(reply, Ok(None)) {
            self.sent.pop_front();
        }
        if matches!(reply, Ok(Some(_))) {
            self.lost_since = None;
        }
        reply.map_err(named::<C>)
    }

    /// Connects again after a failure of the connection. The user may leave meanwhile.
    fn reconnect(&mut self, lost: &anyhow::Error) -> anyhow::Result<Option<Outcome>> {
        // First this, because QEMU serves one connection at a time.
        self.agent.client.transport().disconnect();
        self.sent.clear();
        self.owes_size = self.terminal.is_some();
        let mut is_told = self.lost_since.is_some();
        let end = *self.lost_since.get_or_insert_with(Instant::now) + RECONNECT_TIMEOUT;
        loop {
            let failure = match self.target.connect(None) {
                Ok(agent) if Instant::now() < end => {
                    self.agent = agent;
                    self.input.retry();
                    return Ok(None);
                }
                Ok(_) => format!("{lost:#}"),
                Err(failure) => failure.to_string(),
            };
            if Instant::now() >= end {
                bail!("the agent was lost, and not found again in {} s: {failure}", RECONNECT_TIMEOUT.as_secs());
            }
            if !is_told {
                self.say("qgactl: the agent was lost, and is looked for");
                is_told = true;
            }
            self.wait(false, Some(Instant::now() + RETRY_PAUSE))?;
            let outcome = self.take_signals_and_input()?;
            // It cannot be passed on.
            let signal = self.passing.pop_front().filter(|signal| *signal != Signal::SIGPIPE);
            if let Some(outcome) = outcome.or(signal.map(Outcome::Signalled)) {
                return Ok(Some(outcome));
            }
        }
    }

    /// Prints a line to stderr, in a terminal as it should look.
    fn say(&self, line: &str) {
        if let Some(terminal) = &self.terminal {
            terminal.restore();
            say(line);
            // If the mode cannot be changed, the terminal is gone, and its end comes as input.
            let _ = terminal.make_raw();
        } else {
            say(line);
        }
    }
}

impl Sent {
    /// Whether a read can be sent behind it.
    fn is_small(self) -> bool {
        !matches!(self, Self::Write { bytes, .. } if bytes > SMALL_WRITE)
    }
}

/// Whether the agent was lost, rather than that it refused something or that the host fails.
fn is_of_the_connection(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(Failure::is_of_the_connection)
}
