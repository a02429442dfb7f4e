//! The subcommands, one file each. A subcommand is its arguments and what it does with an agent.

pub(crate) mod call;
pub(crate) mod info;
pub(crate) mod ping;

use std::{process::ExitCode, time::Duration};

use clap::Subcommand;

use crate::{
    connect::{Agent, Target},
    failure,
};

/// What to do with the agent.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Info(info::Info),
    Ping(ping::Ping),
    Call(call::Call),
}

impl Command {
    /// Whether the result is one reply, and so has a JSON form.
    pub(crate) fn has_json(&self) -> bool {
        matches!(self, Self::Info(_) | Self::Ping(_) | Self::Call(_))
    }

    /// Connects, does it, and says how the process ends.
    pub(crate) fn run(
        self,
        target: &Target,
        json: bool,
        timeout: Option<Duration>,
    ) -> Result<ExitCode, (anyhow::Error, ExitCode)> {
        let connected = |run: &dyn Fn(&mut Agent) -> anyhow::Result<()>| run(&mut target.connect(timeout)?);
        let outcome = match &self {
            Self::Info(info) => connected(&|agent| info.run(agent, json)),
            Self::Ping(ping) => connected(&|agent| ping.run(agent, json)),
            Self::Call(call) => connected(&|agent| call.run(agent, json)),
        };
        match outcome {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => {
                let status = failure::status(&error);
                Err((error, ExitCode::from(status as u8)))
            }
        }
    }
}

/// Prints to stdout. A reader that has gone away, as in `qgactl info | head -1`, is an error and no panic.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
