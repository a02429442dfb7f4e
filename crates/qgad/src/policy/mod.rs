//! Which commands are served: profile, allow list, block list and freeze make one decision.
//!
//! Without any of them every command is allowed. A profile offers the commands that name it or a smaller one in their
//! `Spec`. An allow list allows its members only, none implicitly. The block list then removes commands. No list adds a
//! command that the profile does not offer. While file systems are frozen, only the commands made for that are served.
//! A freeze does not lift another refusal, except for the commands that report and end the freeze.
//! The programs and paths in a command's arguments are judged when it runs: [`Policy::program`], [`Policy::path`].
//! Each refusal says by which rule, to the peer in words, and to the audit in [`Error::refused`].

mod paths;
mod programs;

use std::{collections::HashMap, fmt, io, time::Duration};

use qga::{
    Class, Profile, Spec,
    command::WhileFrozen,
    wire::message::{Error, Refused},
};

pub(crate) use self::paths::AllowedPath;
use crate::{
    config::{
        settings::Settings,
        values::{Origin, WithOrigin},
    },
    freeze,
};

/// What the administrator allows.
#[derive(Debug)]
pub(crate) struct Policy {
    profile: WithOrigin<Profile>,
    allowed: HashMap<String, Origin>,
    blocked: HashMap<String, Origin>,
    /// Patterns of the programs that may be started; all if `None`.
    programs: Option<WithOrigin<Vec<String>>>,
    /// Paths below which files may be read; all if `None`.
    reading: Option<WithOrigin<Vec<String>>>,
    /// Paths below which files may be written; all if `None`.
    writing: Option<WithOrigin<Vec<String>>>,
}

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal<'a> {
    /// File systems have been frozen for this time.
    Frozen(Duration),
    /// A rule of the configuration refuses it.
    ByPolicy(Rule<'a>),
}

/// A rule forbids a file or a program that a command names. Passed on inside an [`io::Error`].
#[derive(Debug)]
struct NotAllowed {
    /// For the audit.
    refused: Refused,
    /// For the peer.
    text: String,
}

/// A rule of the configuration, and where it was set: `profile=backup in /etc/qemu/qemu-ga.conf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule<'a> {
    key: &'static str,
    value: Option<&'a str>,
    origin: &'a Origin,
}

impl Policy {
    /// The policy of the settings.
    pub(crate) fn new(settings: &Settings) -> Self {
        let by_name = |list: &[WithOrigin<String>]| {
            list.iter().map(|name| (name.value.clone(), name.origin.clone())).collect::<HashMap<_, _>>()
        };
        Self {
            profile: settings.profile.clone(),
            allowed: by_name(&settings.allow_rpcs),
            blocked: by_name(&settings.block_rpcs),
            programs: settings.exec_allow.clone(),
            reading: settings.file_read_allow.clone(),
            writing: settings.file_write_allow.clone(),
        }
    }

    /// Whether a command is served now.
    pub(crate) fn decide(&self, spec: &Spec, frozen_for: Option<Duration>) -> Result<(), Refusal<'_>> {
        match (spec.while_frozen, frozen_for) {
            (WhileFrozen::Refused, Some(time)) => return Err(Refusal::Frozen(time)),
            (WhileFrozen::EvenIfBlocked, Some(_)) => return Ok(()),
            _ => {}
        }
        self.rule_against(spec).map_or(Ok(()), |rule| Err(Refusal::ByPolicy(rule)))
    }

    /// The lists of programs or paths that restrict a command.
    pub(crate) fn limits(&self, spec: &Spec) -> impl Iterator<Item = (Rule<'_>, &[String])> {
        let lists = match spec.class {
            Class::Exec => [rule_with_members("exec-allow", self.programs.as_ref()), None],
            Class::File => [
                rule_with_members("file-read-allow", self.reading.as_ref()),
                rule_with_members("file-write-allow", self.writing.as_ref()),
            ],
            _ => [None, None],
        };
        lists.into_iter().flatten()
    }

    fn rule_against(&self, spec: &Spec) -> Option<Rule<'_>> {
        if spec.profile > self.profile.value {
            let value = Some(self.profile.value.name());
            return Some(Rule { key: "profile", value, origin: &self.profile.origin });
        }
        if !self.allowed.is_empty() && !self.allowed.contains_key(spec.name) {
            let origin = self.allowed.values().find(|origin| matches!(origin, Origin::File(_)));
            return origin.or(self.allowed.values().next()).map(|origin| Rule {
                key: "allow-rpcs",
                value: None,
                origin,
            });
        }
        if let Some(origin) = self.blocked.get(spec.name) {
            return Some(Rule { key: "block-rpcs", value: None, origin });
        }
        // A command whose lists are all empty could do nothing.
        let restricts_all = match spec.class {
            Class::File => self.reading.is_some() && self.writing.is_some(),
            _ => true,
        };
        let allows_any = self.limits(spec).any(|(_, members)| !members.is_empty());
        self.limits(spec).next().filter(|_| restricts_all && !allows_any).map(|(rule, _)| rule)
    }
}

