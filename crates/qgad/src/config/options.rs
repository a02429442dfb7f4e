//! The command line, as getopt_long reads it.
//!
//! Options may be given in any order, glued together or abbreviated as long as they stay unique; words that are no
//! option are passed over. Options that print something end the reading where they stand. The settings' options are
//! derived from [`KEYS`]; what is wrong is said in getopt's words.

use std::{ffi::OsString, fmt::Write, os::unix::ffi::OsStrExt, path::Path};

use lexopt::Arg;
use qga::commands::SPECS;

use crate::config::settings::{KEYS, Key, Origin, Settings, Takes, split_names};

/// Where the help text of an option begins.
const HELP_COLUMN: usize = 20;

/// What the command line asks for.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Settings, in the order given.
    settings: Vec<(&'static Key, OsString)>,
    /// The configuration file.
    pub(crate) config: Option<OsString>,
    /// Print the configuration instead of running.
    pub(crate) dump_conf: bool,
    /// Check the configuration instead of running.
    pub(crate) check_config: bool,
}

/// What came of reading the command line.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// To be carried out.
    Read(Options),
    /// This was asked for, on standard output.
    Print(String),
    /// This is wrong, on standard error.
    Wrong(String),
}

/// An option that is no setting.
struct Action {
    short: Option<char>,
    long: &'static str,
    takes_value: bool,
    help: &'static [&'static str],
    kind: ActionKind,
}

#[derive(Clone, Copy)]
enum ActionKind {
    Config,
    DumpConf,
    CheckConfig,
    Version,
    Help,
    /// Accepted because service files for other systems have it.
    Ignore,
}

static ACTIONS: &[Action] = &[
    Action {
        short: Some('c'),
        long: "config",
        takes_value: true,
        help: &["configuration file (default is /etc/qemu/qemu-ga.conf,", "or the value of QGA_CONF)"],
        kind: ActionKind::Config,
    },
    Action {
        short: Some('D'),
        long: "dump-conf",
        takes_value: false,
        help: &["print the configuration that the options and the", "configuration file make, and exit"],
        kind: ActionKind::DumpConf,
    },
    Action {
        short: None,
        long: "check-config",
        takes_value: false,
        help: &["print which commands are allowed and why, and every", "mistake in the configuration file, and exit"],
        kind: ActionKind::CheckConfig,
    },
    Action {
        short: Some('V'),
        long: "version",
        takes_value: false,
        help: &["print the version and exit"],
        kind: ActionKind::Version,
    },
    Action {
        short: Some('h'),
        long: "help",
        takes_value: false,
        help: &["print this help and exit"],
        kind: ActionKind::Help,
    },
    Action { short: Some('s'), long: "", takes_value: true, help: &[], kind: ActionKind::Ignore },
];

#[derive(Clone, Copy)]
enum Meaning {
    Setting(&'static Key),
    Action(&'static Action),
}

impl Options {
    /// The names of commands that the command line puts in lists.
    pub(crate) fn commands(&self) -> impl Iterator<Item = String> {
        let lists = self.settings.iter().filter(|(key, _)| key.takes == Takes::Commands);
        lists.flat_map(|(_, list)| split_names(list.as_bytes()))
    }

    /// Adds what the command line says to what the configuration file said.
    pub(crate) fn apply(&self, settings: &mut Settings) -> Result<(), String> {
        self.settings.iter().try_for_each(|(key, value)| settings.set(key, value, &Origin::CommandLine))
    }
}

/// Reads the command line; its first word is the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Outcome {
    let mut arguments = arguments.into_iter();
    let program = arguments.next().unwrap_or_default().to_string_lossy().into_owned();
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut options = Options::default();
    match read(&mut parser, &program, &mut options) {
        Ok(None) => Outcome::Read(options),
        Ok(Some(text)) => Outcome::Print(text),
        Err(reason) => Outcome::Wrong(format!("{program}: {reason}")),
    }
}

fn read(parser: &mut lexopt::Parser, program: &str, options: &mut Options) -> Result<Option<String>, String> {
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        let (meaning, name) = match argument {
            Arg::Value(_) => continue,
            Arg::Short(letter) => {
                (short(letter).ok_or_else(|| format!("invalid option -- '{letter}'"))?, Name::Short(letter))
            }
            Arg::Long(text) => {
                let (meaning, full) = long(text)?;
                (meaning, Name::Long(full))
            }
        };
        match meaning {
            Meaning::Setting(key) => {
                let value = match key.takes {
                    Takes::Flag => name.without_value(parser).map(|()| "true".into())?,
                    Takes::Value | Takes::Commands => name.value(parser)?,
                    Takes::ValueOr(default) => parser.optional_value().unwrap_or_else(|| default.into()),
                };
                if key.takes == Takes::Commands && (value == "help" || value == "?") {
                    return Ok(Some(SPECS.iter().map(|spec| format!("{}\n", spec.name)).collect()));
                }
                options.settings.push((key, value));
            }
            Meaning::Action(action) => {
                let value = if action.takes_value {
                    Some(name.value(parser)?)
                } else {
                    name.without_value(parser).map(|()| None)?
                };
                match action.kind {
                    ActionKind::Config => options.config = value,
                    ActionKind::DumpConf => options.dump_conf = true,
                    ActionKind::CheckConfig => options.check_config = true,
                    ActionKind::Version => return Ok(Some(version())),
                    ActionKind::Help => return Ok(Some(help(program))),
                    ActionKind::Ignore => {}
                }
            }
        }
    }
    Ok(None)
}

