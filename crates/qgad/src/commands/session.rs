//! Synchronizing with a host, and the list of commands.
//!
//! `guest-info` lists every command in the reverse of the protocol's order. It includes refused commands, because hosts
//! conclude that a command that is not listed does not exist.

use qga::commands::{
    SPECS,
    session::{AgentInfo, CommandInfo, Info, Nothing, Ping, Sync, SyncDelimited},
};

use super::{Result, Run};
use crate::guest::Guest;

impl Run for SyncDelimited {
    fn run(self, _: &Guest) -> Result<i64> {
        Ok(self.id)
    }
}

impl Run for Sync {
    fn run(self, _: &Guest) -> Result<i64> {
        Ok(self.id)
    }
}

impl Run for Ping {
    fn run(self, _: &Guest) -> Result<Nothing> {
        Ok(Nothing {})
    }
}

impl Run for Info {
    fn run(self, guest: &Guest) -> Result<AgentInfo> {
        let frozen_for = guest.freezer.frozen_for();
        let describe = |spec: &qga::Spec| CommandInfo {
            name: spec.name.into(),
            enabled: guest.policy.decide(spec, frozen_for).is_ok(),
            success_response: !spec.silent,
        };
        Ok(AgentInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            supported_commands: SPECS.iter().rev().map(describe).collect(),
        })
    }
}
