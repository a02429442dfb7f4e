//! The subcommands, one file each. A subcommand is its arguments and what it does with an agent.

mod call;
mod cat;
mod cpus;
mod disks;
mod doctor;
mod exec;
mod freeze;
mod fs;
mod info;
mod jobs;
mod list;
mod memory;
mod metrics;
mod net;
mod passwd;
mod ping;
mod pull;
mod push;
mod routes;
mod shutdown;
mod ssh_keys;
mod stats;
mod suspend;
mod thaw;
mod time;
mod trim;
mod users;
mod wait;

use std::{process::ExitCode, time::Duration};

use crate::{
    connect::{Agent, Target},
    failure::{self, Failure},
    render::printable,
};

/// What to do with the agent.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    List(list::List),
    Info(info::Info),
    Ping(ping::Ping),
    Call(call::Call),
    Exec(exec::Exec),
    Shell(exec::Shell),
    Jobs(jobs::Jobs),
    Pull(pull::Pull),
    Push(push::Push),
    Cat(cat::Cat),
    Net(net::Net),
    Routes(routes::Routes),
    Cpus(cpus::Cpus),
    Memory(memory::Memory),
    Stats(stats::Stats),
    Metrics(metrics::MetricsCommand),
    Fs(fs::Fs),
    Disks(disks::Disks),
    Trim(trim::Trim),
    Freeze(freeze::Freeze),
    Thaw(thaw::Thaw),
    Time(time::Time),
    Users(users::Users),
    Passwd(passwd::Passwd),
    SshKeys(ssh_keys::SshKeys),
    Shutdown(shutdown::Shutdown),
    Suspend(suspend::Suspend),
    Wait(wait::Wait),
    Doctor(doctor::Doctor),
}

/// How a subcommand treats several machines.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OnSeveral {
    /// It does what it does with all of them.
    Itself,
    /// It is run once for each.
    Repeated,
    /// It is for one machine at a time.
    Refused,
}

/// A subcommand: its arguments, and what it does.
trait Subcommand {
    /// Whether `--json` can be used: the result is one reply, which is then printed as it was received.
    fn has_json(&self) -> bool;

    /// Connects, does it, and returns how the process ends.
    fn run(&self, options: &Options<'_>) -> anyhow::Result<ExitCode>;

    /// The exit status of a failure.
    fn failure_status(&self, error: &anyhow::Error) -> u8 {
        failure::status(error)
    }
}

/// A subcommand that needs one connection and no other exit status than success.
trait AgentSubcommand {
    /// As [`Subcommand::has_json`].
    const HAS_JSON: bool;

    /// Does it with an agent that has answered. `json` is false unless the subcommand has JSON.
    fn run_with(&self, agent: &mut Agent, json: bool) -> anyhow::Result<()>;
}

impl<S: AgentSubcommand> Subcommand for S {
    fn has_json(&self) -> bool {
        S::HAS_JSON
    }

    fn run(&self, options: &Options<'_>) -> anyhow::Result<ExitCode> {
        self.run_with(&mut options.connect()?, options.json)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The options that all subcommands share.
pub(crate) struct Options<'a> {
    /// Where the agent is.
    pub(crate) target: &'a Target,
    /// Whether the reply is printed as it was received.
    pub(crate) json: bool,
    /// How long a reply may take, or a program.
    pub(crate) timeout: Option<Duration>,
}

impl Options<'_> {
    fn connect(&self) -> Result<Agent, Failure> {
        self.target.connect(self.timeout)
    }
}

impl Command {
    /// Whether `--json` can be used.
    pub(crate) fn has_json(&self) -> bool {
        self.subcommand().has_json()
    }

    /// What becomes of it where the command line names several machines.
    pub(crate) fn on_several(&self) -> OnSeveral {
        match self {
            Self::List(_) | Self::Metrics(_) => OnSeveral::Itself,
            Self::Freeze(freeze) if freeze.is_around_a_program() => OnSeveral::Itself,
            // They ask a question, write to one place, or leave guests in a state that nobody ends.
            Self::Passwd(_) | Self::Pull(_) | Self::Cat(_) | Self::Freeze(_) | Self::Suspend(_) => OnSeveral::Refused,
            _ => OnSeveral::Repeated,
        }
    }

    /// Connects, does it, and returns how the process ends.
    pub(crate) fn run(&self, options: &Options<'_>) -> ExitCode {
        let subcommand = self.subcommand();
        subcommand.run(options).unwrap_or_else(|error| {
            failure::print(&error);
            subcommand.failure_status(&error).into()
        })
    }

    fn subcommand(&self) -> &dyn Subcommand {
        match self {
            Self::List(list) => list,
            Self::Info(info) => info,
            Self::Ping(ping) => ping,
            Self::Call(call) => call,
            Self::Exec(exec) => exec,
            Self::Shell(shell) => shell,
            Self::Jobs(jobs) => jobs,
            Self::Pull(pull) => pull,
            Self::Push(push) => push,
            Self::Cat(cat) => cat,
            Self::Net(net) => net,
            Self::Routes(routes) => routes,
            Self::Cpus(cpus) => cpus,
            Self::Memory(memory) => memory,
            Self::Stats(stats) => stats,
            Self::Metrics(metrics) => metrics,
            Self::Fs(fs) => fs,
            Self::Disks(disks) => disks,
            Self::Trim(trim) => trim,
            Self::Freeze(freeze) => freeze,
            Self::Thaw(thaw) => thaw,
            Self::Time(time) => time,
            Self::Users(users) => users,
            Self::Passwd(passwd) => passwd,
            Self::SshKeys(ssh_keys) => ssh_keys,
            Self::Shutdown(shutdown) => shutdown,
            Self::Suspend(suspend) => suspend,
            Self::Wait(wait) => wait,
            Self::Doctor(doctor) => doctor,
        }
    }
}

/// Prints to stdout, with control and invisible characters escaped; in JSON that is the same text in another notation.
/// A reader that has gone away, as in `qgactl info | head -1`, is an error and no panic.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    Ok(std::io::stdout().write_all(printable(text).as_bytes())?)
}
