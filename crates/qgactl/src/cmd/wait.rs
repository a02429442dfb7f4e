//! `qgactl wait`: waits until the agent answers.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;

use super::{Options, Subcommand, print};

/// Default timeout: a slow guest boots in that time.
const WAIT: Duration = Duration::from_secs(300);

/// Wait until the agent answers [default timeout: 300]
#[derive(Args, Debug)]
pub(crate) struct Wait {}

impl Subcommand for Wait {
    fn has_json(&self) -> bool {
        false
    }

    fn run(&self, options: &Options<'_>) -> anyhow::Result<ExitCode> {
        let Options { target, timeout, .. } = *options;
        let begin = Instant::now();
        target.wait(begin + timeout.unwrap_or(WAIT))?;
        print(&format!("the agent answered after {:.1} s\n", begin.elapsed().as_secs_f64()))?;
        Ok(ExitCode::SUCCESS)
    }
}
