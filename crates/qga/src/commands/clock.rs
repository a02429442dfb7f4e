//! The guest's clock and its time zone.

use serde::{Deserialize, Serialize};

use crate::command::{Class, Command, Spec};

/// Returns the guest's time: nanoseconds since 1970-01-01 UTC, in steps of a microsecond.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GetTime {}

impl Command for GetTime {
    const SPEC: Spec = Spec::new("guest-get-time", Class::Query).inline();
    type Reply = i64;
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
