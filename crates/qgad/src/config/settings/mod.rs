//! What the agent is told: defaults, then the configuration file, then the command line.
//!
//! [`KEYS`] defines every setting once; the file's keys, the command line's options, the help text and the printed
//! configuration are derived from it. A later source replaces a value and adds to a list; the command line can only
//! switch flags on. Names of channels and commands are not checked here: a configuration is printed whatever it says.
//! Keys that qemu-ga does not have (`interfaces-exclude`, `command-timeout` and those behind it) are ours, and printed only
//! when they differ from the default.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::Duration,
};

use qga::command::{Profile, QUERY_TIMEOUT};

use crate::channel::VsockPeers;
use crate::util::key_file::{cannot_be_interpreted, escape};

/// The hook that a bare `-F` enables.
pub(crate) const DEFAULT_HOOK: &str = "/etc/qemu/fsfreeze-hook";
/// The port that hosts create by default.
pub(crate) const DEFAULT_VIRTIO_PORT: &str = "/dev/virtio-ports/org.qemu.guest_agent.0";
/// The serial line used without `path`.
pub(crate) const DEFAULT_SERIAL_LINE: &str = "/dev/ttyS0";
/// Longest time limit, in seconds: a day.
const MAX_TIME_LIMIT: f64 = 86_400.0;
/// How long a freeze hook may run where nothing else is said: flushing a large database takes some seconds.
pub(crate) const HOOK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long all file systems together may take to freeze where nothing else is said, writing back what is dirty included.
pub(crate) const FREEZE_TIMEOUT: Duration = Duration::from_secs(300);
/// Most that can be said: an hour, so that the attempt ends before the command's own deadline.
const MAX_FREEZE_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// After how long a freeze ends by itself where nothing else is said: twice what hosts give a snapshot.
pub(crate) const FREEZE_LEASE: Duration = Duration::from_secs(600);

/// All settings, with their values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// Whether to leave the foreground.
    pub(crate) daemon: bool,
    /// How peers come: `virtio-serial`, `isa-serial`, `unix-listen` or `vsock-listen`.
    pub(crate) method: String,
    /// Where they come.
    pub(crate) path: Option<PathBuf>,
    /// Where the log goes instead of standard error.
    pub(crate) logfile: Option<PathBuf>,
    /// The file that holds a daemon's process number.
    pub(crate) pidfile: PathBuf,
    /// The program to run before a freeze and after a thaw.
    pub(crate) fsfreeze_hook: Option<PathBuf>,
    /// Where the agent keeps what must outlive it.
    pub(crate) statedir: PathBuf,
    /// Whether to log everything.
    pub(crate) verbose: bool,
    /// Whether to wait for a port that is not there.
    pub(crate) retry_path: bool,
    /// Commands to refuse.
    pub(crate) block_rpcs: Vec<Sourced<String>>,
    /// Commands to serve, and no others; all when empty.
    pub(crate) allow_rpcs: Vec<Sourced<String>>,
    /// Network interfaces that are not told of, as patterns.
    pub(crate) interfaces_exclude: Vec<String>,
    /// How long a query may take; the deadlines of other commands are scaled with it.
    pub(crate) command_timeout: Duration,
    /// How long each freeze hook may run.
    pub(crate) fsfreeze_hook_timeout: Duration,
    /// How long all file systems together may take to freeze.
    pub(crate) fsfreeze_timeout: Duration,
    /// After how long a freeze ends by itself; never if not given.
    pub(crate) fsfreeze_lease: Option<Duration>,
    /// File systems that are never frozen, as patterns of mount points and types.
    pub(crate) fsfreeze_exclude: Vec<String>,
    /// How much of the protocol is offered.
    pub(crate) profile: Sourced<Profile>,
    /// Whether commands that change the guest are told of.
    pub(crate) audit: bool,
    /// Where they are told of, instead of the log.
    pub(crate) audit_file: Option<PathBuf>,
    /// Who is served on vsock.
    pub(crate) vsock_allow: VsockPeers,
    /// Programs that may be started, and no others, as patterns of absolute paths; all if not given.
    pub(crate) exec_allow: Option<Sourced<Vec<String>>>,
    /// Where files may be read, and nowhere else, as absolute paths; everywhere if not given.
    pub(crate) file_read_allow: Option<Sourced<Vec<String>>>,
    /// Where files may be written, and nowhere else, as absolute paths; everywhere if not given.
    pub(crate) file_write_allow: Option<Sourced<Vec<String>>>,
}

