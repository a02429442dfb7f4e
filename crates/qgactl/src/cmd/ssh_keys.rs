//! `qgactl ssh-keys`: the public keys that SSH accepts for a user.

use std::{fs, io, path::PathBuf};

use anyhow::Context;
use clap::Args;
use qga::{
    Command,
    commands::ssh::{AddAuthorizedKeys, GetAuthorizedKeys, RemoveAuthorizedKeys},
};
use serde_json::json;

use super::{AgentSubcommand, call, print};
use crate::connect::Agent;

/// Show or change the public keys that SSH accepts for a user
#[derive(Args, Debug)]
pub(crate) struct SshKeys {
    /// The user's name
    user: String,
    #[command(flatten)]
    change: Change,
}

/// Each file has a public key a line, as those of ssh-keygen do; - is standard input.
#[derive(Args, Debug)]
#[group(multiple = false)]
struct Change {
    /// Add the public keys in a file, - for standard input; existing ones are not added again
    #[arg(long, value_name = "FILE")]
    add: Option<PathBuf>,
    /// Remove the public keys in a file, - for standard input
    #[arg(long, value_name = "FILE")]
    remove: Option<PathBuf>,
    /// Replace all keys by the public keys in a file, - for standard input
    #[arg(long, value_name = "FILE")]
    replace: Option<PathBuf>,
}

impl AgentSubcommand for SshKeys {
    const HAS_JSON: bool = true;

    fn run_with(&self, agent: &mut Agent, json: bool) -> anyhow::Result<()> {
        let username = self.user.clone();
        match &self.change {
            Change { add: Some(file), .. } => {
                agent.call(&AddAuthorizedKeys { username, keys: read(file)?, reset: None })?;
            }
            Change { replace: Some(file), .. } => {
                agent.call(&AddAuthorizedKeys { username, keys: read(file)?, reset: Some(true) })?;
            }
            Change { remove: Some(file), .. } => {
                agent.call(&RemoveAuthorizedKeys { username, keys: read(file)? })?;
            }
            _ if json => {
                let arguments = json!({ "username": username }).as_object().cloned().unwrap_or_default();
                return call::print_reply(agent, GetAuthorizedKeys::SPEC.name, &arguments, true);
            }
            _ => {
                // Agents list the last one first.
                let keys = agent.call(&GetAuthorizedKeys { username })?.keys;
                print(&keys.iter().rev().map(|key| format!("{key}\n")).collect::<String>())?;
            }
        }
        Ok(())
    }
}

/// The keys in a file, without comments.
fn read(file: &PathBuf) -> anyhow::Result<Vec<String>> {
    let text = if file.as_os_str() == "-" { io::read_to_string(io::stdin()) } else { fs::read_to_string(file) };
    Ok(keys(&text.with_context(|| format!("failed to read {}", file.display()))?))
}

fn keys(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(Into::into).collect()
}

#[cfg(test)]
mod tests {
    use super::keys;

    #[test]
    fn keys_are_lines_that_are_neither_blank_nor_comments() {
        assert_eq!(keys("# mine\r\n\n ssh-ed25519 AAAA a b \r\nssh-rsa B"), ["ssh-ed25519 AAAA a b", "ssh-rsa B"]);
        assert!(keys("").is_empty());
    }
}
