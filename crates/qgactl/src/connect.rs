//! From a target on the command line to an agent that answers.
//!
//! A target is named by an option, by an environment variable, or not at all where the host has just one machine.
//! It is looked up when a connection is made, so that one can wait for a machine that is not started yet; once an
//! agent has answered, further connections go to the same one.
//! A connection counts only once the agent has answered a sync: QEMU's socket accepts connections whether or not anyone
//! in the guest listens. That answer has a short timeout of its own, so that a dead agent is noticed at once however
//! long the command itself may take.
//! How long a reply may take is decided here for all subcommands: what the user says, or else what the command's own
//! [`qga::Spec`] allows the agent, and [`MARGIN`].

use std::{
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use qga::{
    Client, Command,
    client::{self, GuestFile, JobReader, JobWriter},
    command::QUERY_TIMEOUT,
    commands::{SPECS, file::FileOpen, job::JobStart},
};
use serde_json::{Map, Value, value::RawValue};

use crate::{
    failure::{Failure, say},
    render::printable,
    target::{
        self, Stream,
        address::Address,
        discovery::{self, Host, Machine, NotChosen},
        holder::{Connections, Holder},
    },
};

/// How long an agent may take to say anything at all: a healthy one needs milliseconds, a host under load a second.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between two attempts to reach an agent that is waited for.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Least timeout of the last attempt.
const LAST_TIMEOUT: Duration = Duration::from_millis(100);

/// What is waited beyond the agent's own timeout, so that its error arrives rather than ours: a busy host delays both.
const MARGIN: Duration = Duration::from_secs(15);

/// The environment variable that names a machine where no option does.
const MACHINE_VARIABLE: &str = "QGACTL_MACHINE";

/// Where the agent is, as the command line says.
#[derive(Args, Debug, Default)]
pub(crate) struct Target {
    /// The VM: its name, UUID or address [default: $QGACTL_MACHINE, or else the only VM on this host]
    ///
    /// A name is that of a QEMU or a libvirt domain, or the number or name of a Proxmox VM. Several names are separated
    /// by commas, and * and ? stand for any characters and for one. An address is one of
    /// unix:PATH, vsock:CID[:PORT], vsock-mux:PATH[:PORT], libvirt:[URI#]NAME and serial:PATH.
    #[arg(short = 'M', long, global = true, value_name = "NAME")]
    machine: Option<String>,
    /// All VMs of this host
    #[arg(long, global = true)]
    all: bool,
    /// The one of several machines that this run is for
    #[arg(long, global = true, hide = true, value_name = "ADDRESS")]
    only: Option<String>,
    /// The unix socket behind the VM's serial port
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The agent's vsock address, both parts decimal
    #[arg(long, global = true, value_name = "CID:PORT", value_parser = parse_vsock)]
    vsock: Option<Address>,
    /// Where an agent has answered, or should: further connections go to the same machine, whatever is started
    /// meanwhile.
    #[arg(skip)]
    answered: OnceLock<Location>,
}

/// A machine's name, and its address or why it has none.
pub(crate) type Selected = (String, Result<String, String>);

/// Where an agent should be.
#[derive(Clone, Debug)]
struct Location {
    address: Address,
    /// What errors call it.
    label: String,
    /// Whether nobody has named the machine.
    is_implied: bool,
}

/// An agent that has answered.
pub(crate) struct Agent {
    /// The conversation.
    pub(crate) client: Client<Stream>,
    /// How long each reply may take, if the user says so.
    timeout: Option<Duration>,
}

impl Agent {
    /// Whether a job can be attended: while it runs, requests and replies need not alternate.
    pub(crate) fn can_attend(&mut self) -> bool {
        self.client.transport().descriptor().is_some()
    }

    /// Runs a command.
    pub(crate) fn call<C: Command>(&mut self, command: &C) -> Result<C::Reply, Failure> {
        let deadline = Instant::now() + self.reply_timeout::<C>();
        self.call_until(command, deadline)
    }

    /// Runs a command whose reply has this deadline.
    pub(crate) fn call_until<C: Command>(&mut self, command: &C, deadline: Instant) -> Result<C::Reply, Failure> {
        self.client.call(command, deadline).map_err(named::<C>)
    }

    /// Runs a command by its name, which qgactl need not know, and returns the text of its reply.
    pub(crate) fn call_by_name(
        &mut self,
        name: &str,
        arguments: &Map<String, Value>,
    ) -> Result<Box<RawValue>, Failure> {
        let known = SPECS.iter().find(|spec| spec.name == name);
        let timeout = self.reply_timeout_of(known.map_or(QUERY_TIMEOUT, |spec| spec.timeout));
        let reply = self.client.call_as(name, arguments, Instant::now() + timeout);
        reply.map_err(|error| Failure::Command { name: name.into(), error })
    }

    /// Opens a file in the guest.
    pub(crate) fn open(&mut self, path: &str, mode: &str) -> Result<GuestFile<'_, Stream>, Failure> {
        let timeout = self.reply_timeout::<FileOpen>();
        GuestFile::open(&mut self.client, path, mode, timeout).map_err(named::<FileOpen>)
    }

    /// Starts a job.
    pub(crate) fn start_job(&mut self, job: &JobStart) -> Result<(JobReader, JobWriter), Failure> {
        let deadline = Instant::now() + self.reply_timeout::<JobStart>();
        self.client.start_job(job, deadline).map_err(named::<JobStart>)
    }

    /// How long the reply to a command may take.
    pub(crate) fn reply_timeout<C: Command>(&self) -> Duration {
        self.reply_timeout_of(C::SPEC.timeout)
    }

    fn reply_timeout_of(&self, agents_own: Duration) -> Duration {
        self.timeout.unwrap_or(agents_own + MARGIN)
    }
}

