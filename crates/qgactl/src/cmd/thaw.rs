//! `qgactl thaw`: thaws the guest's file systems.

use clap::Args;
use qga::commands::freeze;

use super::{AgentSubcommand, freeze::describe, print};
use crate::connect::Agent;

/// Thaw the guest's file systems; fails if the freeze has ended by itself
#[derive(Args, Debug)]
pub(crate) struct Thaw {}

impl AgentSubcommand for Thaw {
    const HAS_JSON: bool = true;

    fn run_with(&self, agent: &mut Agent, json: bool) -> anyhow::Result<()> {
        let count = agent.call(&freeze::Thaw {})?;
        print(&if json { format!("{count}\n") } else { describe(count, "thawed") })
    }
}