/// A value, and who made it so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sourced<T> {
    /// The value.
    pub(crate) value: T,
    /// Where it was said.
    pub(crate) origin: Origin,
}

/// Where a setting was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nowhere.
    Default,
    /// In this file.
    File(PathBuf),
    /// On the command line.
    CommandLine,
}

/// What one source says about one setting.
struct Said<'a> {
    text: &'a OsStr,
    origin: &'a Origin,
}

/// The definition of one setting.
pub(crate) struct Key {
    /// Its names in the file; the first is the one printed.
    pub(crate) names: &'static [&'static str],
    /// Its one-letter option.
    pub(crate) short: Option<char>,
    /// Its long options; the first is the one documented.
    pub(crate) long: &'static [&'static str],
    /// What it takes.
    pub(crate) takes: Takes,
    /// What the help text says, a line each.
    pub(crate) help: &'static [&'static str],
    /// Takes a value over; what is wrong with it does not name the key.
    set: fn(&mut Settings, &Said<'_>) -> Result<(), Unfit>,
    /// The value to print.
    show: fn(&Settings) -> Option<OsString>,
}

/// What a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// `true` or `false` in the file, nothing on the command line.
    Flag,
    /// A value.
    Value,
    /// On the command line, a value that is glued to the option, or this one.
    ValueOr(&'static str),
    /// Names of commands, separated by commas or semicolons; `help` on the command line lists them.
    Commands,
}

/// The value is not one that the key takes.
#[derive(Debug)]
pub(crate) struct Unfit;

