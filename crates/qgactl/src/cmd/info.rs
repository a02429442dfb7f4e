//! `qgactl info`: the agent's version and commands.

use clap::Args;
use qga::{Command, commands::session};

use super::{AgentSubcommand, call, print};
use crate::{connect::Agent, render};

/// Show the agent's version and its commands
#[derive(Args, Debug)]
pub(crate) struct Info {}

impl AgentSubcommand for Info {
    const HAS_JSON: bool = true;

    fn run_with(&self, agent: &mut Agent, json: bool) -> anyhow::Result<()> {
        if json {
            return call::print_received(agent, session::Info::SPEC.name);
        }
        print(&render::agent_info(&agent.call(&session::Info {})?))
    }
}
