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
mod memory;
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

use clap::Subcommand;

use crate::{connect::Target, failure, render::printable};

/// Longer than the agent's own deadline for what runs a program of the guest's.
const TIMEOUT: Duration = Duration::from_secs(75);

/// What to do with the agent.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Info(info::Info),
    Ping(ping::Ping),
    Call(call::Call),
    Exec(exec::Exec),
    Pull(pull::Pull),
    Push(push::Push),
    Cat(cat::Cat),
    Net(net::Net),
    Routes(routes::Routes),
    Cpus(cpus::Cpus),
    Memory(memory::Memory),
    Stats(stats::Stats),
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

impl Command {
    /// Whether the result is one reply, and so has a JSON form.
    pub(crate) fn has_json(&self) -> bool {
        match self {
            Self::Exec(_) | Self::Pull(_) | Self::Push(_) | Self::Cat(_) => false,
            Self::Passwd(_) | Self::Shutdown(_) | Self::Suspend(_) | Self::Wait(_) | Self::Doctor(_) => false,
            Self::Freeze(freeze) => !freeze.runs_a_program(),
            _ => true,
        }
    }

    /// Connects, does it, and returns how the process ends.
    pub(crate) fn run(&self, target: &Target, json: bool, timeout: Option<Duration>) -> ExitCode {
        self.attempt(target, json, timeout).unwrap_or_else(|error| {
            failure::print(&error);
            match self {
                Self::Exec(_) => exec::FAILED.into(),
                Self::Freeze(freeze) if freeze.runs_a_program() => exec::FAILED.into(),
                _ => failure::status(&error).into(),
            }
        })
    }

    fn attempt(&self, target: &Target, json: bool, timeout: Option<Duration>) -> anyhow::Result<ExitCode> {
        match self {
            Self::Exec(exec) => return exec.run(&mut target.connect(None)?, timeout),
            Self::Freeze(freeze) => return freeze.run(target, json, timeout),
            Self::Doctor(doctor) => return doctor.run(target, timeout),
            Self::Info(info) => info.run(&mut target.connect(timeout)?, json)?,
            Self::Ping(ping) => ping.run(&mut target.connect(timeout)?, json)?,
            Self::Call(call) => call.run(&mut target.connect(timeout)?, json)?,
            Self::Pull(pull) => pull.run(&mut target.connect(timeout)?)?,
            Self::Push(push) => push.run(&mut target.connect(timeout)?)?,
            Self::Cat(cat) => cat.run(&mut target.connect(timeout)?)?,
            Self::Net(net) => net.run(&mut target.connect(timeout)?, json)?,
            Self::Routes(routes) => routes.run(&mut target.connect(timeout)?, json)?,
            Self::Cpus(cpus) => cpus.run(&mut target.connect(timeout)?, json)?,
            Self::Memory(memory) => memory.run(&mut target.connect(timeout)?, json)?,
            Self::Stats(stats) => stats.run(&mut target.connect(timeout)?, json)?,
            Self::Fs(fs) => fs.run(&mut target.connect(timeout)?, json)?,
            Self::Disks(disks) => disks.run(&mut target.connect(timeout)?, json)?,
            Self::Trim(trim) => trim.run(&mut target.connect(timeout.or(Some(trim::REPLY_TIMEOUT)))?, json)?,
            Self::Thaw(thaw) => thaw.run(&mut target.connect(timeout.or(Some(thaw::REPLY_TIMEOUT)))?, json)?,
            Self::Time(time) => time.run(&mut target.connect(timeout.or(Some(TIMEOUT)))?, json)?,
            Self::Users(users) => users.run(&mut target.connect(timeout)?, json)?,
            Self::Passwd(passwd) => passwd.run(&mut target.connect(timeout.or(Some(TIMEOUT)))?)?,
            Self::SshKeys(keys) => keys.run(&mut target.connect(timeout)?, json)?,
            Self::Shutdown(shutdown) => shutdown.run(target, timeout)?,
            Self::Suspend(suspend) => suspend.run(&mut target.connect(timeout)?)?,
            Self::Wait(wait) => wait.run(target, timeout)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Prints to stdout, but nothing that a terminal obeys; in JSON this is the same text, spelt otherwise. A reader that has gone away, as in `qgactl info | head -1`, is an error and no panic.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    Ok(std::io::stdout().write_all(printable(text).as_bytes())?)
}
