//! `qgactl exec`: a program in the guest, as if it ran here.
//!
//! Its exit status becomes ours. What it wrote to stdout and stderr goes to ours once it has ended, because the
//! protocol delivers output at the end only. 125 is for failures that are not the program's, as with env(1), and 124
//! for a program that outlived `--timeout`, as with timeout(1). The program then goes on, because the protocol cannot
//! end it. 123 is for output of which the agent kept a part only: a script must not take that part for all of it,
//! however the program ended.

use std::{
    fs::File,
    io::{self, Read, Write},
    ops::RangeInclusive,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use qga::{
    client::{Ended, Error},
    commands::exec::{self, CaptureOutput, ExecStatus, ProgramStatus},
    wire::base64::Base64,
};

use super::{Options, Subcommand};
use crate::{
    connect::{Agent, named},
    failure::{say, status_of_signal},
};

/// The program ended, but a part of its output is lost.
const TRUNCATED: u8 = 123;

/// The program outlived `--timeout`.
pub(super) const TIMED_OUT: u8 = 124;

/// qgactl or the agent failed.
pub(crate) const FAILED: u8 = 125;

/// Signals that can end a program in the guest.
const SIGNALS: RangeInclusive<i32> = 1..=64;

/// Most bytes of input: as base64 and with a few arguments beside it, what one message carries.
const MAX_INPUT_BYTES: u64 = 47 * 1024 * 1024;

/// Run a program in the guest, print its output, and exit with its exit status
#[derive(Args, Debug)]
pub(crate) struct Exec {
    /// Set an environment variable; repeatable. The program then has only these; by default it has the agent's
    /// environment
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_variable)]
    env: Vec<String>,
    /// Pass this file to the program as standard input, - for qgactl's own; by default it is empty
    #[arg(long, value_name = "FILE")]
    stdin: Option<PathBuf>,
    /// The program, by path or by name, and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

impl Subcommand for Exec {
    fn has_json(&self) -> bool {
        false
    }

    fn run(&self, options: &Options<'_>) -> anyhow::Result<ExitCode> {
        self.run_program(&mut options.target.connect(None)?, options.timeout)
    }

    fn failure_status(&self, _: &anyhow::Error) -> u8 {
        FAILED
    }
}

impl Exec {
    /// Runs the program for as long as `limit` allows.
    fn run_program(&self, agent: &mut Agent, limit: Option<Duration>) -> anyhow::Result<ExitCode> {
        let (path, arguments) = self.program.split_first().context("no program is given")?;
        let program = exec::Exec {
            path: path.clone(),
            arg: Some(arguments.to_vec()),
            env: (!self.env.is_empty()).then(|| self.env.clone()),
            input_data: self.input()?.map(Base64::from),
            capture_output: Some(CaptureOutput::Separated),
        };
        let deadline = limit.map(|limit| Instant::now() + limit);
        let timeout = agent.reply_timeout::<exec::Exec>();
        let ended = agent.client.run(&program, timeout, deadline).map_err(named::<exec::Exec>)?;
        match ended {
            Ended::Exited(status) => report(status),
            Ended::StillRunning { pid } => {
                say(&format!("qgactl: {path} has not ended in time, and goes on in the guest as process {pid}"));
                Ok(TIMED_OUT.into())
            }
        }
    }

    fn input(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(path) = &self.stdin else { return Ok(None) };
        let reading = || format!("failed to read {}", path.display());
        let source: Box<dyn Read> = if path.as_os_str() == "-" {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path).with_context(reading)?)
        };
        let mut input = Vec::new();
        source.take(MAX_INPUT_BYTES + 1).read_to_end(&mut input).with_context(reading)?;
        if input.len() as u64 > MAX_INPUT_BYTES {
            bail!("{}: more than {MAX_INPUT_BYTES} bytes of input", reading());
        }
        Ok(Some(input))
    }
}

/// Passes on the program's output, and its exit status unless output is missing.
fn report(status: ProgramStatus) -> anyhow::Result<ExitCode> {
    deliver(status.out_data, io::stdout()).context("failed to write to standard output")?;
    deliver(status.err_data, io::stderr()).context("failed to write to standard error")?;
    let exit_status = exit_status(status.exitcode, status.signal).map_err(named::<ExecStatus>)?;
    let streams = [("output", status.out_truncated), ("error", status.err_truncated)];
    let truncated: Vec<_> = streams.iter().filter(|(_, is_truncated)| *is_truncated == Some(true)).collect();
    for (stream, _) in &truncated {
        say(&format!(
            "qgactl: the program wrote more to standard {stream} than the agent kept; \
             it ended with status {exit_status}"
        ));
    }
    Ok(if truncated.is_empty() { exit_status } else { TRUNCATED }.into())
}

fn exit_status(code: Option<i64>, signal: Option<i64>) -> Result<u8, Error> {
    let end = match (code, signal) {
        (Some(code), _) => u8::try_from(code).map_err(|_| format!("exit code {code}")),
        (None, Some(signal)) => {
            let number = i32::try_from(signal).ok().filter(|number| SIGNALS.contains(number));
            number.map(status_of_signal).ok_or_else(|| format!("signal {signal}"))
        }
        (None, None) => Err("it does not say how the program ended".into()),
    };
    end.map_err(Error::Garbled)
}

fn deliver(data: Option<Base64>, mut to: impl Write) -> anyhow::Result<()> {
    if let Some(data) = data {
        to.write_all(&data.into_bytes()?)?;
        to.flush()?;
    }
    Ok(())
}

fn parse_variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.into()),
        _ => Err("not of the form NAME=VALUE".into()),
    }
}
