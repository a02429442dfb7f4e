//! `qgactl suspend`: suspends the guest through its own operating system.

use clap::{Args, ValueEnum};
use qga::commands::power::{SuspendDisk, SuspendHybrid, SuspendRam};

use super::AgentSubcommand;
use crate::connect::Agent;

/// Suspend the guest; the hypervisor wakes it up
#[derive(Args, Debug)]
pub(crate) struct Suspend {
    /// Where the guest keeps the contents of its memory
    mode: Mode,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// In RAM
    Ram,
    /// On its disk; the guest is powered off
    Disk,
    /// In both
    Hybrid,
}

impl AgentSubcommand for Suspend {
    const HAS_JSON: bool = false;

    fn run_with(&self, agent: &mut Agent, _: bool) -> anyhow::Result<()> {
        match self.mode {
            Mode::Ram => agent.call(&SuspendRam {}).map(drop)?,
            Mode::Disk => agent.call(&SuspendDisk {}).map(drop)?,
            Mode::Hybrid => agent.call(&SuspendHybrid {}).map(drop)?,
        }
        Ok(())
    }
}
