//! `qgactl exec`: a program in the guest, as if it ran here.
//!
//! Its exit status becomes ours. Where the agent has jobs, the program is one: output and input pass while it runs
//! ([`attend`]), it may have a terminal, and it outlives us. Elsewhere it is one of guest-exec's ([`plain`]), with its
//! output at the end, and what that cannot do is refused. 125 is for failures that are not the program's, as with
//! env(1), and 124 for a program that outlived `--timeout`, as with timeout(1).

mod attend;
mod plain;

use std::{fs::File, ops::RangeInclusive, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use qga::{
    client::Error,
    commands::job::{JobStart, Terminal, Unattended},
};

use super::{Options, Subcommand, call, print};
use crate::{
    connect::Agent,
    failure::{Failure, status_of_signal},
    live::{Source, terminal},
};

pub(super) use self::attend::attend;

/// The program ended, but a part of its output is lost.
const TRUNCATED: u8 = 123;

/// The program outlived `--timeout`.
pub(super) const TIMED_OUT: u8 = 124;

/// qgactl or the agent failed.
pub(crate) const FAILED: u8 = 125;

/// Signals that can end a program in the guest.
const SIGNALS: RangeInclusive<i32> = 1..=64;

/// Run a program in the guest as if it ran here, and exit with its exit status
///
/// With qgad in the guest, output and input pass while the program runs. Ctrl-C and other signals are passed on to it,
/// and Ctrl-\ leaves it. With --tty, all keys go to the guest, and ~. at the beginning of a line leaves (~~ sends one
/// tilde). A program that is left goes on, and `jobs attach` returns to it; one with a terminal is hung up after five
/// minutes. With qemu-ga in the guest, output comes at the end, and of these options only --stdin, --interactive (input
/// is read to its end first), --timeout, and --clear-env with --env can be used.
#[derive(Args, Debug)]
pub(crate) struct Exec {
    #[command(flatten)]
    login: Login,
    /// Pass our standard input to the program, as it comes; by default its input is empty
    #[arg(short, long, conflicts_with = "stdin")]
    interactive: bool,
    /// Pass this file to the program as standard input, - for our own
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tty", "detach"])]
    stdin: Option<PathBuf>,
    /// Run it on a terminal, which is shown on ours
    #[arg(short, long)]
    tty: bool,
    /// The program has only the variables given by --env, by env(1)
    #[arg(long)]
    clear_env: bool,
    /// Print the job's id and leave it; with --interactive, its input stays open for `jobs attach`
    #[arg(short, long)]
    detach: bool,
    /// The program, by path or by name, and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

/// Run the login shell of a user on a terminal, which is shown on ours
///
/// As exec --tty. Only with qgad in the guest.
#[derive(Args, Debug)]
pub(crate) struct Shell {
    #[command(flatten)]
    login: Login,
}

/// Whose program it is, and where it runs.
#[derive(Args, Debug)]
struct Login {
    /// Run as this user, with his groups and a login's environment; by default as the agent's, which is root
    #[arg(short, long)]
    user: Option<String>,
    /// Run in this directory of the guest
    #[arg(short = 'w', long, value_name = "DIRECTORY")]
    cwd: Option<String>,
    /// Set an environment variable, besides those of the agent or of the login; repeatable
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = parse_variable)]
    env: Vec<String>,
}

impl Subcommand for Exec {
    fn has_json(&self) -> bool {
        self.detach
    }

    fn run(&self, options: &Options<'_>) -> anyhow::Result<ExitCode> {
        if self.tty && !self.detach {
            terminal::check()?;
        }
        let source = self.source()?;
        let start = self.job(options.timeout)?;
        let mut agent = options.target.connect(None)?;
        if self.detach {
            return detach(&mut agent, &start, options.json).map_err(|error| explain(error, &self.needs()));
        }
        if !agent.can_attend() {
            return match self.needs() {
                needs if needs.is_empty() => self.run_plain(&mut agent, source, options),
                needs => bail!("{needs} cannot be used through libvirt, except with --detach"),
            };
        }
        match agent.start_job(&start) {
            Ok(job) => attend(options.target, agent, job, source, self.tty),
            Err(failure) if failure.is_not_allowed() && self.needs().is_empty() => {
                self.run_plain(&mut agent, source, options)
            }
            Err(failure) => Err(explain(failure.into(), &self.needs())),
        }
    }

    fn failure_status(&self, _: &anyhow::Error) -> u8 {
        FAILED
    }
}