fn rule_with_members<'a>(
    key: &'static str,
    list: Option<&'a WithOrigin<Vec<String>>>,
) -> Option<(Rule<'a>, &'a [String])> {
    list.map(|list| (Rule { key, value: None, origin: &list.origin }, &*list.value))
}

impl fmt::Display for Rule<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            Some(value) => write!(formatter, "{}={value} {}", self.key, self.origin),
            None => write!(formatter, "{} {}", self.key, self.origin),
        }
    }
}

impl Refusal<'_> {
    /// The error for the peer. Hosts read its class as "not supported".
    pub(crate) fn explain(&self, command: &str) -> Error {
        let (reason, error, rule) = match self {
            Self::Frozen(time) => (freeze::FROZEN_REASON, freeze::refusal(command, *time), None),
            Self::ByPolicy(rule) => {
                let reason = "the command is not allowed";
                (reason, Error::disabled(command, format_args!("{reason} ({rule})")), Some(rule.to_string()))
            }
        };
        Error { refused: Some(Refused { reason, rule }), ..error }
    }
}

impl NotAllowed {
    fn by(rule: &Rule<'_>, reason: &'static str, text: String) -> io::Error {
        let refused = Refused { reason, rule: Some(rule.to_string()) };
        io::Error::new(io::ErrorKind::PermissionDenied, Self { refused, text })
    }
}

impl fmt::Display for NotAllowed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for NotAllowed {}

/// The rule that forbids a file or program, if that is the error.
pub(crate) fn refused_by(error: &io::Error) -> Option<Refused> {
    error.get_ref()?.downcast_ref().map(|NotAllowed { refused, .. }| refused.clone())
}

#[cfg(test)]
mod tests {
    use qga::commands::SPECS;

    use super::*;

    const PING: Spec = Spec::new("guest-ping", Class::Session).while_frozen(WhileFrozen::Served);
    const EXEC: Spec = Spec::new("guest-exec", Class::Exec);
    const FROZEN: &str = "the agent is in frozen state (for 35 s)";
    const TIME: Option<Duration> = Some(Duration::from_secs(35));
    const BY_ALLOW: &str = "the command is not allowed (allow-rpcs in /conf)";
    const BY_BLOCK: &str = "the command is not allowed (block-rpcs on the command line)";

    fn policy(allowed: &[&str], blocked: &[&str], profile: Profile) -> Policy {
        let names = |list: &[&str], origin: Origin| {
            list.iter().map(|name| WithOrigin { value: (*name).into(), origin: origin.clone() }).collect()
        };
        let file = Origin::File("/conf".into());
        Policy::new(&Settings {
            allow_rpcs: names(allowed, file.clone()),
            block_rpcs: names(blocked, Origin::CommandLine),
            profile: WithOrigin { value: profile, origin: file },
            ..Settings::default()
        })
    }

