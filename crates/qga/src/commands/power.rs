//! Shutting the guest down, and suspending it.
//!
//! A success is not answered, because the guest may be gone by then. Only a failure is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::session::Nothing;
use crate::command::{Class, Command, Spec};

/// Longest that the guest may take to begin a shutdown or a suspend. The transition itself is not bounded.
pub const POWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Shuts the guest down. Not answered unless it fails.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Shutdown {
    /// `powerdown`, `reboot`, or `halt`, which stops the guest without switching it off. `powerdown` where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

impl Command for Shutdown {
    const SPEC: Spec = Spec::new("guest-shutdown", Class::Control).silent().timeout(POWER_TIMEOUT);
    type Reply = Nothing;
}

/// Suspends the guest to its disk and switches it off. Not answered unless it fails.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SuspendDisk {}

impl Command for SuspendDisk {
    const SPEC: Spec = Spec::new("guest-suspend-disk", Class::Control).silent().timeout(POWER_TIMEOUT);
    type Reply = Nothing;
}

/// Suspends the guest to its memory, from which the hypervisor can wake it. Not answered unless it fails.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SuspendRam {}

impl Command for SuspendRam {
    const SPEC: Spec = Spec::new("guest-suspend-ram", Class::Control).silent().timeout(POWER_TIMEOUT);
    type Reply = Nothing;
}

/// Suspends the guest to its memory, with a copy on its disk. Not answered unless it fails.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SuspendHybrid {}

impl Command for SuspendHybrid {
    const SPEC: Spec = Spec::new("guest-suspend-hybrid", Class::Control).silent().timeout(POWER_TIMEOUT);
    type Reply = Nothing;
}
