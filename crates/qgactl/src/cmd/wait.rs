//! `qgactl wait`: until the agent answers.

use std::time::{Duration, Instant};

use clap::Args;

use super::print;
use crate::connect::Target;

/// How long is waited unless told: a slow guest boots in that time.
const WAIT: Duration = Duration::from_secs(300);

/// Wait until the agent answers [default timeout: 300]
#[derive(Args, Debug)]
pub(crate) struct Wait {}

impl Wait {
    pub(crate) fn run(&self, target: &Target, timeout: Option<Duration>) -> anyhow::Result<()> {
        let begin = Instant::now();
        target.wait(begin + timeout.unwrap_or(WAIT))?;
        print(&format!("the agent answered after {:.1} s\n", begin.elapsed().as_secs_f64()))
    }
}
