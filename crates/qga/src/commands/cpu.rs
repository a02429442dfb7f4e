//! Logical processors: the list, taking them on and off line, and their statistics.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command::{Class, Command, Spec};

/// Longest that processors may take to go: the kernel moves what runs on each of them away, one after the other.
pub const SET_VCPUS_TIMEOUT: Duration = Duration::from_secs(60);

/// Lists the guest's logical processors, each once, in an order that stays the same.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GetVcpus {}

impl Command for GetVcpus {
    const SPEC: Spec = Spec::new("guest-get-vcpus", Class::Query);
    type Reply = Vec<LogicalProcessor>;
}

/// Takes logical processors on or off line, in the given order, until one fails.
///
/// Returns how many were done, those that were as wanted included. Fewer than given means that the next one failed; its
/// error is the reply to a request that begins with it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SetVcpus {
    /// The processors, and whether each is to be on line. Their `can-offline` is ignored.
    pub vcpus: Vec<LogicalProcessor>,
}

impl Command for SetVcpus {
    const SPEC: Spec = Spec::new("guest-set-vcpus", Class::Control).timeout(SET_VCPUS_TIMEOUT);
    type Reply = i64;
}

/// A logical processor.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct LogicalProcessor {
    /// The kernel's number of it. Numbers may have gaps.
    pub logical_id: i64,
    /// Whether it runs.
    pub online: bool,
    /// Whether it can be taken off line; always there in a reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_offline: Option<bool>,
}

/// Returns what each processor that is on line has spent its time with since the guest was booted.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GetCpustats {}

impl Command for GetCpustats {
    const SPEC: Spec = Spec::new("guest-get-cpustats", Class::Query);
    type Reply = Vec<CpuStats>;
}

/// What a processor has spent its time with, in milliseconds. What the kernel does not count is absent.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CpuStats {
    /// Whose statistics these are.
    #[serde(rename = "type")]
    pub kind: CpuStatsType,
    /// The kernel's number of the processor.
    pub cpu: i64,
    /// Programs.
    pub user: u64,
    /// Programs of low priority.
    pub nice: u64,
    /// The kernel.
    pub system: u64,
    /// Nothing.
    pub idle: u64,
    /// Nothing, while a program waited for a disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iowait: Option<u64>,
    /// Interrupts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub irq: Option<u64>,
    /// What interrupts left to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub softirq: Option<u64>,
    /// Waiting for the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steal: Option<u64>,
    /// Guests of this guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<u64>,
    /// Guests of this guest that have a low priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guestnice: Option<u64>,
}

/// The system that counted.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CpuStatsType {
    /// Linux.
    Linux,
}

/// Returns how many programs were running or waiting to, on average.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GetLoad {}

impl Command for GetLoad {
    const SPEC: Spec = Spec::new("guest-get-load", Class::Query);
    type Reply = Load;
}

/// How many programs were running or waiting to, on average.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Load {
    /// Over the last minute.
    pub load1m: f64,
    /// Over the last five minutes.
    pub load5m: f64,
    /// Over the last fifteen minutes.
    pub load15m: f64,
}
