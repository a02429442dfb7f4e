//! The types of settings: how text becomes a value, and how a value becomes text again.
//!
//! They are constants and not a trait of the Rust types, because settings of one Rust type may be written differently:
//! `daemon` is `true` or `false`, `audit` is `on` or `off`. Text is validated here, once; code that uses a setting
//! checks nothing again.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    time::Duration,
};

use qga::command::Profile;

use crate::channel::VsockPeers;

/// The hook that a bare `-F` enables.
pub(crate) const DEFAULT_HOOK: &str = "/etc/qemu/fsfreeze-hook";
/// Shortest timeout: anything shorter would refuse every command.
const MIN_TIMEOUT: Duration = Duration::from_millis(1);
/// Longest timeout: a day, longer than any host waits.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest timeout of a freeze: an hour, so that the attempt ends before the command times out.
const MAX_FREEZE_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// A value, and where it was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WithOrigin<T> {
    /// The value.
    pub(crate) value: T,
    /// Where it was set.
    pub(crate) origin: Origin,
}

/// Where a setting was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nowhere.
    Default,
    /// In this file.
    File(PathBuf),
    /// On the command line.
    CommandLine,
}

/// The text that one source has for one setting.
pub(super) struct RawValue<'a> {
    pub(super) text: &'a OsStr,
    pub(super) origin: &'a Origin,
}

/// The text is not a value of the setting's type.
#[derive(Debug)]
pub(super) struct InvalidValue;

/// What a setting takes on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueKind {
    /// Nothing: the option switches the flag on.
    Flag,
    /// A value.
    Value,
    /// A value that is glued to the option, or else this one.
    OptionalValue(&'static str),
    /// Names of commands, separated by commas or semicolons; `help` lists them.
    Commands,
}

