//! The public keys that SSH accepts for a user.

use serde::{Deserialize, Serialize};

use super::session::Nothing;
use crate::command::{Class, Command, Spec};

/// Returns the keys in the user's `authorized_keys` file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GetAuthorizedKeys {
    /// The user's name.
    pub username: String,
}

impl Command for GetAuthorizedKeys {
    const SPEC: Spec = Spec::new("guest-ssh-get-authorized-keys", Class::Account).unaudited();
    type Reply = AuthorizedKeys;
}

/// The public keys that SSH accepts for a user.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuthorizedKeys {
    /// One line of the file each, options and comment included, without white space around it; the file's last line
    /// first.
    pub keys: Vec<String>,
}

/// Adds keys to the user's `authorized_keys` file, which is created if absent. Keys it has are not added again.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AddAuthorizedKeys {
    /// The user's name.
    pub username: String,
    /// The keys, as lines of the file.
    pub keys: Vec<String>,
    /// Whether everything else is removed from the file. False where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset: Option<bool>,
}

impl Command for AddAuthorizedKeys {
    const SPEC: Spec = Spec::new("guest-ssh-add-authorized-keys", Class::Account);
    type Reply = Nothing;
}

/// Removes keys from the user's `authorized_keys` file. Keys that it does not have are no error, nor is an absent file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RemoveAuthorizedKeys {
    /// The user's name.
    pub username: String,
    /// The keys, as lines of the file.
    pub keys: Vec<String>,
}

impl Command for RemoveAuthorizedKeys {
    const SPEC: Spec = Spec::new("guest-ssh-remove-authorized-keys", Class::Account);
    type Reply = Nothing;
}
