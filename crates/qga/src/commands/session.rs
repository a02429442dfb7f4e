//! The conversation itself: sync, ping, and what the agent can do.

use serde::{Deserialize, Serialize};

use crate::command::{Class, Command, Spec, WhileFrozen};

/// Returns the given number, so that a host can tell this reply from stale ones, with a byte 0xFF before the reply.
///
/// A host sends a byte 0xFF first, which makes the agent forget a half message, and then skips everything up to the
/// 0xFF of the reply. That is the way to begin a conversation on a channel that may hold leftovers of an earlier one.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SyncDelimited {
    /// Any number; hosts choose one they have not used before.
    pub id: i64,
}

impl Command for SyncDelimited {
    const SPEC: Spec =
        Spec::new("guest-sync-delimited", Class::Session).while_frozen(WhileFrozen::Served).delimited().inline();
    type Reply = i64;
}

/// Returns the given number, so that a host can tell this reply from stale ones.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Sync {
    /// Any number; hosts choose one they have not used before.
    pub id: i64,
}

impl Command for Sync {
    const SPEC: Spec = Spec::new("guest-sync", Class::Session).while_frozen(WhileFrozen::Served).inline();
    type Reply = i64;
}

/// Does nothing, successfully: the agent is there.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ping {}

impl Command for Ping {
    const SPEC: Spec = Spec::new("guest-ping", Class::Session).while_frozen(WhileFrozen::Served).inline();
    type Reply = Nothing;
}

/// Reports the agent's version and its commands.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Info {}

impl Command for Info {
    const SPEC: Spec = Spec::new("guest-info", Class::Session).while_frozen(WhileFrozen::Served).inline();
    type Reply = AgentInfo;
}

/// The empty object: success, and nothing to say about it.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Nothing {}

/// The agent's version and its commands.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AgentInfo {
    /// The agent's own semantic version.
    pub version: String,
    /// Every command the agent knows, refused ones included, last of the protocol's order first.
    pub supported_commands: Vec<CommandInfo>,
}

/// One command of the agent. Hosts compare these objects whole: there will never be a further member.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct CommandInfo {
    /// The name on the wire.
    pub name: String,
    /// Whether the agent would run it now: false when policy or a freeze forbids it.
    pub enabled: bool,
    /// Whether a success is answered.
    pub success_response: bool,
}