/// Names the command that failed.
pub(crate) fn named<C: Command>(error: client::Error) -> Failure {
    Failure::Command { name: C::SPEC.name.into(), error }
}

impl Target {
    /// The agent of this machine.
    pub(crate) fn of_machine(machine: Machine) -> Result<Self, Failure> {
        let answered = OnceLock::from(Location::of_machine(machine, false)?);
        Ok(Self { answered, ..Self::default() })
    }

    /// The agent of one of several machines, with the machine's name.
    pub(crate) fn of_selected((name, address): Selected) -> (String, Result<Self, Failure>) {
        let target = match address {
            Ok(address) => Ok(Self { only: Some(address), ..Self::default() }),
            Err(why) => Err(Failure::Unreachable { name: name.clone(), why }),
        };
        (name, target)
    }

    /// Connects, and makes sure that an agent listens. Each reply may take `timeout`, or what its command's spec says.
    pub(crate) fn connect(&self, timeout: Option<Duration>) -> Result<Agent, Failure> {
        if let Some(location) = self.answered.get() {
            return location.connect(timeout);
        }
        let location = self.locate()?;
        let agent = location.connect(timeout)?;
        let location = self.answered.get_or_init(|| location);
        if location.is_implied {
            say(&format!("qgactl: {} is the only machine here", printable(&location.label)));
        }
        Ok(agent)
    }

    /// Tries to connect until an agent answers. The failure is that of the last attempt.
    pub(crate) fn wait(&self, deadline: Instant) -> Result<Agent, Failure> {
        loop {
            let remaining = deadline.saturating_duration_since(Instant::now());
            match self.connect(Some(remaining.max(LAST_TIMEOUT))) {
                // No time mends what the command line says.
                Err(failure @ Failure::NotChosen { .. }) => return Err(failure),
                Err(_) if remaining > RETRY_PAUSE => thread::sleep(RETRY_PAUSE),
                result => return result,
            }
        }
    }

    /// Whether more than one option says where the agent is. clap does not notice where they stand on both sides of the
    /// subcommand.
    pub(crate) fn is_contradictory(&self) -> bool {
        let given = [self.machine.is_some(), self.all, self.socket.is_some(), self.vsock.is_some()];
        given.into_iter().filter(|is_given| *is_given).count() > 1
    }

    /// The path of the socket, if one leads to the agent.
    pub(crate) fn socket(&self) -> Result<Option<PathBuf>, Failure> {
        Ok(self.locate()?.address.socket().map(Path::to_owned))
    }

    /// The machines, if the command line names several.
    pub(crate) fn several(&self) -> Result<Option<Vec<Selected>>, Failure> {
        if self.only.is_some() || self.socket.is_some() || self.vsock.is_some() {
            return Ok(None);
        }
        let name = self.name().filter(|name| Address::parse(name).is_none());
        if !self.all && !name.as_deref().is_some_and(discovery::is_pattern) {
            return Ok(None);
        }
        let machines = discovery::machines(&Host::this());
        let chosen = match name.filter(|_| !self.all) {
            // A single machine may be called like that.
            Some(name) if machines.iter().any(|machine| machine.name == name) => return Ok(None),
            Some(names) => discovery::choose_several(&machines, &names)?,
            None => machines,
        };
        let select = |machine: Machine| (machine.name, machine.agent.map(|address| address.to_string()));
        Ok(Some(chosen.into_iter().map(select).collect()))
    }

