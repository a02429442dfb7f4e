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

use qga::command::QUERY_DEADLINE;

use crate::keyfile::{cannot_be_interpreted, escape};

/// The hook that a bare `-F` enables.
pub(crate) const DEFAULT_HOOK: &str = "/etc/qemu/fsfreeze-hook";
/// The port that hosts create by default.
pub(crate) const DEFAULT_VIRTIO_PORT: &str = "/dev/virtio-ports/org.qemu.guest_agent.0";
/// The serial line used without `path`.
pub(crate) const DEFAULT_SERIAL_LINE: &str = "/dev/ttyS0";
/// Longest time limit, in seconds: a day.
const MAX_TIME_LIMIT: f64 = 86_400.0;
/// How long a freeze hook may run where nothing else is said: flushing a large database takes some seconds.
const HOOK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long all file systems together may take to freeze where nothing else is said, writing back what is dirty included.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(300);
/// Most that can be said: an hour, so that the attempt ends before the command's own deadline.
const MAX_FREEZE_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// After how long a freeze ends by itself where nothing else is said: twice what hosts give a snapshot.
const FREEZE_LEASE: Duration = Duration::from_secs(600);

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
    pub(crate) block_rpcs: Vec<String>,
    /// Commands to serve, and no others; all when empty.
    pub(crate) allow_rpcs: Vec<String>,
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
    set: fn(&mut Settings, &OsStr) -> Result<(), Unfit>,
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
            settings.method = value.to_string_lossy().into_owned();
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
            settings.pidfile = value.into();
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
            settings.statedir = value.into();
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
        set: |settings, value| names(&mut settings.block_rpcs, value),
        show: |settings| Some(settings.block_rpcs.join(";").into()),
    },
    Key {
        names: &["allow-rpcs"],
        short: Some('a'),
        long: &["allow-rpcs"],
        takes: Takes::Commands,
        help: &["commands to serve, and no others", "(\"help\" lists all commands)"],
        set: |settings, value| names(&mut settings.allow_rpcs, value),
        show: |settings| Some(settings.allow_rpcs.join(";").into()),
    },
    Key {
        names: &["interfaces-exclude"],
        short: None,
        long: &[],
        takes: Takes::Value,
        help: &[],
        set: |settings, value| names(&mut settings.interfaces_exclude, value),
        show: |settings| {
            let patterns = &settings.interfaces_exclude;
            (!patterns.is_empty()).then(|| patterns.join(";").into())
        },
    },
    Key {
        names: &["command-timeout"],
        short: None,
        long: &[],
        takes: Takes::Value,
        help: &[],
        set: |settings, value| seconds(&mut settings.command_timeout, value),
        show: |settings| shown_seconds(settings.command_timeout, QUERY_DEADLINE),
    },
    Key {
        names: &["fsfreeze-hook-timeout"],
        short: None,
        long: &[],
        takes: Takes::Value,
        help: &[],
        set: |settings, value| seconds(&mut settings.fsfreeze_hook_timeout, value),
        show: |settings| shown_seconds(settings.fsfreeze_hook_timeout, HOOK_TIMEOUT),
    },
    Key {
        names: &["fsfreeze-timeout"],
        short: None,
        long: &[],
        takes: Takes::Value,
        help: &[],
        set: |settings, value| {
            seconds(&mut settings.fsfreeze_timeout, value)?;
            (settings.fsfreeze_timeout <= MAX_FREEZE_TIMEOUT).then_some(()).ok_or(Unfit)
        },
        show: |settings| shown_seconds(settings.fsfreeze_timeout, FREEZE_TIMEOUT),
    },
    Key {
        names: &["fsfreeze-lease"],
        short: None,
        long: &[],
        takes: Takes::Value,
        help: &[],
        set: |settings, value| {
            if value.as_bytes().trim_ascii() == b"0" {
                settings.fsfreeze_lease = None;
                return Ok(());
            }
            seconds(settings.fsfreeze_lease.get_or_insert_default(), value)
        },
        show: |settings| shown_seconds(settings.fsfreeze_lease.unwrap_or_default(), FREEZE_LEASE),
    },
    Key {
        names: &["fsfreeze-exclude"],
        short: None,
        long: &[],
        takes: Takes::Value,
        help: &[],
        set: |settings, value| names(&mut settings.fsfreeze_exclude, value),
        show: |settings| {
            let patterns = &settings.fsfreeze_exclude;
            (!patterns.is_empty()).then(|| patterns.join(";").into())
        },
    },
];

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
            command_timeout: QUERY_DEADLINE,
            fsfreeze_hook_timeout: HOOK_TIMEOUT,
            fsfreeze_timeout: FREEZE_TIMEOUT,
            fsfreeze_lease: Some(FREEZE_LEASE),
            fsfreeze_exclude: Vec::new(),
        }
    }
}

