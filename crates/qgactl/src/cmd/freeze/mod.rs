//! `qgactl freeze`: freezes the guest's file systems, until they are thawed or while a program runs on this host.
//!
//! A freeze that froze nothing is a failure here, though not to the protocol: a copy of the disk would be inconsistent.
//! For the same reason, a mount point that the agent does not list is refused before anything is frozen: agents ignore
//! names that they do not know. Extra slashes and dots in it are removed before it is sent.

mod run;

use std::{ffi::OsString, path::Path, process::ExitCode};

use anyhow::bail;
use clap::{Args, value_parser};
use qga::{
    client::Error,
    commands::{
        freeze::{self, FreezeList, MAX_LEASE_SECONDS},
        storage::GetFsinfo,
    },
};

use self::run::Guest;
use super::{Options, Subcommand, exec, print};
use crate::{
    connect::{Agent, Target},
    failure::{self, Failure},
};

/// Freeze the guest's file systems, so that a copy of its disks is consistent
#[derive(Args, Debug)]
pub(crate) struct Freeze {
    /// Freeze only the file system at this mount point, as `qgactl fs` lists it; repeatable
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
            let several = options.target.several()?;
            let reachable = |machine| -> Result<_, Failure> {
                let (name, target) = Target::of_selected(machine);
                target.map(|target| (name, target))
            };
            let targets = several.map(|several| several.into_iter().map(reachable).collect::<Result<Vec<_>, _>>());
            let targets = targets.transpose()?;
            let guests = match &targets {
                Some(targets) => targets.iter().map(|(name, target)| Guest::new(Some(name), target)).collect(),
                None => vec![Guest::new(None, options.target)],
            };
            return run::while_frozen(guests, |agent| self.freeze(agent), &self.program, options.timeout);
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
    /// Whether a program is run, for which several guests can be frozen together.
    pub(in crate::cmd) fn is_around_a_program(&self) -> bool {
        self.run
    }

    fn freeze(&self, agent: &mut Agent) -> Result<i64, Failure> {
        let lease = self.lease;
        match &self.mounts[..] {
            [] => agent.call(&freeze::Freeze { lease }),
            mounts => {
                let mountpoints = Some(listed(agent, mounts)?);
                agent.call(&FreezeList { mountpoints, lease })
            }
        }
    }
}

/// The mount points as the agent lists them. If it does not list any, they are taken as they are.
fn listed(agent: &mut Agent, mounts: &[String]) -> Result<Vec<String>, Failure> {
    let file_systems = match agent.call(&GetFsinfo {}) {
        Ok(file_systems) => file_systems,
        Err(Failure::Command { error: Error::Refused { .. }, .. }) => return Ok(mounts.to_vec()),
        Err(failure) => return Err(failure),
    };
    let listed = |mount: &String| {
        // Paths are compared by their components.
        let mut mount_points = file_systems.iter().map(|one| &one.mountpoint);
        let found = mount_points.find(|mount_point| Path::new(mount_point) == Path::new(mount));
        found.cloned().ok_or_else(|| Failure::NotMounted { path: mount.clone() })
    };
    mounts.iter().map(listed).collect()
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
