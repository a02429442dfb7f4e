//! The audit: one line of JSON for each command that changes the guest, or names a file or program.
//!
//! A line has the time at which the command started, its name and class, its subject (`touched`), the outcome and the
//! duration. It never has other arguments or the result. `outcome` is `ok`, `error`, `refused` or `timed out`. A
//! refused command has the `reason` (the command, file, program or environment is not allowed, or file systems are
//! frozen) and the `rule` of the configuration, with the member of its list where one applies. If a command ends after
//! its timeout, a second line has the outcome. The `Spec` of a command says whether it is audited.
//! Lines go to the log after `audit: `, or to a separate file as they are. While file systems are frozen they are held
//! with those of the log. Where lines are missing, a line says how many are `lost`, and the `reason`.

use std::time::{Instant, SystemTime};

use qga::{
    Spec,
    wire::{
        json,
        message::{Error, Refused},
    },
};
use serde::Serialize;

use crate::logging;

/// Most characters of a name. A longer one loses its middle.
const MAX_NAME_LENGTH: usize = 256;
/// Most characters of the subject, which may be a list of names: a host may send names of any length.
const MAX_SUBJECT_LENGTH: usize = 1024;

/// How a command has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has done what it was to do.
    Ok,
    /// It has failed.
    Error,
    /// The configuration or a freeze forbids it.
    Refused(Refused),
    /// Its peer has got an error instead of its result.
    TimedOut,
}

impl Outcome {
    /// The outcome of a command with this result.
    pub(crate) fn of<T>(result: &Result<T, Error>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(Error { refused: Some(refused), .. }) => Self::Refused(refused.clone()),
            Err(_) => Self::Error,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Refused(_) => "refused",
            Self::TimedOut => "timed out",
        }
    }
}

/// An audited command that has started. A line is written when it ends.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    command: &'static str,
    class: &'static str,
    subject: Option<String>,
    time: SystemTime,
    started: Instant,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Line<'a> {
    time: String,
    command: &'a str,
    class: &'a str,
    #[serde(rename = "touched", skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    duration_ms: u64,
}

#[derive(Serialize)]
struct Gap<'a> {
    time: String,
    lost: u64,
    reason: &'a str,
}

impl Entry {
    /// A command that starts now, if it is audited.
    pub(crate) fn begin(spec: &Spec, subject: impl FnOnce() -> Option<String>) -> Option<Self> {
        spec.audited.then(|| Self {
            command: spec.name,
            class: spec.class.name(),
            subject: subject().map(|text| shorten(&text, MAX_SUBJECT_LENGTH)),
            time: SystemTime::now(),
            started: Instant::now(),
        })
    }

    /// Records that it has ended now.
    pub(crate) fn ended(&self, outcome: &Outcome) {
        logging::write_audit(&self.line(outcome));
    }

    fn line(&self, outcome: &Outcome) -> String {
        let refused = match outcome {
            Outcome::Refused(refused) => Some(refused),
            _ => None,
        };
        let line = Line {
            time: rfc_3339(self.time),
            command: self.command,
            class: self.class,
            subject: self.subject.as_deref(),
            outcome: outcome.name(),
            reason: refused.map(|refused| refused.reason),
            rule: refused.and_then(|refused| refused.rule.as_deref()),
            duration_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        String::from_utf8_lossy(&json::to_vec(&line)).into_owned()
    }
}

/// A line that replaces lost ones.
pub(crate) fn gap(time: SystemTime, lost: u64, reason: &str) -> String {
    let line = Gap { time: rfc_3339(time), lost, reason };
    String::from_utf8_lossy(&json::to_vec(&line)).into_owned()
}

fn rfc_3339(time: SystemTime) -> String {
    let elapsed = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX);
    tz::UtcDateTime::from_timespec(seconds, elapsed.subsec_nanos())
        .map_or_else(|_| String::new(), |time| time.to_string())
}

/// A path as a subject: without the empty and `.` components that could push its end out of sight.
pub(crate) fn path(path: &str) -> String {
    let components = path.split('/').filter(|component| !matches!(*component, "" | "."));
    let clean = components.collect::<Vec<_>>().join("/");
    let slash = if path.starts_with('/') { "/" } else { "" };
    shorten(&format!("{slash}{clean}"), MAX_NAME_LENGTH)
}

