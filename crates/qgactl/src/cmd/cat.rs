//! `qgactl cat`: a file in the guest, to stdout.

use std::io::{self, Write};

use anyhow::Context;
use clap::Args;
use qga::{client::GuestFile, commands::file::FileRead};

use super::AgentSubcommand;
use crate::connect::{Agent, named};

/// Print a file in the guest
#[derive(Args, Debug)]
pub(crate) struct Cat {
    /// The file in the guest
    remote: String,
}

impl AgentSubcommand for Cat {
    const HAS_JSON: bool = false;

    fn run_with(&self, agent: &mut Agent, _: bool) -> anyhow::Result<()> {
        let read = named::<FileRead>;
        let mut file = agent.open(&self.remote, "r")?;
        while let Some(bytes) = file.read().map_err(read)? {
            io::stdout().write_all(&bytes).context("failed to write to standard output")?;
        }
        GuestFile::close(file).map_err(read)?;
        io::stdout().flush().context("failed to write to standard output")
    }
}
