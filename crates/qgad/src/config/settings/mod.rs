//! Every setting of the agent, each defined once.
//!
//! A row of the table gives a setting's field, type, default, text format, names in the file, and option. The struct
//! [`Settings`], its default, the list of [`KEYS`], the command line, the help text and the printed configuration are
//! derived from it. A later source replaces a value and adds to a list of names; an option can only switch a flag on.
//! Names of channels and commands are not checked here: a configuration is printed whatever it says.
//! Keys without an option do not exist in qemu-ga. They are printed only when they differ from the default.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::PathBuf,
    time::Duration,
};

use qga::command::{Profile, QUERY_TIMEOUT};

use super::values::{
    ALLOWED_PATHS, COMMANDS, FLAG, FREEZE_SECONDS, HOOK, InvalidValue, NAMES, ON_OFF, OPTIONAL_PATH, Origin, PATH,
    PROFILE, RawValue, SECONDS, SECONDS_OR_NEVER, TEXT, VSOCK_PEERS, ValueKind, WithOrigin,
};
use crate::{
    channel::VsockPeers,
    util::key_file::{cannot_be_interpreted, escape},
};

/// The port that hosts create by default.
const DEFAULT_VIRTIO_PORT: &str = "/dev/virtio-ports/org.qemu.guest_agent.0";
/// The serial line that is used without `path`.
const DEFAULT_SERIAL_LINE: &str = "/dev/ttyS0";
/// How long a freeze hook may run by default: flushing a large database takes some seconds.
pub(crate) const HOOK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long freezing all file systems may take by default. It includes writing back what is dirty.
pub(crate) const FREEZE_TIMEOUT: Duration = Duration::from_secs(300);
/// After how long a freeze ends by itself by default: twice what hosts give a snapshot.
pub(crate) const FREEZE_LEASE: Duration = Duration::from_secs(600);

