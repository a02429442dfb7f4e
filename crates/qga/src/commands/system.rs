//! What the guest is: its operating system and its name.

use serde::{Deserialize, Serialize};

use crate::command::{Class, Command, Spec};

/// Returns the guest's host name.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GetHostName {}

impl Command for GetHostName {
    const SPEC: Spec = Spec::new("guest-get-host-name", Class::Query).inline();
    type Reply = HostName;
}

/// The guest's host name.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct HostName {
    /// The name as the kernel holds it now.
    pub host_name: String,
}

/// Returns the guest's kernel and operating system, as `uname` and its os-release file tell them.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GetOsinfo {}

impl Command for GetOsinfo {
    const SPEC: Spec = Spec::new("guest-get-osinfo", Class::Query);
    type Reply = OsInfo;
}

/// The guest's kernel and operating system. What the guest does not say is absent.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct OsInfo {
    /// The kernel's release: `6.1.0-28-amd64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_release: Option<String>,
    /// The kernel's build: `#1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_version: Option<String>,
    /// The machine's architecture: `x86_64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// os-release's `ID`: `debian`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// os-release's `NAME`: `Debian GNU/Linux`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// os-release's `PRETTY_NAME`: `Debian GNU/Linux 12 (bookworm)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pretty_name: Option<String>,
    /// os-release's `VERSION`: `12 (bookworm)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// os-release's `VERSION_ID`: `12`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    /// os-release's `VARIANT`: `Server Edition`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// os-release's `VARIANT_ID`: `server`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant_id: Option<String>,
}