/// Every setting, in the order in which they are printed.
pub(crate) static KEYS: &[Key] = &[
    Key {
        names: &["daemon"],
        short: Some('d'),
        long: &["daemonize"],
        takes: Takes::Flag,
        help: &["become a daemon"],
        set: |settings, value| flag(&mut settings.daemon, value),
        show: |settings| Some(settings.daemon.to_string().into()),
    },
    Key {
        names: &["method"],
        short: Some('m'),
        long: &["method"],
        takes: Takes::Value,
        help: &[
            "transport method: one of unix-listen, virtio-serial,",
            "isa-serial, or vsock-listen (virtio-serial is the default)",
        ],
        set: |settings, value| {
            settings.method = value.text.to_string_lossy().into_owned();
            Ok(())
        },
        show: |settings| Some(settings.method.clone().into()),
    },
    Key {
        names: &["path"],
        short: Some('p'),
        long: &["path"],
        takes: Takes::Value,
        help: &[
            "device/socket path; the default for virtio-serial is",
            "/dev/virtio-ports/org.qemu.guest_agent.0, the default",
            "for isa-serial is /dev/ttyS0; addresses for vsock-listen",
            "are written <cid>:<port>",
        ],
        set: |settings, value| optional_path(&mut settings.path, value),
        show: |settings| settings.path.clone().map(Into::into),
    },
    Key {
        names: &["logfile"],
        short: Some('l'),
        long: &["logfile"],
        takes: Takes::Value,
        help: &["log to this file instead of standard error"],
        set: |settings, value| optional_path(&mut settings.logfile, value),
        show: |settings| settings.logfile.clone().map(Into::into),
    },
    Key {
        names: &["pidfile"],
        short: Some('f'),
        long: &["pidfile"],
        takes: Takes::Value,
        help: &["a daemon's pid file (default is /var/run/qemu-ga.pid)"],
        set: |settings, value| {
            settings.pidfile = value.text.into();
            Ok(())
        },
        show: |settings| Some(settings.pidfile.clone().into()),
    },
    Key {
        names: &["fsfreeze-hook"],
        short: Some('F'),
        long: &["fsfreeze-hook"],
        takes: Takes::ValueOr(DEFAULT_HOOK),
        help: &[
            "run a program, with the argument 'freeze' or 'thaw',",
            "before a freeze and after a thaw; a path must be glued",
            "to the option, as in -F/path/to/hook",
            "(the default for fsfreeze-hook is /etc/qemu/fsfreeze-hook)",
        ],
        set: |settings, value| optional_path(&mut settings.fsfreeze_hook, value),
        show: |settings| settings.fsfreeze_hook.clone().map(Into::into),
    },
    Key {
        names: &["statedir"],
        short: Some('t'),
        long: &["statedir"],
        takes: Takes::Value,
        help: &["directory for state that outlives the agent", "(default is /var/run)"],
        set: |settings, value| {
            settings.statedir = value.text.into();
            Ok(())
        },
        show: |settings| Some(settings.statedir.clone().into()),
    },
    Key {
        names: &["verbose"],
        short: Some('v'),
        long: &["verbose"],
        takes: Takes::Flag,
        help: &["log debugging information too"],
        set: |settings, value| flag(&mut settings.verbose, value),
        show: |settings| Some(settings.verbose.to_string().into()),
    },
    Key {
        names: &["retry-path"],
        short: Some('r'),
        long: &["retry-path"],
        takes: Takes::Flag,
        help: &["wait for a port that is not there, or goes away"],
        set: |settings, value| flag(&mut settings.retry_path, value),
        show: |settings| Some(settings.retry_path.to_string().into()),
    },
    Key {
        names: &["block-rpcs", "blacklist"],
        short: Some('b'),
        long: &["block-rpcs", "blacklist"],
        takes: Takes::Commands,
        help: &["commands to refuse, separated by commas", "(\"help\" lists all commands)"],
        set: |settings, value| commands(&mut settings.block_rpcs, value),
        show: |settings| Some(shown_commands(&settings.block_rpcs)),
    },
    Key {
        names: &["allow-rpcs"],
        short: Some('a'),
        long: &["allow-rpcs"],
        takes: Takes::Commands,
        help: &["commands to serve, and no others", "(\"help\" lists all commands)"],
        set: |settings, value| commands(&mut settings.allow_rpcs, value),
        show: |settings| Some(shown_commands(&settings.allow_rpcs)),
    },
    own(
        &["interfaces-exclude"],
        |settings, value| names(&mut settings.interfaces_exclude, value),
        |settings| shown_names(&settings.interfaces_exclude),
    ),
    own(
        &["command-timeout"],
        |settings, value| seconds(&mut settings.command_timeout, value),
        |settings| shown_seconds(settings.command_timeout, QUERY_TIMEOUT),
    ),
    own(
        &["fsfreeze-hook-timeout"],
        |settings, value| seconds(&mut settings.fsfreeze_hook_timeout, value),
        |settings| shown_seconds(settings.fsfreeze_hook_timeout, HOOK_TIMEOUT),
    ),
    own(
        &["fsfreeze-timeout"],
        |settings, value| {
            seconds(&mut settings.fsfreeze_timeout, value)?;
            (settings.fsfreeze_timeout <= MAX_FREEZE_TIMEOUT).then_some(()).ok_or(Unfit)
        },
        |settings| shown_seconds(settings.fsfreeze_timeout, FREEZE_TIMEOUT),
    ),
    own(
        &["fsfreeze-lease"],
        |settings, value| {
            if value.bytes().trim_ascii() == b"0" {
                settings.fsfreeze_lease = None;
                return Ok(());
            }
            seconds(settings.fsfreeze_lease.get_or_insert_default(), value)
        },
        |settings| shown_seconds(settings.fsfreeze_lease.unwrap_or_default(), FREEZE_LEASE),
    ),
    own(
        &["fsfreeze-exclude"],
        |settings, value| names(&mut settings.fsfreeze_exclude, value),
        |settings| shown_names(&settings.fsfreeze_exclude),
    ),
    own(
        &["profile"],
        |settings, said| {
            let profile =
                Profile::ALL.into_iter().find(|profile| said.bytes().trim_ascii() == profile.name().as_bytes());
            settings.profile = said.by_source(profile.ok_or(Unfit)?);
            Ok(())
        },
        |settings| (settings.profile.value != Profile::Full).then(|| settings.profile.value.name().into()),
    ),
    own(
        &["audit"],
        |settings, said| {
            settings.audit = match said.bytes().trim_ascii() {
                b"on" => true,
                b"off" => false,
                _ => return Err(Unfit),
            };
            Ok(())
        },
        |settings| (!settings.audit).then(|| "off".into()),
    ),
    own(
        &["audit-file"],
        |settings, said| optional_path(&mut settings.audit_file, said),
        |settings| settings.audit_file.clone().map(Into::into),
    ),
    own(
        &["vsock-allow"],
        |settings, said| {
            settings.vsock_allow = VsockPeers::parse(said.bytes()).ok_or(Unfit)?;
            Ok(())
        },
        |settings| settings.vsock_allow.shown(),
    ),
    own(
        &["exec-allow"],
        |settings, said| absolute_paths(&mut settings.exec_allow, said),
        |settings| shown_paths(settings.exec_allow.as_ref()),
    ),
    own(
        &["file-read-allow"],
        |settings, said| absolute_paths(&mut settings.file_read_allow, said),
        |settings| shown_paths(settings.file_read_allow.as_ref()),
    ),
    own(
        &["file-write-allow"],
        |settings, said| absolute_paths(&mut settings.file_write_allow, said),
        |settings| shown_paths(settings.file_write_allow.as_ref()),
    ),
];