/// How a setting of Rust type `T` is written.
pub(super) struct ValueType<T> {
    /// What its option takes.
    pub(super) kind: ValueKind,
    /// Replaces a value by the one in a text, or adds to it if it is a list of names.
    pub(super) set: fn(&mut T, &RawValue<'_>) -> Result<(), InvalidValue>,
    /// The text that sets this value; `None` if the setting has to be left out.
    pub(super) format: fn(&T) -> Option<OsString>,
}

/// `true` or `false`.
pub(super) const FLAG: ValueType<bool> = ValueType {
    kind: ValueKind::Flag,
    set: |value, raw| {
        let parsed = match raw.bytes().trim_ascii_end() {
            b"true" | b"1" => Some(true),
            b"false" | b"0" => Some(false),
            _ => None,
        };
        replace(value, parsed)
    },
    format: |value| Some(value.to_string().into()),
};

/// `on` or `off`.
pub(super) const ON_OFF: ValueType<bool> = ValueType {
    kind: ValueKind::Value,
    set: |value, raw| {
        let parsed = match raw.bytes().trim_ascii() {
            b"on" => Some(true),
            b"off" => Some(false),
            _ => None,
        };
        replace(value, parsed)
    },
    format: |value| Some(if *value { "on" } else { "off" }.into()),
};

/// Any text.
pub(super) const TEXT: ValueType<String> = ValueType {
    kind: ValueKind::Value,
    set: |value, raw| replace(value, Some(raw.text.to_string_lossy().into_owned())),
    format: |value| Some(value.into()),
};

/// The path of a file or directory.
pub(super) const PATH: ValueType<PathBuf> = ValueType {
    kind: ValueKind::Value,
    set: |value, raw| replace(value, Some(raw.text.into())),
    format: |value| Some(value.into()),
};

/// A path that may be absent.
pub(super) const OPTIONAL_PATH: ValueType<Option<PathBuf>> = ValueType {
    kind: ValueKind::Value,
    set: |value, raw| replace(value, Some(Some(raw.text.into()))),
    format: |value| value.as_ref().map(Into::into),
};

/// The path of a program; the option alone enables [`DEFAULT_HOOK`].
pub(super) const HOOK: ValueType<Option<PathBuf>> =
    ValueType { kind: ValueKind::OptionalValue(DEFAULT_HOOK), ..OPTIONAL_PATH };

/// A number of seconds, which may have a fraction.
pub(super) const SECONDS: ValueType<Duration> = ValueType {
    kind: ValueKind::Value,
    set: |value, raw| replace(value, raw.seconds(MAX_TIMEOUT)),
    format: |value| Some(value.as_secs_f64().to_string().into()),
};

/// As [`SECONDS`], with the limit for freezes.
pub(super) const FREEZE_SECONDS: ValueType<Duration> =
    ValueType { set: |value, raw| replace(value, raw.seconds(MAX_FREEZE_TIMEOUT)), ..SECONDS };

/// As [`SECONDS`], or 0 for never.
pub(super) const SECONDS_OR_NEVER: ValueType<Option<Duration>> = ValueType {
    kind: ValueKind::Value,
    set: |value, raw| match raw.bytes().trim_ascii() {
        b"0" => replace(value, Some(None)),
        _ => replace(value, raw.seconds(MAX_TIMEOUT).map(Some)),
    },
    format: |value| (SECONDS.format)(&value.unwrap_or_default()),
};

/// A list of names or patterns.
pub(super) const NAMES: ValueType<Vec<String>> = ValueType {
    kind: ValueKind::Value,
    set: |value, raw| {
        value.extend(split_names(raw.bytes()));
        Ok(())
    },
    format: |value| Some(value.join(";").into()),
};

/// A list of commands; each remembers where it was named.
pub(super) const COMMANDS: ValueType<Vec<WithOrigin<String>>> = ValueType {
    kind: ValueKind::Commands,
    set: |value, raw| {
        value.extend(split_names(raw.bytes()).map(|name| raw.with_origin(name)));
        Ok(())
    },
    format: |value| Some(value.iter().map(|name| name.value.as_str()).collect::<Vec<_>>().join(";").into()),
};

/// The name of a profile.
pub(super) const PROFILE: ValueType<WithOrigin<Profile>> = ValueType {
    kind: ValueKind::Value,
    set: |value, raw| {
        let name = raw.bytes().trim_ascii();
        let profile = Profile::ALL.into_iter().find(|profile| profile.name().as_bytes() == name);
        replace(value, profile.map(|profile| raw.with_origin(profile)))
    },
    format: |value| Some(value.value.name().into()),
};

/// CIDs, or `any`.
pub(super) const VSOCK_PEERS: ValueType<VsockPeers> = ValueType {
    kind: ValueKind::Value,
    set: |value, raw| replace(value, VsockPeers::parse(raw.bytes())),
    format: VsockPeers::shown,
};

/// Absolute paths without `.` and `..`, whose meaning does not depend on links. An empty list allows nothing.
pub(super) const ALLOWED_PATHS: ValueType<Option<WithOrigin<Vec<String>>>> = ValueType {
    kind: ValueKind::Value,
    set: |value, raw| {
        let paths: Vec<_> = split_names(raw.bytes()).collect();
        let is_valid = |path: &String| path.starts_with('/') && path.split('/').all(|name| name != "." && name != "..");
        replace(value, paths.iter().all(is_valid).then(|| Some(raw.with_origin(paths))))
    },
    format: |value| value.as_ref().map(|paths| paths.value.join(";").into()),
};

fn replace<T>(value: &mut T, parsed: Option<T>) -> Result<(), InvalidValue> {
    *value = parsed.ok_or(InvalidValue)?;
    Ok(())
}

impl<T> WithOrigin<T> {
    /// A value that nobody set.
    pub(super) fn default_of(value: T) -> Self {
        Self { value, origin: Origin::Default }
    }
}

impl RawValue<'_> {
    fn bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    fn seconds(&self, max: Duration) -> Option<Duration> {
        let seconds: f64 = self.text.to_str()?.trim().parse().ok()?;
        (MIN_TIMEOUT.as_secs_f64()..=max.as_secs_f64()).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
    }

    fn with_origin<T>(&self, value: T) -> WithOrigin<T> {
        WithOrigin { value, origin: self.origin.clone() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("by default"),
            Self::File(path) => write!(formatter, "in {}", path.display()),
            Self::CommandLine => formatter.write_str("on the command line"),
        }
    }
}

/// The names in a list, without blanks around them.
pub(crate) fn split_names(list: &[u8]) -> impl Iterator<Item = String> {
    let names = list.split(|byte| matches!(byte, b',' | b';')).map(<[u8]>::trim_ascii);
    names.filter(|name| !name.is_empty()).map(|name| String::from_utf8_lossy(name).into_owned())
}