/// An option as getopt's messages name it.
enum Name {
    Short(char),
    Long(&'static str),
}

impl Name {
    fn value(&self, parser: &mut lexopt::Parser) -> Result<OsString, String> {
        parser.value().map_err(|_| match self {
            Self::Short(letter) => format!("option requires an argument -- '{letter}'"),
            Self::Long(name) => format!("option '--{name}' requires an argument"),
        })
    }

    fn without_value(&self, parser: &mut lexopt::Parser) -> Result<(), String> {
        match self {
            Self::Long(name) if parser.optional_value().is_some() => {
                Err(format!("option '--{name}' doesn't allow an argument"))
            }
            _ => Ok(()),
        }
    }
}

fn short(letter: char) -> Option<Meaning> {
    let key = KEYS.iter().find(|key| key.short == Some(letter)).map(Meaning::Setting);
    key.or_else(|| ACTIONS.iter().find(|action| action.short == Some(letter)).map(Meaning::Action))
}

/// The option of this name, or of the only name that begins with it.
fn long(text: &str) -> Result<(Meaning, &'static str), String> {
    let keys = KEYS.iter().flat_map(|key| key.long.iter().map(move |name| (Meaning::Setting(key), *name)));
    let actions = ACTIONS.iter().map(|action| (Meaning::Action(action), action.long));
    let candidates: Vec<_> =
        keys.chain(actions).filter(|(_, name)| !name.is_empty() && name.starts_with(text)).collect();
    if let Some(exact) = candidates.iter().find(|(_, name)| *name == text) {
        return Ok(*exact);
    }
    match candidates.as_slice() {
        [] => Err(format!("unrecognized option '--{text}'")),
        [first, others @ ..] if others.iter().all(|(meaning, _)| meaning.is_same_as(&first.0)) => Ok(*first),
        several => {
            let names: Vec<_> = several.iter().map(|(_, name)| format!("'--{name}'")).collect();
            Err(format!("option '--{text}' is ambiguous; possibilities: {}", names.join(" ")))
        }
    }
}

impl Meaning {
    fn is_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Setting(one), Self::Setting(other)) => std::ptr::eq(*one, *other),
            (Self::Action(one), Self::Action(other)) => std::ptr::eq(*one, *other),
            _ => false,
        }
    }
}

/// What `--version` prints; programs match the words before the number.
fn version() -> String {
    format!("QEMU Guest Agent {}\n", env!("CARGO_PKG_VERSION"))
}

/// An option as help texts show it.
pub(crate) struct Documented {
    /// Its one letter.
    pub(crate) short: Option<char>,
    /// Its name.
    pub(crate) long: &'static str,
    /// What it does, a line each.
    pub(crate) help: &'static [&'static str],
    /// What it takes.
    #[cfg_attr(not(test), expect(dead_code, reason = "the manual page shows it"))]
    pub(crate) takes: Takes,
}

/// The options that help texts show, in their order.
pub(crate) fn documented() -> impl Iterator<Item = Documented> {
    let keys = KEYS.iter().filter(|key| !key.help.is_empty());
    let keys = keys.map(|key| Documented { short: key.short, long: key.long[0], help: key.help, takes: key.takes });
    keys.chain(ACTIONS.iter().filter(|action| !action.help.is_empty()).map(|action| Documented {
        short: action.short,
        long: action.long,
        help: action.help,
        takes: if action.takes_value { Takes::Value } else { Takes::Flag },
    }))
}