/// A key of our own, which stands in the file only.
const fn own(
    names: &'static [&'static str],
    set: fn(&mut Settings, &Said<'_>) -> Result<(), Unfit>,
    show: fn(&Settings) -> Option<OsString>,
) -> Key {
    Key { names, short: None, long: &[], takes: Takes::Value, help: &[], set, show }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.names[0])
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            daemon: false,
            method: "virtio-serial".into(),
            path: None,
            logfile: None,
            pidfile: "/var/run/qemu-ga.pid".into(),
            fsfreeze_hook: None,
            statedir: "/var/run".into(),
            verbose: false,
            retry_path: false,
            block_rpcs: Vec::new(),
            allow_rpcs: Vec::new(),
            interfaces_exclude: Vec::new(),
            command_timeout: QUERY_TIMEOUT,
            fsfreeze_hook_timeout: HOOK_TIMEOUT,
            fsfreeze_timeout: FREEZE_TIMEOUT,
            fsfreeze_lease: Some(FREEZE_LEASE),
            fsfreeze_exclude: Vec::new(),
            profile: Sourced { value: Profile::Full, origin: Origin::Default },
            audit: true,
            audit_file: None,
            vsock_allow: VsockPeers::default(),
            exec_allow: None,
            file_read_allow: None,
            file_write_allow: None,
        }
    }
}

impl Settings {
    /// Takes over what one source says about one setting.
    pub(crate) fn set(&mut self, key: &Key, text: &OsStr, origin: &Origin) -> Result<(), String> {
        (key.set)(self, &Said { text, origin }).map_err(|Unfit| cannot_be_interpreted(key.names[0]))
    }

