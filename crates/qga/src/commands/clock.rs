//! The guest's clock and its time zone.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::session::Nothing;
use crate::command::{Class, Command, Spec};

/// Longest that setting the clock may take: a program in the guest may do it, which waits for full seconds.
pub const SET_TIME_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the guest's time: nanoseconds since 1970-01-01 UTC, in steps of a microsecond.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GetTime {}

impl Command for GetTime {
    const SPEC: Spec = Spec::new("guest-get-time", Class::Query).inline();
    type Reply = i64;
}

/// Sets the guest's clock and its hardware clock.
///
/// Without a time, the clock is set from the hardware clock, which the hypervisor keeps right while the guest is
/// paused. With one, the hardware clock is set too. An error that names the hardware clock means that only the other
/// was set.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SetTime {
    /// Nanoseconds since 1970-01-01 UTC; in the guest's own time zone, a time from 1970 to 2069.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<i64>,
}

impl Command for SetTime {
    const SPEC: Spec = Spec::new("guest-set-time", Class::Control).timeout(SET_TIME_TIMEOUT);
    type Reply = Nothing;
}

/// Returns the guest's time zone at this moment.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GetTimezone {}

impl Command for GetTimezone {
    const SPEC: Spec = Spec::new("guest-get-timezone", Class::Query);
    type Reply = Timezone;
}

/// A time zone, as it is in force at one moment.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Timezone {
    /// The abbreviation in use, summer time included: `CET`, `CEST`, `+05`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Seconds east of UTC.
    pub offset: i64,
}