/// A list as a subject: the names that there is room for, and how many more there are.
pub(crate) fn list(names: impl ExactSizeIterator<Item = String>) -> String {
    let (count, mut told, mut subject) = (names.len(), 0, String::new());
    for name in names {
        if subject.chars().count() + name.chars().count() > MAX_SUBJECT_LENGTH - "... and 4294967295 more".len() {
            let more = count - told;
            return format!("{subject}... and {more} more");
        }
        subject += &name;
        told += 1;
        if told < count {
            subject.push(' ');
        }
    }
    subject
}

/// The beginning and the end of a text that is too long.
fn shorten(text: &str, max_length: usize) -> String {
    let length = text.chars().count();
    if length <= max_length {
        return text.into();
    }
    let kept = (max_length - "...".len()) / 2;
    let head: String = text.chars().take(kept).collect();
    let tail: String = text.chars().skip(length - kept).collect();
    format!("{head}...{tail}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use qga::Class;

    use super::*;

    #[test]
    fn a_time_is_written_as_a_date() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
        assert_eq!(rfc_3339(time), "2023-11-14T22:13:20.250000000Z");
    }

    #[track_caller]
    fn check_outcome(result: &Result<(), Error>, expected: &str) {
        const SPEC: Spec = Spec::new("test-command", Class::File);
        let line = Entry::begin(&SPEC, || None).unwrap().line(&Outcome::of(result));
        assert!(line.contains(&format!(r#""class": "file", {expected}, "duration-ms": "#)), "{line}");
    }

    #[test]
    fn a_refused_command_is_told_apart_from_a_failed_one_and_its_rule_is_named() {
        let refused = |rule: Option<&str>| {
            let refused = Refused { reason: "the file is not allowed", rule: rule.map(Into::into) };
            Err(Error { refused: Some(refused), ..Error::generic("a text for the host") })
        };
        let reason = r#""outcome": "refused", "reason": "the file is not allowed""#;
        check_outcome(&Ok(()), r#""outcome": "ok""#);
        check_outcome(&Err(Error::generic("a text for the host")), r#""outcome": "error""#);
        check_outcome(&refused(None), reason);
        check_outcome(&refused(Some("a rule")), &format!(r#"{reason}, "rule": "a rule""#));
    }

    #[test]
    fn a_command_that_is_not_audited_has_no_entry() {
        let not_audited = Spec::new("test-command", Class::Query);
        assert!(Entry::begin(&not_audited, || panic!("nobody asks for its subject")).is_none());
    }

    #[test]
    fn a_gap_is_a_line_of_its_own() {
        assert_eq!(
            gap(SystemTime::UNIX_EPOCH, 3, "No space left on device"),
            r#"{"time": "1970-01-01T00:00:00.000000000Z", "lost": 3, "reason": "No space left on device"}"#
        );
    }

    #[test]
    fn a_name_that_is_too_long_loses_its_middle() {
        assert_eq!(path("/bin/true"), "/bin/true");
        let long = path(&format!("/begin/{}/end", "ü".repeat(MAX_NAME_LENGTH)));
        assert_eq!(long.chars().count(), MAX_NAME_LENGTH - 1);
        assert!(long.starts_with("/begin/ü") && long.contains("ü...ü") && long.ends_with("ü/end"), "{long}");
    }

    #[test]
    fn padding_does_not_push_the_end_of_a_path_out_of_sight() {
        assert_eq!(path(&format!("/{}etc/hostname", "./".repeat(130))), "/etc/hostname");
        assert_eq!(path("//etc//./hostname/"), "/etc/hostname");
        assert_eq!(path("./a/../b"), "a/../b");
        assert_eq!(path("/"), "/");
    }

    #[test]
    fn a_list_that_is_too_long_says_how_many_names_it_leaves_out() {
        let names = |count: usize| list((0..count).map(|number| format!("/mnt/{number:04}")));
        assert_eq!(names(0), "");
        assert_eq!(names(3), "/mnt/0000 /mnt/0001 /mnt/0002");
        let long = names(5000);
        assert!(long.ends_with(" /mnt/0099 ... and 4900 more"), "{long}");
        assert!(long.chars().count() <= MAX_SUBJECT_LENGTH);
    }
}