    /// Fills in the path that the method implies.
    pub(crate) fn complete(mut self) -> Result<Self, String> {
        if self.path.is_none() {
            self.path = Some(match self.method.as_str() {
                "virtio-serial" => DEFAULT_VIRTIO_PORT.into(),
                "isa-serial" => DEFAULT_SERIAL_LINE.into(),
                _ => return Err("must specify a path for this channel".into()),
            });
        }
        Ok(self)
    }

    /// The settings as a configuration file.
    pub(crate) fn dump(&self) -> Vec<u8> {
        let mut lines = b"[general]\n".to_vec();
        for key in KEYS {
            if let Some(value) = (key.show)(self) {
                lines.extend([key.names[0].as_bytes(), b"=", &escape(value.as_bytes()), b"\n"].concat());
            }
        }
        lines
    }
}

impl Said<'_> {
    fn bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    fn by_source<T>(&self, value: T) -> Sourced<T> {
        Sourced { value, origin: self.origin.clone() }
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

fn flag(setting: &mut bool, value: &Said<'_>) -> Result<(), Unfit> {
    *setting = match value.bytes().trim_ascii_end() {
        b"true" | b"1" => true,
        b"false" | b"0" => false,
        _ => return Err(Unfit),
    };
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "a setter")]
fn optional_path(setting: &mut Option<PathBuf>, value: &Said<'_>) -> Result<(), Unfit> {
    *setting = Some(Path::new(value.text).into());
    Ok(())
}

/// The names in a list, without blanks around them.
pub(crate) fn split_names(list: &[u8]) -> impl Iterator<Item = String> {
    let names = list.split(|byte| matches!(byte, b',' | b';')).map(<[u8]>::trim_ascii);
    names.filter(|name| !name.is_empty()).map(|name| String::from_utf8_lossy(name).into_owned())
}

#[expect(clippy::unnecessary_wraps, reason = "a setter")]
fn names(setting: &mut Vec<String>, value: &Said<'_>) -> Result<(), Unfit> {
    setting.extend(split_names(value.bytes()));
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "a setter")]
fn commands(setting: &mut Vec<Sourced<String>>, value: &Said<'_>) -> Result<(), Unfit> {
    setting.extend(split_names(value.bytes()).map(|name| value.by_source(name)));
    Ok(())
}

/// Paths that mean one place whatever links there are. An empty list is one: it allows nothing.
fn absolute_paths(setting: &mut Option<Sourced<Vec<String>>>, value: &Said<'_>) -> Result<(), Unfit> {
    let paths: Vec<_> = split_names(value.bytes()).collect();
    let is_fit = |path: &String| path.starts_with('/') && path.split('/').all(|name| name != "." && name != "..");
    if !paths.iter().all(is_fit) {
        return Err(Unfit);
    }
    *setting = Some(value.by_source(paths));
    Ok(())
}

fn shown_names(setting: &[String]) -> Option<OsString> {
    (!setting.is_empty()).then(|| setting.join(";").into())
}

fn shown_commands(setting: &[Sourced<String>]) -> OsString {
    setting.iter().map(|name| name.value.as_str()).collect::<Vec<_>>().join(";").into()
}

fn shown_paths(setting: Option<&Sourced<Vec<String>>>) -> Option<OsString> {
    setting.map(|paths| paths.value.join(";").into())
}

fn seconds(setting: &mut Duration, value: &Said<'_>) -> Result<(), Unfit> {
    let seconds: f64 = value.text.to_str().and_then(|text| text.trim().parse().ok()).ok_or(Unfit)?;
    if !(0.001..=MAX_TIME_LIMIT).contains(&seconds) {
        return Err(Unfit);
    }
    *setting = Duration::from_secs_f64(seconds);
    Ok(())
}

fn shown_seconds(setting: Duration, default: Duration) -> Option<OsString> {
    (setting != default).then(|| setting.as_secs_f64().to_string().into())
}

#[cfg(test)]
mod tests;
