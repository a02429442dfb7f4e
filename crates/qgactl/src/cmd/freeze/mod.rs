//! `qgactl freeze`: freezes the guest's file systems, until they are thawed or while a program runs on this host.
//!
//! A freeze that froze nothing is a failure here, though not to the protocol: a copy of the disk would be inconsistent.

mod run;

use std::{ffi::OsString, process::ExitCode};

use anyhow::bail;
use clap::{Args, value_parser};
use qga::commands::freeze::{self, FreezeList, MAX_LEASE_SECONDS};

use super::{Options, Subcommand, exec, print};
use crate::{
    connect::Agent,
    failure::{self, Failure},
};

/// Freeze the guest's file systems, so that a copy of its disks is consistent
#[derive(Args, Debug)]
pub(crate) struct Freeze {
    /// Freeze only the file system at this mount point; repeatable
    #[arg(long = "mount", value_name = "PATH")]
    mounts: Vec<String>,
    /// End the freeze automatically after this many seconds [default: as qgad is configured; never with qemu-ga]
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(i64).range(1..=MAX_LEASE_SECONDS))]
    lease: Option<i64>,
    /// Run a program on this host, and thaw when it has ended for any reason; its own child processes are neither
    /// waited for nor ended
    #[arg(long, requires = "program")]
    run: bool,
    /// The program, and its arguments
    #[arg(last = true, requires = "run", value_name = "PROGRAM")]
    program: Vec<OsString>,
}

impl Subcommand for Freeze {
    fn has_json(&self) -> bool {
        !self.run
    }

    /// Freezes. The timeout is for the reply, or for the program.
    fn run(&self, options: &Options<'_>) -> anyhow::Result<ExitCode> {
        if self.run {
            return run::while_frozen(options.target, |agent| self.freeze(agent), &self.program, options.timeout);
        }
        let count = self.freeze(&mut options.connect()?)?;
        print(&if options.json { format!("{count}\n") } else { describe(count, "frozen") })?;
        check(count)?;
        Ok(ExitCode::SUCCESS)
    }

    fn failure_status(&self, error: &anyhow::Error) -> u8 {
        if self.run { exec::FAILED } else { failure::status(error) }
    }
}

impl Freeze {
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
        bail!("nothing was frozen: no file system of the guest supports it, or none is mounted at the given paths");
    }
    Ok(())
}

/// How many file systems have reached a state.
pub(super) fn describe(count: i64, state: &str) -> String {
    match count {
        1 => format!("1 file system is {state}\n"),
        _ => format!("{count} file systems are {state}\n"),
    }
}
