//! Memory blocks: the pieces in which a guest's memory can be taken on and off line.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command::{Class, Command, Spec};

/// Longest that memory may take to go: the kernel copies what is in each block elsewhere first.
pub const SET_MEMORY_BLOCKS_TIMEOUT: Duration = Duration::from_secs(60);

/// Lists the guest's memory blocks, in an order that stays the same. A guest that does not support them has none.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GetMemoryBlocks {}

impl Command for GetMemoryBlocks {
    const SPEC: Spec = Spec::new("guest-get-memory-blocks", Class::Query);
    type Reply = Vec<MemoryBlock>;
}

/// Takes memory blocks on or off line, and answers for each of them, in the given order.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct SetMemoryBlocks {
    /// The blocks, and whether each is to be on line. Their `can-offline` is ignored.
    pub mem_blks: Vec<MemoryBlock>,
}

impl Command for SetMemoryBlocks {
    const SPEC: Spec = Spec::new("guest-set-memory-blocks", Class::Control).timeout(SET_MEMORY_BLOCKS_TIMEOUT);
    type Reply = Vec<MemoryBlockResponse>;
}

/// A memory block.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct MemoryBlock {
    /// Which piece of physical memory it is: its address, divided by the size of a block.
    pub phys_index: u64,
    /// Whether the guest uses it.
    pub online: bool,
    /// Whether it can be taken off line; always there in a reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_offline: Option<bool>,
}

/// The result for a memory block.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct MemoryBlockResponse {
    /// The block.
    pub phys_index: u64,
    /// How it went.
    pub response: MemoryBlockOutcome,
    /// The kernel's number for what went wrong; absent when nothing did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<i64>,
}

/// How the change of a memory block went.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum MemoryBlockOutcome {
    /// It is as wanted.
    Success,
    /// There is no such block.
    NotFound,
    /// This guest, or this block, does not support it.
    OperationNotSupported,
    /// The kernel refused.
    OperationFailed,
}

/// Returns what is common to all memory blocks.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GetMemoryBlockInfo {}

impl Command for GetMemoryBlockInfo {
    const SPEC: Spec = Spec::new("guest-get-memory-block-info", Class::Query);
    type Reply = MemoryBlockInfo;
}

/// What is common to all memory blocks.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MemoryBlockInfo {
    /// How large each is, in bytes.
    pub size: u64,
}