impl Settings {
    /// Takes over what one source says about one setting.
    pub(crate) fn set(&mut self, key: &Key, value: &OsStr) -> Result<(), String> {
        (key.set)(self, value).map_err(|Unfit| cannot_be_interpreted(key.names[0]))
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

fn flag(setting: &mut bool, value: &OsStr) -> Result<(), Unfit> {
    *setting = match value.as_bytes().trim_ascii_end() {
        b"true" | b"1" => true,
        b"false" | b"0" => false,
        _ => return Err(Unfit),
    };
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "a setter")]
fn optional_path(setting: &mut Option<PathBuf>, value: &OsStr) -> Result<(), Unfit> {
    *setting = Some(Path::new(value).into());
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "a setter")]
fn names(setting: &mut Vec<String>, value: &OsStr) -> Result<(), Unfit> {
    let names = value.as_bytes().split(|byte| matches!(byte, b',' | b';')).map(<[u8]>::trim_ascii);
    setting.extend(names.filter(|name| !name.is_empty()).map(|name| String::from_utf8_lossy(name).into_owned()));
    Ok(())
}

fn seconds(setting: &mut Duration, value: &OsStr) -> Result<(), Unfit> {
    let seconds: f64 = value.to_str().and_then(|text| text.trim().parse().ok()).ok_or(Unfit)?;
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
mod tests {
    use super::*;

    fn settings(assignments: &[(&str, &str)]) -> Result<Settings, String> {
        let mut settings = Settings::default();
        for (name, value) in assignments {
            let key = KEYS.iter().find(|key| key.names.contains(name)).unwrap();
            settings.set(key, OsStr::new(value))?;
        }
        Ok(settings)
    }

    #[test]
    fn a_list_grows_and_other_settings_have_their_last_value() {
        let settings = settings(&[("block-rpcs", "a,b"), ("path", "/x"), ("blacklist", " c ;; d,"), ("path", "/y")]);
        let settings = settings.unwrap();
        assert_eq!(settings.block_rpcs, ["a", "b", "c", "d"]);
        assert_eq!(settings.path, Some("/y".into()));
    }

    #[test]
    fn a_flag_is_true_false_one_or_zero() {
        for (text, value) in [("true", true), ("1", true), ("true ", true), ("false", false), ("0", false)] {
            assert_eq!(settings(&[("verbose", text)]).unwrap().verbose, value, "{text:?}");
        }
        for text in ["yes", "TRUE", "", " "] {
            assert_eq!(settings(&[("verbose", text)]), Err(cannot_be_interpreted("verbose")), "{text:?}");
        }
    }

    #[test]
    fn a_time_limit_is_a_number_of_seconds_of_at_most_a_day() {
        let seconds = |name, text| {
            settings(&[(name, text)]).map(|settings| [settings.command_timeout, settings.fsfreeze_hook_timeout])
        };
        let (query, hook) = (QUERY_DEADLINE, HOOK_TIMEOUT);
        assert_eq!(seconds("command-timeout", "2.5"), Ok([Duration::from_millis(2500), hook]));
        assert_eq!(seconds("fsfreeze-hook-timeout", "2.5"), Ok([query, Duration::from_millis(2500)]));
        for name in ["command-timeout", "fsfreeze-hook-timeout"] {
            for text in ["", "0", "-1", "nan", "inf", "86401", "5s"] {
                assert_eq!(seconds(name, text), Err(cannot_be_interpreted(name)), "{name}={text}");
            }
        }
    }

    #[test]
    fn a_lease_may_be_without_end_and_a_freeze_takes_an_hour_at_most() {
        let lease = |text| settings(&[("fsfreeze-lease", text)]).map(|settings| settings.fsfreeze_lease);
        assert_eq!(lease("0"), Ok(None));
        assert_eq!(lease("90"), Ok(Some(Duration::from_secs(90))));
        assert_eq!(lease("-1"), Err(cannot_be_interpreted("fsfreeze-lease")));
        assert!(settings(&[("fsfreeze-timeout", "3600")]).is_ok());
        assert_eq!(settings(&[("fsfreeze-timeout", "3601")]), Err(cannot_be_interpreted("fsfreeze-timeout")));
    }

    #[test]
    fn only_serial_ports_have_a_default_path() {
        let path = |method| settings(&[("method", method)]).unwrap().complete().map(|settings| settings.path.unwrap());
        assert_eq!(path("virtio-serial"), Ok(DEFAULT_VIRTIO_PORT.into()));
        assert_eq!(path("isa-serial"), Ok(DEFAULT_SERIAL_LINE.into()));
        for method in ["unix-listen", "vsock-listen", "bogus", ""] {
            assert_eq!(path(method), Err("must specify a path for this channel".into()));
        }
    }

    #[test]
    fn a_printed_configuration_says_what_differs_from_the_defaults_of_our_own_keys() {
        let text = |settings: &Settings| String::from_utf8(settings.dump()).unwrap();
        assert_eq!(
            text(&Settings::default().complete().unwrap()),
            "[general]\ndaemon=false\nmethod=virtio-serial\npath=/dev/virtio-ports/org.qemu.guest_agent.0\n\
             pidfile=/var/run/qemu-ga.pid\nstatedir=/var/run\nverbose=false\nretry-path=false\nblock-rpcs=\n\
             allow-rpcs=\n"
        );
        for line in ["interfaces-exclude=veth*;docker0", "command-timeout=20", "fsfreeze-hook-timeout=5"] {
            let assignment = line.split_once('=').unwrap();
            assert!(text(&settings(&[assignment]).unwrap()).ends_with(&format!("\nallow-rpcs=\n{line}\n")));
        }
    }
}