/// A row is `field: Rust type = default => text format, names in the file, option;`.
macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        $field:ident: $type:ty = $default:expr => $format:expr, $names:expr, $option:expr;
    )+) => {
        /// All settings, validated.
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) struct Settings {
            $($(#[doc = $doc])+ pub(crate) $field: $type,)+
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        /// Every setting, in the order in which they are printed.
        pub(crate) static KEYS: &[Key] = &[$(Key {
            names: &$names,
            option: $option,
            kind: $format.kind,
            set: |settings, raw| ($format.set)(&mut settings.$field, raw),
            format: |settings| ($format.format)(&settings.$field),
        },)+];
    };
}

settings! {
    /// Whether to leave the foreground.
    daemon: bool = false => FLAG, ["daemon"], option('d', &["daemonize"], &["become a daemon"]);

    /// How hosts reach the agent: `virtio-serial`, `isa-serial`, `unix-listen` or `vsock-listen`.
    method: String = "virtio-serial".into() => TEXT, ["method"], option('m', &["method"], &[
        "transport method: one of unix-listen, virtio-serial,",
        "isa-serial, or vsock-listen (virtio-serial is the default)",
    ]);

    /// The device or socket.
    path: Option<PathBuf> = None => OPTIONAL_PATH, ["path"], option('p', &["path"], &[
        "device/socket path; the default for virtio-serial is",
        "/dev/virtio-ports/org.qemu.guest_agent.0, the default",
        "for isa-serial is /dev/ttyS0; addresses for vsock-listen",
        "are written <cid>:<port>",
    ]);

    /// Where the log goes instead of standard error.
    logfile: Option<PathBuf> = None => OPTIONAL_PATH, ["logfile"], option('l', &["logfile"], &[
        "log to this file instead of standard error",
    ]);

    /// The file that holds a daemon's process id.
    pidfile: PathBuf = "/var/run/qemu-ga.pid".into() => PATH, ["pidfile"], option('f', &["pidfile"], &[
        "a daemon's pid file (default is /var/run/qemu-ga.pid)",
    ]);

    /// The program to run before a freeze and after a thaw.
    fsfreeze_hook: Option<PathBuf> = None => HOOK, ["fsfreeze-hook"], option('F', &["fsfreeze-hook"], &[
        "run a program, with the argument 'freeze' or 'thaw',",
        "before a freeze and after a thaw; a path must be glued",
        "to the option, as in -F/path/to/hook",
        "(the default for fsfreeze-hook is /etc/qemu/fsfreeze-hook)",
    ]);

    /// The directory for state that outlives the agent.
    statedir: PathBuf = "/var/run".into() => PATH, ["statedir"], option('t', &["statedir"], &[
        "directory for state that outlives the agent",
        "(default is /var/run)",
    ]);

    /// Whether to log everything.
    verbose: bool = false => FLAG, ["verbose"], option('v', &["verbose"], &["log debugging information too"]);

    /// Whether to wait for a port that is absent.
    retry_path: bool = false => FLAG, ["retry-path"], option('r', &["retry-path"], &[
        "wait for a port that does not exist, or goes away",
    ]);

    /// Commands to refuse.
    block_rpcs: Vec<WithOrigin<String>> = Vec::new() =>
        COMMANDS, ["block-rpcs", "blacklist"], option('b', &["block-rpcs", "blacklist"], &[
        "commands to refuse, separated by commas",
        "(\"help\" lists all commands)",
    ]);

    /// The only commands to serve; all when empty.
    allow_rpcs: Vec<WithOrigin<String>> = Vec::new() => COMMANDS, ["allow-rpcs"], option('a', &["allow-rpcs"], &[
        "the only commands to serve, separated by commas",
        "(\"help\" lists all commands)",
    ]);

    /// Network interfaces that are not reported, as patterns.
    interfaces_exclude: Vec<String> = Vec::new() => NAMES, ["interfaces-exclude"], FILE_ONLY;

    /// How long a query may take; the timeouts of other commands are scaled with it.
    command_timeout: Duration = QUERY_TIMEOUT => SECONDS, ["command-timeout"], FILE_ONLY;

    /// How long each freeze hook may run.
    fsfreeze_hook_timeout: Duration = HOOK_TIMEOUT => SECONDS, ["fsfreeze-hook-timeout"], FILE_ONLY;

    /// How long freezing all file systems together may take.
    fsfreeze_timeout: Duration = FREEZE_TIMEOUT => FREEZE_SECONDS, ["fsfreeze-timeout"], FILE_ONLY;

    /// After how long a freeze ends by itself; never if `None`.
    fsfreeze_lease: Option<Duration> = Some(FREEZE_LEASE) => SECONDS_OR_NEVER, ["fsfreeze-lease"], FILE_ONLY;

    /// File systems that are never frozen, as patterns of mount points and types.
    fsfreeze_exclude: Vec<String> = Vec::new() => NAMES, ["fsfreeze-exclude"], FILE_ONLY;

    /// How much of the protocol is offered.
    profile: WithOrigin<Profile> = WithOrigin::default_of(Profile::Full) => PROFILE, ["profile"], FILE_ONLY;

    /// Whether commands that change the guest are recorded.
    audit: bool = true => ON_OFF, ["audit"], FILE_ONLY;

    /// Where they are recorded, instead of the log.
    audit_file: Option<PathBuf> = None => OPTIONAL_PATH, ["audit-file"], FILE_ONLY;

    /// Which peers are served on vsock.
    vsock_allow: VsockPeers = VsockPeers::default() => VSOCK_PEERS, ["vsock-allow"], FILE_ONLY;

    /// The only programs that may be started, as patterns of absolute paths; all if `None`.
    exec_allow: Option<WithOrigin<Vec<String>>> = None => ALLOWED_PATHS, ["exec-allow"], FILE_ONLY;

    /// The only paths below which files may be read; all if `None`.
    file_read_allow: Option<WithOrigin<Vec<String>>> = None => ALLOWED_PATHS, ["file-read-allow"], FILE_ONLY;

    /// The only paths below which files may be written; all if `None`.
    file_write_allow: Option<WithOrigin<Vec<String>>> = None => ALLOWED_PATHS, ["file-write-allow"], FILE_ONLY;
}

/// The definition of one setting.
pub(crate) struct Key {
    /// Its names in the file; the first is the one printed.
    pub(crate) names: &'static [&'static str],
    /// Its option.
    pub(crate) option: Option<KeyOption>,
    /// What the option takes.
    pub(crate) kind: ValueKind,
    set: fn(&mut Settings, &RawValue<'_>) -> Result<(), InvalidValue>,
    format: fn(&Settings) -> Option<OsString>,
}

/// How a setting is given on the command line.
pub(crate) struct KeyOption {
    /// One letter.
    pub(crate) short: char,
    /// Long names; the first is the one documented.
    pub(crate) long: &'static [&'static str],
    /// The lines of the help text.
    pub(crate) help: &'static [&'static str],
}

/// For keys of our own: the configuration file is the place for them.
const FILE_ONLY: Option<KeyOption> = None;

#[expect(clippy::unnecessary_wraps, reason = "the counterpart of FILE_ONLY")]
const fn option(short: char, long: &'static [&'static str], help: &'static [&'static str]) -> Option<KeyOption> {
    Some(KeyOption { short, long, help })
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.names[0])
    }
}

impl Settings {
    /// Applies the text that one source has for one setting.
    pub(crate) fn set(&mut self, key: &Key, text: &OsStr, origin: &Origin) -> Result<(), String> {
        (key.set)(self, &RawValue { text, origin }).map_err(|InvalidValue| cannot_be_interpreted(key.names[0]))
    }

    /// The path of the channel: the one that was set, or the default of the method.
    pub(crate) fn channel_path(&self) -> Result<PathBuf, String> {
        match (&self.path, self.method.as_str()) {
            (Some(path), _) => Ok(path.clone()),
            (None, "virtio-serial") => Ok(DEFAULT_VIRTIO_PORT.into()),
            (None, "isa-serial") => Ok(DEFAULT_SERIAL_LINE.into()),
            (None, _) => Err("must specify a path for this channel".into()),
        }
    }

    /// The settings as a configuration file.
    pub(crate) fn dump(&self) -> Vec<u8> {
        let defaults = Self::default();
        let mut lines = b"[general]\n".to_vec();
        for key in KEYS {
            let value = (key.format)(self);
            let is_hidden = key.option.is_none() && value == (key.format)(&defaults);
            if let Some(value) = value.filter(|_| !is_hidden) {
                lines.extend([key.names[0].as_bytes(), b"=", &escape(value.as_encoded_bytes()), b"\n"].concat());
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests;
