//! `qgactl suspend`: puts the guest to sleep by its own means.

use clap::{Args, ValueEnum};
use qga::commands::power::{SuspendDisk, SuspendHybrid, SuspendRam};

use crate::connect::Agent;

/// Put the guest to sleep; the hypervisor wakes it
#[derive(Args, Debug)]
pub(crate) struct Suspend {
    /// Where the guest keeps its memory meanwhile
    place: Place,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Place {
    /// In its memory
    Ram,
    /// On its disk; the guest is switched off
    Disk,
    /// In both
    Hybrid,
}

impl Suspend {
    pub(crate) fn run(&self, agent: &mut Agent) -> anyhow::Result<()> {
        match self.place {
            Place::Ram => agent.call(&SuspendRam {}).map(drop)?,
            Place::Disk => agent.call(&SuspendDisk {}).map(drop)?,
            Place::Hybrid => agent.call(&SuspendHybrid {}).map(drop)?,
        }
        Ok(())
    }
}
