//! A job attended to its end, and what is said about it.

use std::process::ExitCode;

use anyhow::Context;
use qga::{
    client::{JobReader, JobWriter},
    commands::job::{JobForget, JobRead},
};

use super::{TIMED_OUT, exit_status};
use crate::{
    connect::{Agent, Target, named},
    failure::{say, status_of_signal},
    live::{Outcome, Session, Source},
};

/// Attends a job, and forgets it when it has ended. Its exit status becomes ours.
pub(in crate::cmd) fn attend(
    target: &Target,
    agent: Agent,
    job: (JobReader, JobWriter),
    source: Source,
    has_terminal: bool,
) -> anyhow::Result<ExitCode> {
    let id = job.0.id();
    let attended = Session::begin(target, agent, job, source, has_terminal).and_then(Session::run);
    let (outcome, mut agent) = attended.with_context(|| format!("failed to attend job {id}, which may go on"))?;
    let goes_on = || say(&format!("qgactl: job {id} goes on in the guest; `qgactl jobs attach {id}` returns to it"));
    Ok(match outcome {
        Outcome::Ended(end) => {
            // If this fails, the agent forgets it some time later.
            let _ = agent.call(&JobForget { id });
            if end.timed_out {
                say("qgactl: the program has not ended in time, and was ended");
                return Ok(TIMED_OUT.into());
            }
            exit_status(end.exit_code, end.signal).map_err(named::<JobRead>)?.into()
        }
        Outcome::Left => {
            goes_on();
            ExitCode::SUCCESS
        }
        Outcome::Signalled(signal) => {
            goes_on();
            status_of_signal(signal as i32).into()
        }
    })
}
