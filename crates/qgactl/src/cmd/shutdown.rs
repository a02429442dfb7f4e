//! `qgactl shutdown`: powers off, reboots or halts the guest through its own operating system.
//!
//! The agent answers failures only. With `--wait` qgactl polls the agent until it no longer answers, and after a reboot
//! until it answers again: a hypervisor may keep the socket open all the time.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use qga::{client, commands::power};

use super::{Options, Subcommand};
use crate::connect::{Agent, named};

/// How long a guest must be silent before it counts as gone: longer than the delays of a busy host.
const SILENCE: Duration = Duration::from_secs(5);

/// How long `--wait` waits: systemd gives each service a minute and a half to stop, and then the guest boots.
const WAIT: Duration = Duration::from_secs(300);

/// Time between two polls.
const PAUSE: Duration = Duration::from_millis(500);

/// Shut the guest down through its own operating system, and power it off
#[derive(Args, Debug)]
pub(crate) struct Shutdown {
    /// Reboot instead
    #[arg(long)]
    reboot: bool,
    /// Halt instead, without powering off
    #[arg(long, conflicts_with = "reboot")]
    halt: bool,
    /// Wait until the guest is down, and after --reboot until its agent answers again [default timeout: 300]
    #[arg(long)]
    wait: bool,
}

impl Subcommand for Shutdown {
    fn has_json(&self) -> bool {
        false
    }

    fn run(&self, options: &Options<'_>) -> anyhow::Result<ExitCode> {
        let Options { target, timeout, .. } = *options;
        let deadline = Instant::now() + timeout.unwrap_or(WAIT);
        let mut agent = target.connect(timeout)?;
        let mode = match (self.reboot, self.halt) {
            (true, _) => "reboot",
            (_, true) => "halt",
            _ => "powerdown",
        };
        agent.call(&power::Shutdown { mode: Some(mode.into()) })?;
        if self.wait {
            wait_until_gone(&mut agent, deadline).map_err(named::<power::Shutdown>)?;
            // So that a hypervisor that serves one connection at a time serves the next one.
            drop(agent);
            if self.reboot {
                target.wait(deadline)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn wait_until_gone(agent: &mut Agent, deadline: Instant) -> Result<(), client::Error> {
    let client = &mut agent.client;
    loop {
        // A failure may still arrive, and must not be skipped.
        match client.wait_for_end((Instant::now() + PAUSE).min(deadline)) {
            Err(client::Error::TimedOut) if Instant::now() < deadline => {}
            ended => return ended,
        }
        match client.sync((Instant::now() + SILENCE).min(deadline)) {
            Ok(()) => {}
            Err(client::Error::TimedOut) if Instant::now() >= deadline => return Err(client::Error::TimedOut),
            Err(client::Error::TimedOut | client::Error::Closed) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
