//! qgactl: drives the QEMU guest agent inside a VM, from the host.
//!
//! Works with any agent that speaks the protocol. Results go to stdout, everything else to stderr; the exit status says
//! what kind of failure it was ([`STATUS_HELP`]), so that scripts need not read texts. Each subcommand is one file
//! in `cmd`; this one only reads the command line and reports how it went.

mod checksum;
mod cmd;
mod connect;
mod failure;
mod interrupt;
mod progress;
#[cfg(test)]
mod published;
mod render;
mod sys;
mod table;

use std::{process::ExitCode, time::Duration};

use clap::Parser;

use self::{connect::Target, failure::STATUS_HELP};

/// Drives the QEMU guest agent inside a VM, from the host.
#[derive(Debug, Parser)]
#[command(version, after_help = STATUS_HELP)]
struct Cli {
    #[command(flatten)]
    target: Target,
    /// Print the `return` of the agent's reply as it was received
    #[arg(long, global = true)]
    json: bool,
    /// How long to wait for a reply, in seconds [default: 30, more for freeze, thaw and trim]; for exec and freeze --run,
    /// how long the program may run [default: any time]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,
    #[command(subcommand)]
    command: cmd::Command,
}

fn main() -> ExitCode {
    let Cli { target, json, timeout, command } = Cli::parse();
    if json && !command.has_json() {
        let refusal = "the argument '--json' cannot be used with this subcommand";
        <Cli as clap::CommandFactory>::command().error(clap::error::ErrorKind::ArgumentConflict, refusal).exit();
    }
    command.run(&target, json, timeout)
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("not a positive number of seconds".into()),
    }
}
