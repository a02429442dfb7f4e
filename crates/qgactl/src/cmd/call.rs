//! `qgactl call`: any command of the protocol, by its name.

use clap::Args;
use qga::Command;
use serde_json::{Map, Value};

use super::{AgentSubcommand, print};
use crate::connect::Agent;

/// Largest reply that is indented: nobody reads a larger one, and parsed it would take a hundred times as much memory.
const MAX_INDENTED_BYTES: usize = 1024 * 1024;

/// Run any command of the protocol, and print its `return`
#[derive(Args, Debug)]
pub(crate) struct Call {
    /// The command's name, such as guest-get-osinfo
    command: String,
    /// Its arguments: one JSON object
    #[arg(value_parser = parse_object, value_name = "JSON")]
    arguments: Option<Map<String, Value>>,
}

impl AgentSubcommand for Call {
    const HAS_JSON: bool = true;

    fn run_with(&self, agent: &mut Agent, json: bool) -> anyhow::Result<()> {
        let none = Map::new();
        print_reply(agent, &self.command, self.arguments.as_ref().unwrap_or(&none), json)
    }
}

/// Prints a command's `return`: as received, but escaped, or indented for reading.
pub(super) fn print_reply(
    agent: &mut Agent,
    command: &str,
    arguments: &Map<String, Value>,
    as_received: bool,
) -> anyhow::Result<()> {
    let reply = agent.call_by_name(command, arguments)?;
    if as_received || reply.get().len() > MAX_INDENTED_BYTES {
        // Between two tokens this is white space that a terminal acts on, and that cannot be escaped.
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