fn help(program: &str) -> String {
    let mut text = format!("Usage: {program} [-m <method> -p <path>] [<options>]\n{}", version());
    let name = Path::new(program).file_name().map_or_else(Default::default, |name| name.to_string_lossy());
    let _ = writeln!(text, "{name} answers the commands of this machine's host.\n");
    for Documented { short, long, help: lines, .. } in documented() {
        let short = short.map_or_else(|| "    ".into(), |letter| format!("-{letter}, "));
        let option = format!("  {short}--{long}");
        let (mut left, mut lines) = (option.as_str(), lines.iter());
        if left.len() < HELP_COLUMN
            && let Some(line) = lines.next()
        {
            let _ = writeln!(text, "{left:<HELP_COLUMN$}{line}");
            left = "";
        }
        if !left.is_empty() {
            let _ = writeln!(text, "{left}");
        }
        for line in lines {
            let _ = writeln!(text, "{:HELP_COLUMN$}{line}", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The settings that a command line makes, as its configuration would be printed; or what it prints, or is told.
    fn outcome(words: &[&str]) -> Result<String, String> {
        match parse(["qgad"].iter().chain(words).map(Into::into)) {
            Outcome::Read(options) => {
                let mut settings = Settings::default();
                options.apply(&mut settings)?;
                Ok(String::from_utf8(settings.dump()).unwrap())
            }
            Outcome::Print(text) => Ok(text),
            Outcome::Wrong(reason) => Err(reason),
        }
    }

    fn check_contains(words: &[&str], expected: &[&str]) {
        let text = outcome(words).unwrap();
        for expected in expected {
            assert!(text.lines().any(|line| line == *expected), "{words:?} gives {text}");
        }
    }

    #[test]
    fn options_are_given_in_any_order_glued_or_abbreviated() {
        check_contains(&["-m", "unix-listen", "-p/x"], &["method=unix-listen", "path=/x"]);
        check_contains(&["stray", "-vdr", "more"], &["verbose=true", "daemon=true", "retry-path=true"]);
        check_contains(&["--meth=x", "--stat", "/s", "--verb"], &["method=x", "statedir=/s", "verbose=true"]);
        check_contains(&["--", "-v"], &["verbose=false"]);
        check_contains(&["-s", "install"], &["verbose=false"]);
    }

    #[test]
    fn the_hook_must_be_glued_to_its_option() {
        check_contains(&["-F/x"], &["fsfreeze-hook=/x"]);
        check_contains(&["--fsfreeze-hook=/x"], &["fsfreeze-hook=/x"]);
        check_contains(&["-F", "/x"], &["fsfreeze-hook=/etc/qemu/fsfreeze-hook"]);
    }

    #[test]
    fn lists_grow_under_all_their_names() {
        check_contains(&["-b", "a,b", "--blacklist=c", "--bl", "d"], &["block-rpcs=a;b;c;d"]);
        check_contains(&["-a", "a", "--allow", "b"], &["allow-rpcs=a;b"]);
    }

    #[test]
    fn what_is_wrong_is_said_in_getopts_words() {
        let check = |words: &[&str], reason: &str| assert_eq!(outcome(words), Err(format!("qgad: {reason}")));
        check(&["-Z"], "invalid option -- 'Z'");
        check(&["--foo"], "unrecognized option '--foo'");
        check(&["--service", "x"], "unrecognized option '--service'");
        check(&["-m"], "option requires an argument -- 'm'");
        check(&["--method"], "option '--method' requires an argument");
        check(&["--verb=1"], "option '--verbose' doesn't allow an argument");
        check(&["--p", "x"], "option '--p' is ambiguous; possibilities: '--path' '--pidfile'");
    }

    #[test]
    fn an_option_that_prints_ends_the_reading_where_it_stands() {
        assert_eq!(outcome(&["-V", "-Z"]), Ok(version()));
        assert!(outcome(&["-Z", "-V"]).is_err());
        assert_eq!(outcome(&["-b", "help"]).unwrap().lines().count(), SPECS.len());
        assert_eq!(outcome(&["-a", "?"]).unwrap().lines().next(), Some("guest-sync-delimited"));
    }

    #[test]
    fn the_help_names_every_option() {
        let text = outcome(&["-h"]).unwrap();
        let about_the_hook = text.lines().rfind(|line| line.contains("fsfreeze-hook")).unwrap();
        assert!(about_the_hook.ends_with("/etc/qemu/fsfreeze-hook)"), "hosts' test suites read the default here");
        for name in KEYS.iter().filter_map(|key| key.long.first()) {
            assert!(text.contains(&format!("--{name}")), "{name}");
        }
    }
}
