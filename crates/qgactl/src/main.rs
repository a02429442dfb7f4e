//! qgactl: drives the QEMU guest agent inside a VM, from the host.
//!
//! Works with any agent that speaks the protocol. Results go to stdout, everything else to stderr. The exit status
//! says what kind of failure it was ([`STATUS_HELP`]), so that scripts need not parse texts. Each subcommand is one
//! file in `cmd`; this one only reads the command line and reports how it went.

mod checksum;
mod cmd;
mod connect;
mod failure;
mod interrupt;
mod live;
mod metrics;
mod progress;
#[cfg(test)]
mod published;
mod render;
mod several;
mod table;
mod target;

use std::{ops::RangeInclusive, process::ExitCode, time::Duration};

use clap::Parser;

use self::{
    cmd::{OnSeveral, Options},
    connect::Target,
    failure::STATUS_HELP,
};

/// Shortest and longest timeout in seconds: system calls take no shorter one, and the clock may not reach an instant
/// more than 30 years away.
const TIMEOUTS: RangeInclusive<f64> = 0.001..=1e9;

/// Drives the QEMU guest agent inside a VM, from the host.
#[derive(Debug, Parser)]
#[command(version, after_help = STATUS_HELP)]
struct Cli {
    #[command(flatten)]
    target: Target,
    /// Print the `return` of the agent's reply as it was received; for list, print an array
    #[arg(long, global = true)]
    json: bool,
    /// How long to wait for a reply, in seconds [default: 15 longer than qgad lets the command run, which makes 30
    /// for a query and over two hours for a freeze]; for exec and freeze --run, how long the program may run [default:
    /// no limit]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,
    #[command(subcommand)]
    command: cmd::Command,
}

fn main() -> ExitCode {
    let Cli { target, json, timeout, command } = Cli::parse();
    if json && !command.has_json() {
        refuse("the argument '--json' cannot be used with this subcommand");
    }
    if target.is_contradictory() {
        refuse("the arguments '--machine', '--all', '--socket' and '--vsock' cannot be used with each other");
    }
    let on_several = command.on_several();
    let several = if on_several == OnSeveral::Itself { Ok(None) } else { target.several() };
    match several {
        Ok(Some(_)) if on_several == OnSeveral::Refused => refuse("this subcommand is for one machine at a time"),
        Ok(Some(machines)) => return several::run(machines),
        Ok(None) => {}
        Err(failure) => {
            let error = failure.into();
            failure::print(&error);
            return failure::status(&error).into();
        }
    }
    command.run(&Options { target: &target, json, timeout })
}

/// Ends as clap does for arguments that exclude each other.
fn refuse(why: &str) -> ! {
    <Cli as clap::CommandFactory>::command().error(clap::error::ErrorKind::ArgumentConflict, why).exit()
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match TIMEOUTS.contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err(format!("not from {} to {} seconds", TIMEOUTS.start(), TIMEOUTS.end())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_a_number_of_seconds_that_the_clock_can_bear() {
        assert_eq!(parse_seconds("0.001"), Ok(Duration::from_millis(1)));
        assert_eq!(parse_seconds("1e9"), Ok(Duration::from_secs(1_000_000_000)));
        for wrong in ["", "1s", "0", "-1", "0.0001", "1.1e9", "1e19", "1e300", "inf", "NaN"] {
            assert!(parse_seconds(wrong).is_err(), "{wrong}");
        }
    }
}
