//! `qgactl jobs`: the programs that were started as jobs, and returning to one of them.
//!
//! A job is there until it has ended and somebody has forgotten it: exec and attach do, once they have told its end.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand as Subcommands};
use qga::{
    Command,
    client::{JobReader, JobWriter},
    commands::job::{Job, JobForget, JobList, JobRead, JobSignal, JobState},
};

use super::{Options, Subcommand, call, exec, print};
use crate::{
    connect::{Agent, named},
    failure,
    live::{Source, terminal},
    table::table,
};

/// Show the programs that were started as jobs, or do something with one of them
///
/// Only with qgad in the guest.
#[derive(Args, Debug)]
pub(crate) struct Jobs {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommands)]
enum Action {
    /// Show a job's output from where it was left, until the job ends, and exit with its exit status
    ///
    /// As exec does: with its terminal, if it has one; other jobs get signals.
    Attach {
        /// The job
        id: i64,
        /// Pass our standard input to the job, as it comes; without, its input stays as it is
        #[arg(short, long)]
        interactive: bool,
    },
    /// Print the output of a job that nobody has read yet, and keep it
    Logs {
        /// The job
        id: i64,
    },
    /// Send a signal to all processes of a job
    Signal {
        /// The job
        id: i64,
        /// The signal's name, or its number in the guest
        #[arg(default_value = "TERM")]
        signal: String,
    },
    /// Forget jobs that have ended, with their output
    Forget {
        /// The jobs
        #[arg(required = true, value_name = "ID")]
        ids: Vec<i64>,
    },
}

impl Subcommand for Jobs {
    fn has_json(&self) -> bool {
        self.action.is_none()
    }

    fn run(&self, options: &Options<'_>) -> anyhow::Result<ExitCode> {
        let mut agent = match self.action {
            // The timeout is not for a program that runs already.
            Some(Action::Attach { .. }) => options.target.connect(None)?,
            _ => options.connect()?,
        };
        match &self.action {
            None if options.json => call::print_received(&mut agent, JobList::SPEC.name)?,
            None => print(&describe(&agent.call(&JobList {})?))?,
            Some(Action::Attach { id, interactive }) => return attach(options, agent, *id, *interactive),
            Some(Action::Logs { id }) => logs(&mut agent, *id)?,
            Some(Action::Signal { id, signal }) => {
                agent.call(&JobSignal { id: *id, signal: signal.clone() })?;
            }
            Some(Action::Forget { ids }) => {
                for &id in ids {
                    agent.call(&JobForget { id })?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn failure_status(&self, error: &anyhow::Error) -> u8 {
        match self.action {
            Some(Action::Attach { .. }) => exec::FAILED,
            _ => failure::status(error),
        }
    }
}

fn attach(options: &Options<'_>, mut agent: Agent, id: i64, interactive: bool) -> anyhow::Result<ExitCode> {
    let job = find(&mut agent, id)?;
    if job.terminal {
        terminal::check()?;
    }
    let source = if job.terminal || interactive { Source::Stdin } else { Source::None };
    let halves = (JobReader::resume(&job), JobWriter::resume(&job));
    if !agent.can_attend() {
        bail!("jobs attach cannot be used through libvirt; jobs logs can");
    }
    exec::attend(options.target, agent, halves, source, job.terminal)
}

fn logs(agent: &mut Agent, id: i64) -> anyhow::Result<()> {
    let job = find(agent, id)?;
    let mut reader = JobReader::resume(&job);
    let reply = agent.call(&reader.request(std::time::Duration::ZERO))?;
    let output = reader.accept(reply).map_err(named::<JobRead>)?;
    io::stdout().write_all(&output.out).context("failed to write to standard output")?;
    io::stderr().write_all(&output.err).context("failed to write to standard error")
}

fn find(agent: &mut Agent, id: i64) -> anyhow::Result<Job> {
    let jobs = agent.call(&JobList {})?;
    let Some(job) = jobs.into_iter().find(|job| job.id == id) else { bail!("job {id} does not exist") };
    Ok(job)
}

fn describe(jobs: &[Job]) -> String {
    let rows: Vec<_> = jobs
        .iter()
        .map(|job| {
            let unread = job.out_end.saturating_sub(job.out_begin).saturating_add(job.err_end - job.err_begin);
            vec![
                job.id.to_string(),
                state(job),
                format!("{} s", job.age),
                unread.to_string(),
                if job.terminal { "yes" } else { "no" }.into(),
                job.user.clone().unwrap_or_else(|| "-".into()),
                job.path.clone(),
            ]
        })
        .collect();
    table(&[">job", "state", ">age", ">unread bytes", "terminal", "user", "program"], &rows)
}

fn state(job: &Job) -> String {
    let end = match (job.state, job.exit_code, job.signal) {
        (JobState::Running, ..) => format!("runs as process {}", job.pid),
        (JobState::Exited, Some(code), _) => format!("exited with {code}"),
        (JobState::Exited, None, Some(signal)) => format!("ended by signal {signal}"),
        (JobState::Exited, None, None) => "ended".into(),
    };
    if job.timed_out { end + ", timed out" } else { end }
}

#[cfg(test)]
mod tests {
    use qga::commands::job::Unattended;

    use super::*;

    #[test]
    fn each_job_has_a_row_with_what_became_of_it() {
        let running = Job {
            id: 1007,
            pid: 4711,
            path: "/bin/sh".into(),
            user: None,
            terminal: true,
            unattended: Unattended::HangUp,
            state: JobState::Running,
            exit_code: None,
            signal: None,
            timed_out: false,
            age: 75,
            out_begin: 10,
            out_end: 110,
            err_begin: 0,
            err_end: 3,
            in_offset: 0,
        };
        let ended = Job { state: JobState::Exited, terminal: false, user: Some("ann".into()), ..running.clone() };
        let exited = Job { exit_code: Some(3), ..ended.clone() };
        let killed = Job { signal: Some(15), timed_out: true, ..ended };
        let expected = "\
\x20job  state                           age  unread bytes  terminal  user  program
1007  runs as process 4711           75 s           103  yes       -     /bin/sh
1007  exited with 3                  75 s           103  no        ann   /bin/sh
1007  ended by signal 15, timed out  75 s           103  no        ann   /bin/sh
";
        assert_eq!(describe(&[running, exited, killed]), expected);
    }
}
