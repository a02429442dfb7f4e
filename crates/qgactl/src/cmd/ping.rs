//! `qgactl ping`: whether the agent answers, and how fast.

use std::time::Instant;

use clap::Args;
use qga::{Command, commands::session};

use super::{AgentSubcommand, call, print};
use crate::connect::Agent;

/// Ping the agent, and show the round-trip time
#[derive(Args, Debug)]
pub(crate) struct Ping {}

impl AgentSubcommand for Ping {
    const HAS_JSON: bool = true;

    fn run_with(&self, agent: &mut Agent, json: bool) -> anyhow::Result<()> {
        if json {
            return call::print_reply(agent, session::Ping::SPEC.name, &serde_json::Map::new(), true);
        }
        let begin = Instant::now();
        agent.call(&session::Ping {})?;
        print(&format!("the agent answered in {:.2} ms\n", begin.elapsed().as_secs_f64() * 1000.0))
    }
}
