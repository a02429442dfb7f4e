//! `qgactl thaw`: thaws the guest's file systems.

use std::time::Duration;

use clap::Args;
use qga::commands::freeze;

use super::{freeze::describe, print};
use crate::connect::Agent;

/// How long thawing may take: at once, but for the hooks with a minute each.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(3 * 60);

/// Thaw the guest's file systems; fails if they were frozen, but not any more
#[derive(Args, Debug)]
pub(crate) struct Thaw {}

impl Thaw {
    pub(crate) fn run(&self, agent: &mut Agent, json: bool) -> anyhow::Result<()> {
        let count = agent.call(&freeze::Thaw {})?;
        print(&if json { format!("{count}\n") } else { describe(count, "thawed") })
    }
}
