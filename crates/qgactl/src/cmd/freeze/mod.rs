//! `qgactl freeze`: freezes the guest's file systems, until they are thawed or while a program runs on this host.
//!
//! A freeze that froze nothing is a failure here, though none to the protocol: whoever copies a disk next counts on it.

mod run;

use std::{ffi::OsString, process::ExitCode, time::Duration};

use anyhow::bail;
use clap::{Args, value_parser};
use qga::commands::freeze::{self, FreezeList, MAX_LEASE_SECONDS};

use super::print;
use crate::{
    connect::{Agent, Target},
    failure::Failure,
};

/// How long freezing may take: an agent's own limits are five minutes for the file systems and one for each hook.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Freeze the guest's file systems, so that a copy of its disks is consistent
#[derive(Args, Debug)]
pub(crate) struct Freeze {
    /// Freeze only what is mounted there; repeatable
    #[arg(long = "mount", value_name = "PLACE")]
    mounts: Vec<String>,
    /// Have the freeze end by itself after this many seconds; without it, as the agent is told, or never with qemu-ga
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(i64).range(1..=MAX_LEASE_SECONDS))]
    lease: Option<i64>,
    /// Run a program on this host, and thaw when it has ended, however it does; what it has started itself is neither
    /// waited for nor ended
    #[arg(long, requires = "program")]
    run: bool,
    /// The program, and its arguments
    #[arg(last = true, requires = "run", value_name = "PROGRAM")]
    program: Vec<OsString>,
}

impl Freeze {
    /// Whether the exit status is that of a program.
    pub(crate) fn runs_a_program(&self) -> bool {
        self.run
    }

    /// Freezes. The time-out is for the reply, or for the program.
    pub(crate) fn run(&self, target: &Target, json: bool, timeout: Option<Duration>) -> anyhow::Result<ExitCode> {
        if self.run {
            return run::while_frozen(target, |agent| self.freeze(agent), &self.program, timeout);
        }
        let count = self.freeze(&mut target.connect(timeout.or(Some(REPLY_TIMEOUT)))?)?;
        print(&if json { format!("{count}\n") } else { describe(count, "frozen") })?;
        check(count)?;
        Ok(ExitCode::SUCCESS)
    }

    fn freeze(&self, agent: &mut Agent) -> Result<i64, Failure> {
        let lease = self.lease;
        match &self.mounts[..] {
            [] => agent.call(&freeze::Freeze { lease }),
            mounts => agent.call(&FreezeList { mountpoints: Some(mounts.to_vec()), lease }),
        }
    }
}

fn check(count: i64) -> anyhow::Result<()> {
    if count < 1 {
        bail!("nothing was frozen: none of the guest's file systems can be, or none is mounted where it was said");
    }
    Ok(())
}

/// How many file systems have been brought into a state.
pub(super) fn describe(count: i64, state: &str) -> String {
    match count {
        1 => format!("1 file system is {state}\n"),
        _ => format!("{count} file systems are {state}\n"),
    }
}
