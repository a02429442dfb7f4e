//! `qgactl shutdown`: ends the guest by its own means.
//!
//! The agent answers failures only. With `--wait` the guest is asked for signs of life until there are none, and after a
//! reboot until there are again: a hypervisor may keep the socket open all the time.

use std::time::{Duration, Instant};

use clap::Args;
use qga::{client, commands::power};

use crate::connect::{Agent, Target, named};

/// How long a guest that ends must not answer before it counts as gone: more than a busy host makes it wait.
const SILENCE: Duration = Duration::from_secs(5);

/// How long `--wait` waits: services have a minute and a half each to stop, and a boot takes its time.
const WAIT: Duration = Duration::from_secs(300);

/// Time between two signs of life that are asked for.
const PAUSE: Duration = Duration::from_millis(500);

/// Switch the guest off, by its own means
#[derive(Args, Debug)]
pub(crate) struct Shutdown {
    /// Start it again
    #[arg(long)]
    reboot: bool,
    /// Stop it without switching it off
    #[arg(long, conflicts_with = "reboot")]
    halt: bool,
    /// Wait until the guest is gone, after --reboot also until its agent answers again [default timeout: 300]
    #[arg(long)]
    wait: bool,
}

impl Shutdown {
    pub(crate) fn run(&self, target: &Target, timeout: Option<Duration>) -> anyhow::Result<()> {
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
        Ok(())
    }
}

fn wait_until_gone(agent: &mut Agent, deadline: Instant) -> Result<(), client::Error> {
    let client = &mut agent.client;
    loop {
        // A failure may still be told, and is not to be skipped.
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
