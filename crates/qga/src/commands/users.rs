//! Users: who is logged in, and setting passwords.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::session::Nothing;
use crate::{
    command::{Class, Command, Spec},
    wire::base64::Base64,
};

/// Longest that setting a password may take: a program in the guest does it, and may ask a directory service.
pub const SET_USER_PASSWORD_TIMEOUT: Duration = Duration::from_secs(60);

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

/// Sets the password of a user.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SetUserPassword {
    /// The user's name.
    pub username: String,
    /// The password, or what crypt(3) makes of it.
    pub password: Base64,
    /// Whether it is what crypt(3) makes of it.
    pub crypted: bool,
}

impl Command for SetUserPassword {
    const SPEC: Spec = Spec::new("guest-set-user-password", Class::Account).timeout(SET_USER_PASSWORD_TIMEOUT);
    type Reply = Nothing;
}
