//! Which commands are served: the allow list, the block list, and the freeze, in one decision.
//!
//! Without lists everything is allowed. An allow list allows its members only, and nothing implicitly; the block list
//! then takes away. While file systems are frozen only the commands made for that are served, and being frozen gives
//! back nothing that a list refuses, save what it takes to see and end the freeze.

use std::collections::HashSet;

use qga::{Spec, command::WhileFrozen, wire::message::Error};

/// What the administrator allows.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    allowed: Option<HashSet<String>>,
    blocked: HashSet<String>,
}

/// Why a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// File systems are frozen.
    Frozen,
    /// A list says so.
    ByPolicy,
}

impl Policy {
    /// A policy of an allow list, which is none when empty, and a block list.
    pub(crate) fn new(allowed: Vec<String>, blocked: Vec<String>) -> Self {
        Self {
            allowed: (!allowed.is_empty()).then(|| allowed.into_iter().collect()),
            blocked: blocked.into_iter().collect(),
        }
    }

    /// Whether a command is served now.
    pub(crate) fn decide(&self, spec: &Spec, is_frozen: bool) -> Result<(), Refusal> {
        match spec.while_frozen {
            WhileFrozen::Refused if is_frozen => return Err(Refusal::Frozen),
            WhileFrozen::EvenIfBlocked if is_frozen => return Ok(()),
            _ => {}
        }
        let is_allowed = self.allowed.as_ref().is_none_or(|allowed| allowed.contains(spec.name));
        if is_allowed && !self.blocked.contains(spec.name) { Ok(()) } else { Err(Refusal::ByPolicy) }
    }
}

impl Refusal {
    /// What the peer is told; hosts match the text and take the class for "not supported".
    pub(crate) fn explain(self, command: &str) -> Error {
        let reason = match self {
            Self::Frozen => "the agent is in frozen state",
            Self::ByPolicy => "the command is not allowed",
        };
        Error::command_not_found(format!("Command {command} has been disabled: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use qga::Class;

    use super::*;

    const PING: Spec = Spec::new("guest-ping", Class::Session).while_frozen(WhileFrozen::Served);
    const EXEC: Spec = Spec::new("guest-exec", Class::Exec);

    fn check(
        allowed: &[&str],
        blocked: &[&str],
        is_frozen: bool,
        ping: Result<(), Refusal>,
        exec: Result<(), Refusal>,
    ) {
        let names = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        let policy = Policy::new(names(allowed), names(blocked));
        assert_eq!(policy.decide(&PING, is_frozen), ping);
        assert_eq!(policy.decide(&EXEC, is_frozen), exec);
    }

    #[test]
    fn without_lists_everything_is_allowed() {
        check(&[], &[], false, Ok(()), Ok(()));
    }

    #[test]
    fn an_allow_list_has_no_implicit_members() {
        check(&["guest-exec"], &[], false, Err(Refusal::ByPolicy), Ok(()));
    }

    #[test]
    fn the_block_list_takes_away_from_the_allow_list() {
        check(&["guest-exec", "guest-ping"], &["guest-exec"], false, Ok(()), Err(Refusal::ByPolicy));
    }

    #[test]
    fn while_frozen_only_the_commands_made_for_it_are_served() {
        check(&[], &[], true, Ok(()), Err(Refusal::Frozen));
    }

    #[test]
    fn a_freeze_does_not_give_back_what_a_list_refuses() {
        check(&[], &["guest-ping"], true, Err(Refusal::ByPolicy), Err(Refusal::Frozen));
    }

    #[test]
    fn a_freeze_can_always_be_ended() {
        let thaw = Spec::new("guest-fsfreeze-thaw", Class::Control).while_frozen(WhileFrozen::EvenIfBlocked);
        let policy = Policy::new(Vec::new(), vec![thaw.name.into()]);
        assert_eq!(policy.decide(&thaw, false), Err(Refusal::ByPolicy));
        assert_eq!(policy.decide(&thaw, true), Ok(()));
    }

    #[test]
    fn names_match_exactly() {
        check(&[], &["Guest-Exec", "guest-exe", " guest-exec"], false, Ok(()), Ok(()));
    }

    #[test]
    fn the_texts_are_what_hosts_match() {
        let frozen = "Command guest-exec has been disabled: the agent is in frozen state";
        let blocked = "Command guest-exec has been disabled: the command is not allowed";
        assert_eq!(Refusal::Frozen.explain("guest-exec"), Error::command_not_found(frozen));
        assert_eq!(Refusal::ByPolicy.explain("guest-exec"), Error::command_not_found(blocked));
    }
}
