//! `qgactl call`: any command of the protocol, by its name.

use std::time::Instant;

use clap::Args;
use qga::Command;
use serde_json::{Map, Value, value::RawValue};

use super::print;
use crate::{connect::Agent, failure::Failure};

/// Largest reply that is laid out: nobody reads a larger one, and as values it would take a hundred times its room.
const MAX_LAID_OUT_BYTES: usize = 1024 * 1024;

/// Run any command of the protocol, and print its `return`
#[derive(Args, Debug)]
pub(crate) struct Call {
    /// The command's name, such as guest-get-osinfo
    command: String,
    /// Its arguments: one JSON object
    #[arg(value_parser = parse_object, value_name = "JSON")]
    arguments: Option<Map<String, Value>>,
}

impl Call {
    pub(crate) fn run(&self, agent: &mut Agent, json: bool) -> anyhow::Result<()> {
        let none = Map::new();
        print_reply(agent, &self.command, self.arguments.as_ref().unwrap_or(&none), json)
    }
}

/// Prints a command's `return`: as received, but for control characters, or laid out for reading.
pub(super) fn print_reply(
    agent: &mut Agent,
    command: &str,
    arguments: &Map<String, Value>,
    as_received: bool,
) -> anyhow::Result<()> {
    let reply: Box<RawValue> = agent
        .client
        .call_as(command, arguments, Instant::now() + agent.reply_timeout)
        .map_err(|error| Failure::Command { name: command.into(), error })?;
    if as_received || reply.get().len() > MAX_LAID_OUT_BYTES {
        // Between two tokens this is a blank that a terminal obeys, and cannot be spelt.
        return print(&format!("{}\n", reply.get().replace('\r', " ")));
    }
    print(&format!("{:#}\n", serde_json::from_str::<Value>(reply.get())?))
}

/// Prints the `return` of a command without arguments as received.
pub(super) fn print_received(agent: &mut Agent, command: &str) -> anyhow::Result<()> {
    print_reply(agent, command, &Map::new(), true)
}

/// Prints the `return` of a command with its arguments as received.
pub(super) fn print_received_of<C: Command>(agent: &mut Agent, command: &C) -> anyhow::Result<()> {
    let arguments = serde_json::from_value(serde_json::to_value(command)?)?;
    print_reply(agent, C::SPEC.name, &arguments, true)
}

fn parse_object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}
