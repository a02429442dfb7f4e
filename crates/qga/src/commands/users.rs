//! Who is logged in.

use serde::{Deserialize, Serialize};

use crate::command::{Class, Command, Spec};

/// Lists the users that are logged in, each once.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GetUsers {}

impl Command for GetUsers {
    const SPEC: Spec = Spec::new("guest-get-users", Class::Query);
    type Reply = Vec<LoggedInUser>;
}

/// A user that is logged in, once or more.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct LoggedInUser {
    /// The user's name.
    pub user: String,
    /// When the earliest login was that still lasts: seconds since 1970-01-01 UTC, with fractions.
    pub login_time: f64,
    /// The user's domain; only another system than Linux tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}
