//! What the agent was told at start.
use std::path::PathBuf;
/// How peers reach the agent.
pub(crate) struct ChannelSettings {
    pub(crate) method: String,
    pub(crate) path: Option<PathBuf>,
}