impl Subcommand for Shell {
    fn has_json(&self) -> bool {
        false
    }

    fn run(&self, options: &Options<'_>) -> anyhow::Result<ExitCode> {
        terminal::check()?;
        let start = JobStart { terminal: Some(our_terminal()), ..self.login.job(options.timeout) };
        let mut agent = options.target.connect(None)?;
        if !agent.can_attend() {
            bail!("shell cannot be used through libvirt");
        }
        let job = agent.start_job(&start).map_err(|failure| explain(failure.into(), "shell"))?;
        attend(options.target, agent, job, Source::Stdin, true)
    }

    fn failure_status(&self, _: &anyhow::Error) -> u8 {
        FAILED
    }
}

impl Exec {
    /// Runs the program to its end, as any agent can.
    fn run_plain(&self, agent: &mut Agent, source: Source, options: &Options<'_>) -> anyhow::Result<ExitCode> {
        let env = self.clear_env.then(|| self.login.env.clone());
        plain::run(agent, &self.program, env, source, options.timeout)
    }

    fn source(&self) -> anyhow::Result<Source> {
        match &self.stdin {
            Some(path) if path.as_os_str() == "-" => Ok(Source::Stdin),
            Some(path) => {
                let file = File::open(path).with_context(|| format!("failed to read {}", path.display()))?;
                Ok(Source::File(file))
            }
            None if self.interactive || self.tty => Ok(Source::Stdin),
            None => Ok(Source::None),
        }
    }

    fn job(&self, limit: Option<Duration>) -> anyhow::Result<JobStart> {
        let terminal = self.tty.then(our_terminal);
        let mut job = self.login.job(limit);
        let mut program = self.program.clone();
        if self.clear_env {
            if program[0].contains('=') {
                bail!("--clear-env: env(1) would take {} for a variable", program[0]);
            }
            let term = terminal.iter().filter_map(|terminal| Some(format!("TERM={}", terminal.term.as_ref()?)));
            let variables = term.chain(job.env.take().unwrap_or_default());
            program = ["env", "-i"].into_iter().map(Into::into).chain(variables).chain(program).collect();
        }
        job.path = Some(program.remove(0));
        job.arg = Some(program);
        job.stdin = Some(self.interactive || self.stdin.is_some());
        job.terminal = terminal;
        job.unattended = self.detach.then_some(Unattended::Keep);
        Ok(job)
    }

    /// Which of the options only a job has.
    fn needs(&self) -> String {
        let options = [
            ("--tty", self.tty),
            ("--detach", self.detach),
            ("--user", self.login.user.is_some()),
            ("--cwd", self.login.cwd.is_some()),
            ("--env without --clear-env", !self.login.env.is_empty() && !self.clear_env),
        ];
        let given: Vec<_> = options.iter().filter(|(_, is_given)| *is_given).map(|(option, _)| *option).collect();
        given.join(", ")
    }
}

impl Login {
    fn job(&self, limit: Option<Duration>) -> JobStart {
        // The agent counts whole seconds.
        let seconds = |limit: Duration| limit.as_secs() + u64::from(limit.subsec_nanos() > 0);
        JobStart {
            user: self.user.clone(),
            cwd: self.cwd.clone(),
            env: (!self.env.is_empty()).then(|| self.env.clone()),
            timeout: limit.map(|limit| i64::try_from(seconds(limit)).unwrap_or(i64::MAX)),
            ..JobStart::default()
        }
    }
}

/// Says that what was asked for cannot be had from an agent without jobs, if that is why it failed.
fn explain(error: anyhow::Error, what: &str) -> anyhow::Error {
    match error.downcast_ref().is_some_and(Failure::is_not_allowed) {
        true => error.context(format!("{what} can only be used with an agent that has jobs")),
        false => error,
    }
}

fn detach(agent: &mut Agent, start: &JobStart, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        call::print_received_of(agent, start)?;
    } else {
        print(&format!("{}\n", agent.call(start)?.id))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A terminal as ours is.
fn our_terminal() -> Terminal {
    let (rows, columns) = terminal::size();
    let term = std::env::var("TERM").ok().filter(|term| !term.is_empty());
    Terminal { rows: rows.into(), columns: columns.into(), term }
}

/// The exit status of a program that ended with this code, or by this signal.
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

fn parse_variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.into()),
        _ => Err("not of the form NAME=VALUE".into()),
    }
}