    /// What the user knows the machine by: what was given, or the name of the only machine.
    pub(crate) fn label(&self) -> String {
        match (&self.socket, &self.vsock) {
            (Some(path), _) => path.display().to_string(),
            (None, Some(address)) => address.to_string(),
            (None, None) => self.name().or_else(|| Some(self.locate().ok()?.label)).unwrap_or_else(|| "?".into()),
        }
    }

    /// The name or address that the command line or the environment gives.
    fn name(&self) -> Option<String> {
        let variable = || env::var(MACHINE_VARIABLE).ok();
        self.only.clone().or_else(|| self.machine.clone()).or_else(variable).filter(|name| !name.is_empty())
    }

    fn locate(&self) -> Result<Location, Failure> {
        if let Some(path) = &self.socket {
            return Ok(Location::named(Address::Unix(path.clone())));
        }
        if let Some(address) = &self.vsock {
            return Ok(Location::named(address.clone()));
        }
        match self.name() {
            Some(name) => match Address::parse(&name) {
                Some(address) => Ok(Location::named(address.map_err(|what| Failure::NotChosen { what })?)),
                None => Location::of_machine(discovery::choose(discovery::machines(&Host::this()), &name)?, false),
            },
            None => Location::of_machine(discovery::only(discovery::machines(&Host::this()))?, true),
        }
    }
}

impl Location {
    fn named(address: Address) -> Self {
        let label = match &address {
            Address::Unix(path) => path.display().to_string(),
            address => address.to_string(),
        };
        Self { address, label, is_implied: false }
    }

    fn of_machine(machine: Machine, is_implied: bool) -> Result<Self, Failure> {
        let Machine { name, agent, .. } = machine;
        match agent {
            Ok(address) => Ok(Self { label: format!("{name} ({address})"), address, is_implied }),
            Err(why) => Err(Failure::Unreachable { name, why }),
        }
    }

    fn connect(&self, timeout: Option<Duration>) -> Result<Agent, Failure> {
        let greeting_timeout = timeout.map_or(GREETING_TIMEOUT, |timeout| timeout.min(GREETING_TIMEOUT));
        let target = || self.label.clone();
        let holder = || Connections::now().holder(self.address.qemu_socket()?);
        if let Some(holder) = holder().filter(Holder::is_libvirt) {
            return Err(Failure::Held { target: target(), holder });
        }
        let stream = target::open(&self.address, greeting_timeout)
            .map_err(|error| Failure::NoConnection { target: target(), error })?;
        let mut client = Client::new(stream);
        client.sync(Instant::now() + greeting_timeout).map_err(|error| match error {
            client::Error::TimedOut => Failure::Silent { target: target(), waited: greeting_timeout, holder: holder() },
            error => Failure::Command { name: target(), error },
        })?;
        Ok(Agent { client, timeout })
    }
}

impl From<NotChosen> for Failure {
    fn from(why: NotChosen) -> Self {
        match why {
            NotChosen::Absent(what) => Self::NoMachine { what },
            NotChosen::Ambiguous(what) => Self::NotChosen { what },
        }
    }
}

fn parse_vsock(text: &str) -> Result<Address, String> {
    let address = text.contains(':').then(|| Address::parse(&format!("vsock:{text}"))).flatten();
    address.and_then(Result::ok).ok_or_else(|| "not of the form CID:PORT, two decimal numbers below 2^32".into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use qga::commands::storage::Fstrim;

    use super::*;

    #[test]
    fn a_reply_has_longer_than_the_agent_allows_the_command_unless_the_user_says_otherwise() {
        let agent = |timeout| Agent { client: Client::new(Box::new(UnixStream::pair().unwrap().0) as Stream), timeout };
        assert_eq!(agent(None).reply_timeout::<Fstrim>(), Fstrim::SPEC.timeout + MARGIN);
        let second = Duration::from_secs(1);
        assert_eq!(agent(Some(second)).reply_timeout::<Fstrim>(), second);
    }

    #[test]
    fn a_vsock_address_is_two_decimal_numbers() {
        assert_eq!(parse_vsock("3:1234"), Ok(Address::Vsock { cid: 3, port: 1234 }));
        assert_eq!(parse_vsock("4294967295:1"), Ok(Address::Vsock { cid: u32::MAX, port: 1 }));
        for wrong in ["", "3", ":", "3:", ":1", "x:1", "3:0x1", "4294967296:1", "-1:1"] {
            assert!(parse_vsock(wrong).is_err(), "{wrong}");
        }
    }
}
