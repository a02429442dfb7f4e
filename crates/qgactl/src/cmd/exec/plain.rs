//! A program of guest-exec: for agents without jobs.
//!
//! What it wrote to stdout and stderr goes to ours once it has ended, because the protocol delivers output at the end
//! only. After the timeout, or a signal that ends us, the program goes on, because the protocol cannot end it. The
//! status is 123 where the agent kept a part of the output only: a script must not take that part for all of it,
//! however the program ended.

use std::{
    io::{self, Read, Write},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use qga::{
    client::Ended,
    commands::exec::{self, CaptureOutput, ExecStatus, ProgramStatus},
    wire::base64::Base64,
};

use super::{TIMED_OUT, TRUNCATED, exit_status};
use crate::{
    connect::{Agent, named},
    failure::{say, status_of_signal},
    interrupt::termination_signals,
    live::Source,
};

/// Most bytes of input: as base64 and with a few arguments beside it, what one message carries.
const MAX_INPUT_BYTES: u64 = 47 * 1024 * 1024;

/// Runs the program for as long as `limit` allows.
pub(super) fn run(
    agent: &mut Agent,
    program: &[String],
    env: Option<Vec<String>>,
    source: Source,
    limit: Option<Duration>,
) -> anyhow::Result<ExitCode> {
    let (path, arguments) = program.split_first().context("no program is given")?;
    let program = exec::Exec {
        path: path.clone(),
        arg: Some(arguments.to_vec()),
        env,
        input_data: read(source)?.map(Base64::from),
        capture_output: Some(CaptureOutput::Separated),
    };
    warn_when_signalled(path)?;
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

/// All input, as the program must have it from the start.
fn read(source: Source) -> anyhow::Result<Option<Vec<u8>>> {
    let source: Box<dyn Read> = match source {
        Source::None => return Ok(None),
        Source::Stdin => Box::new(io::stdin()),
        Source::File(file) => Box::new(file),
    };
    let mut input = Vec::new();
    source.take(MAX_INPUT_BYTES + 1).read_to_end(&mut input).context("failed to read the input")?;
    if input.len() as u64 > MAX_INPUT_BYTES {
        bail!("the input has more than {MAX_INPUT_BYTES} bytes, which is all that an agent without jobs takes");
    }
    Ok(Some(input))
}

/// A signal ends us from now on with a word about the program, which gets none.
fn warn_when_signalled(path: &str) -> nix::Result<()> {
    let signals = termination_signals();
    // Before any other thread starts, so that none of them takes the signals.
    signals.thread_block()?;
    let warning = format!("qgactl: {path} may go on in the guest, where this agent cannot end it");
    thread::spawn(move || {
        let Ok(signal) = signals.wait() else { return };
        say(&warning);
        std::process::exit(status_of_signal(signal as i32).into());
    });
    Ok(())
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

fn deliver(data: Option<Base64>, mut to: impl Write) -> anyhow::Result<()> {
    if let Some(data) = data {
        to.write_all(&data.into_bytes()?)?;
        to.flush()?;
    }
    Ok(())
}
