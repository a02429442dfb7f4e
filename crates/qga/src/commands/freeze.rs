//! Freezing file systems, so that a copy of their disks is consistent.
//!
//! A freeze belongs to the guest, not to a connection: any later connection may end it. It ends by itself when its
//! lease does. Counts are those of file systems whose state the command changed, not of mount points.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command::{Class, Command, Profile, Spec, WhileFrozen};

/// Longest lease that a host can ask for, in seconds: a day.
pub const MAX_LEASE_SECONDS: i64 = 86_400;

/// Longest freeze or thaw, should the agent's own limits (`fsfreeze-timeout`, `fsfreeze-hook-timeout`) not end it
/// before.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(2 * 60 * 60);

/// Tells whether file systems are frozen. While a freeze is under way the answer is still `thawed`.
///
/// An error names a file system that is stuck: the kernel has not returned from an earlier freeze or thaw, and writers
/// may wait there.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FreezeStatus {}

impl Command for FreezeStatus {
    const SPEC: Spec =
        Spec::new("guest-fsfreeze-status", Class::Query).while_frozen(WhileFrozen::EvenIfBlocked).inline();
    type Reply = FreezeState;
}

/// Whether file systems are frozen.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FreezeState {
    /// They are not, or not all of them yet.
    Thawed,
    /// They are.
    Frozen,
}

/// Freezes all file systems that can be, and returns how many it froze. None is no error: nothing is frozen then.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Freeze {
    /// Seconds after which the freeze ends by itself, from 1 to 86400; the agent's `fsfreeze-lease` unless given. Not a
    /// member that qemu-ga knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<i64>,
}

impl Command for Freeze {
    const SPEC: Spec =
        Spec::new("guest-fsfreeze-freeze", Class::Control).profile(Profile::Backup).timeout(FREEZE_TIMEOUT);
    type Reply = i64;
}

/// Freezes the file systems that are mounted at one of the given mount points, and returns how many it froze.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FreezeList {
    /// Mount points, or paths to them; all file systems unless given. A path where nothing is mounted is passed over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mountpoints: Option<Vec<String>>,
    /// As that of guest-fsfreeze-freeze.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<i64>,
}

impl Command for FreezeList {
    const SPEC: Spec =
        Spec::new("guest-fsfreeze-freeze-list", Class::Control).profile(Profile::Backup).timeout(FREEZE_TIMEOUT);
    type Reply = i64;
}

/// Thaws all file systems, those that others froze included, and returns how many it thawed. It is an error, once, if
/// the freeze had ended by itself before: what was copied after that may be inconsistent.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Thaw {}

impl Command for Thaw {
    const SPEC: Spec = Spec::new("guest-fsfreeze-thaw", Class::Control)
        .profile(Profile::Backup)
        .timeout(FREEZE_TIMEOUT)
        .while_frozen(WhileFrozen::EvenIfBlocked);
    type Reply = i64;
}
