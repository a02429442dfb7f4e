//! `qgactl ping`: is the agent there, and how long does it take to say so?

use std::time::Instant;

use clap::Args;
use qga::{Command, commands::session};

use super::{call, print};
use crate::connect::Agent;

/// Ask the agent for a sign of life, and show how long it took
#[derive(Args, Debug)]
pub(crate) struct Ping {}

impl Ping {
    pub(crate) fn run(&self, agent: &mut Agent, json: bool) -> anyhow::Result<()> {
        if json {
            return call::print_reply(agent, session::Ping::SPEC.name, &serde_json::Map::new(), true);
        }
        let begin = Instant::now();
        agent.call(&session::Ping {})?;
        print(&format!("the agent answered in {:.2} ms\n", begin.elapsed().as_secs_f64() * 1000.0))
    }
}