    fn reason(policy: &Policy, spec: &Spec, frozen_for: Option<Duration>) -> Result<(), String> {
        policy.decide(spec, frozen_for).map_err(|refusal| {
            let Error { desc, .. } = refusal.explain(spec.name);
            let prefix = format!("Command {} has been disabled: ", spec.name);
            desc.strip_prefix(&prefix).expect("hosts match this").to_owned()
        })
    }

    fn check(
        allowed: &[&str],
        blocked: &[&str],
        frozen_for: Option<Duration>,
        ping: Result<(), &str>,
        exec: Result<(), &str>,
    ) {
        let policy = policy(allowed, blocked, Profile::Full);
        assert_eq!(reason(&policy, &PING, frozen_for), ping.map_err(Into::into));
        assert_eq!(reason(&policy, &EXEC, frozen_for), exec.map_err(Into::into));
    }

    #[test]
    fn without_lists_everything_is_allowed() {
        check(&[], &[], None, Ok(()), Ok(()));
    }

    #[test]
    fn an_allow_list_has_no_implicit_members() {
        check(&["guest-exec"], &[], None, Err(BY_ALLOW), Ok(()));
    }

    #[test]
    fn the_block_list_removes_commands_from_the_allow_list() {
        check(&["guest-exec", "guest-ping"], &["guest-exec"], None, Ok(()), Err(BY_BLOCK));
    }

    #[test]
    fn only_the_commands_made_for_a_freeze_are_served_during_one() {
        check(&[], &[], TIME, Ok(()), Err(FROZEN));
    }

    #[test]
    fn a_freeze_does_not_lift_the_refusal_of_a_list() {
        check(&[], &["guest-ping"], TIME, Err(BY_BLOCK), Err(FROZEN));
    }

    #[test]
    fn a_freeze_can_always_be_ended() {
        let thaw = Spec::new("guest-fsfreeze-thaw", Class::Control).while_frozen(WhileFrozen::EvenIfBlocked);
        for policy in [policy(&[], &[thaw.name], Profile::Full), policy(&[], &[], Profile::ReadOnly)] {
            assert!(matches!(policy.decide(&thaw, None), Err(Refusal::ByPolicy(_))));
            assert_eq!(policy.decide(&thaw, TIME), Ok(()));
        }
    }

    #[test]
    fn names_of_commands_match_exactly() {
        check(&[], &["Guest-Exec", "guest-exe", " guest-exec"], None, Ok(()), Ok(()));
    }

    #[test]
    fn a_profile_offers_its_commands_and_those_of_smaller_profiles_and_no_list_adds_others() {
        for profile in Profile::ALL {
            for (allowed, spec) in SPECS.iter().flat_map(|spec| [(vec![], spec), (vec![spec.name], spec)]) {
                let expected = match spec.profile <= profile {
                    true => Ok(()),
                    false => Err(format!("the command is not allowed (profile={} in /conf)", profile.name())),
                };
                assert_eq!(reason(&policy(&allowed, &[], profile), spec, None), expected, "{}", spec.name);
            }
        }
    }

    #[test]
    fn an_empty_list_of_programs_or_paths_refuses_the_commands_that_need_them() {
        let no_paths = || Some(WithOrigin { value: Vec::new(), origin: Origin::File("/conf".into()) });
        let allowed = |settings: Settings| {
            let policy = Policy::new(&settings);
            let names = SPECS.iter().filter(|spec| matches!(spec.class, Class::Exec | Class::File));
            let allowed = names.filter(|spec| policy.decide(spec, None).is_ok());
            allowed.filter(|spec| spec.audited).map(|spec| spec.name).collect::<Vec<_>>()
        };
        let default = Settings::default;
        assert_eq!(allowed(Settings { exec_allow: no_paths(), ..default() }), ["guest-file-open"]);
        let programs = ["guest-exec", "qgad-job-start", "qgad-job-signal"];
        let all = [&["guest-file-open"], &programs[..]].concat();
        assert_eq!(allowed(Settings { file_read_allow: no_paths(), ..default() }), all);
        let no_files = Settings { file_read_allow: no_paths(), file_write_allow: no_paths(), ..default() };
        assert_eq!(allowed(no_files), programs);
    }
}
