//! The command line, as getopt_long(3) parses it.
//!
//! Options may be in any order, glued together, or abbreviated as long as they stay unique. Arguments that are not
//! options are ignored. An option that prints something ends the parsing: options behind it are not looked at. The
//! options of settings come from [`KEYS`]; errors have getopt's words, because hosts and administrators know them.

use std::{ffi::OsString, fmt::Write, os::unix::ffi::OsStrExt, path::Path};

use lexopt::Arg;
use qga::commands::SPECS;

use super::{
    settings::{KEYS, Key, KeyOption, Settings},
    values::{Origin, ValueKind, split_names},
};

/// The column in which the help text of an option begins.
const HELP_COLUMN: usize = 20;

/// The options of a command line that runs something.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// The text for each setting, in the order given.
    settings: Vec<(&'static Key, OsString)>,
    /// The configuration file.
    pub(crate) config: Option<OsString>,
    /// Print the configuration instead of running.
    pub(crate) dump_conf: bool,
    /// Check the configuration instead of running.
    pub(crate) check_config: bool,
}

/// A command line, parsed.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// Run with these options.
    Run(Options),
    /// Print this on standard output.
    Print(String),
    /// The command line is invalid; the reason is for standard error.
    Invalid(String),
}

/// An option that is not a setting.
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
    /// Accepted because command lines written for other systems have it.
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

/// The definition of an option.
#[derive(Clone, Copy)]
enum Definition {
    Setting(&'static Key),
    Action(&'static Action),
}

impl Options {
    /// The names in the lists of commands.
    pub(crate) fn command_names(&self) -> impl Iterator<Item = String> {
        let lists = self.settings.iter().filter(|(key, _)| key.kind == ValueKind::Commands);
        lists.flat_map(|(_, list)| split_names(list.as_bytes()))
    }

    /// Applies the options to the settings of the configuration file.
    pub(crate) fn apply(&self, settings: &mut Settings) -> Result<(), String> {
        self.settings.iter().try_for_each(|(key, value)| settings.set(key, value, &Origin::CommandLine))
    }
}

/// Parses the command line; its first word is the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Parsed {
    let mut arguments = arguments.into_iter();
    let program = arguments.next().unwrap_or_default().to_string_lossy().into_owned();
    let mut parser = lexopt::Parser::from_args(arguments);
    // The value of -p=/x is =/x.
    parser.set_short_equals(false);
    let mut options = Options::default();
    match parse_options(&mut parser, &program, &mut options) {
        Ok(None) => Parsed::Run(options),
        Ok(Some(text)) => Parsed::Print(text),
        Err(reason) => Parsed::Invalid(format!("{program}: {reason}")),
    }
}

/// Adds to the options. Returns the text to print, if an option asks for one.
fn parse_options(parser: &mut lexopt::Parser, program: &str, options: &mut Options) -> Result<Option<String>, String> {
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        let (definition, name) = match argument {
            Arg::Value(_) => continue,
            Arg::Short(letter) => {
                let definition = find_short(letter).ok_or_else(|| format!("invalid option -- '{letter}'"))?;
                (definition, Name::Short(letter))
            }
            Arg::Long(text) => {
                let (definition, full) = find_long(text)?;
                (definition, Name::Long(full))
            }
        };
        match definition {
            Definition::Setting(key) => {
                let value = match key.kind {
                    ValueKind::Flag => name.refuse_value(parser).map(|()| "true".into())?,
                    ValueKind::Value | ValueKind::Commands => name.take_value(parser)?,
                    ValueKind::OptionalValue(default) => parser.optional_value().unwrap_or_else(|| default.into()),
                };
                if key.kind == ValueKind::Commands && (value == "help" || value == "?") {
                    return Ok(Some(SPECS.iter().map(|spec| format!("{}\n", spec.name)).collect()));
                }
                options.settings.push((key, value));
            }
            Definition::Action(action) => {
                let value = if action.takes_value {
                    Some(name.take_value(parser)?)
                } else {
                    name.refuse_value(parser).map(|()| None)?
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
    fn take_value(&self, parser: &mut lexopt::Parser) -> Result<OsString, String> {
        parser.value().map_err(|_| match self {
            Self::Short(letter) => format!("option requires an argument -- '{letter}'"),
            Self::Long(name) => format!("option '--{name}' requires an argument"),
        })
    }

    fn refuse_value(&self, parser: &mut lexopt::Parser) -> Result<(), String> {
        match self {
            Self::Long(name) if parser.optional_value().is_some() => {
                Err(format!("option '--{name}' doesn't allow an argument"))
            }
            _ => Ok(()),
        }
    }
}

fn find_short(letter: char) -> Option<Definition> {
    let key = key_options().find(|(_, option)| option.short == letter).map(|(key, _)| Definition::Setting(key));
    key.or_else(|| ACTIONS.iter().find(|action| action.short == Some(letter)).map(Definition::Action))
}

/// The option with this name, or else the only one whose name begins with it.
fn find_long(text: &str) -> Result<(Definition, &'static str), String> {
    let names =
        |(key, option): (_, &'static KeyOption)| option.long.iter().map(move |name| (Definition::Setting(key), *name));
    let keys = key_options().flat_map(names);
    let actions = ACTIONS.iter().map(|action| (Definition::Action(action), action.long));
    let candidates: Vec<_> =
        keys.chain(actions).filter(|(_, name)| !name.is_empty() && name.starts_with(text)).collect();
    if let Some(exact) = candidates.iter().find(|(_, name)| *name == text) {
        return Ok(*exact);
    }
    match candidates.as_slice() {
        [] => Err(format!("unrecognized option '--{text}'")),
        [first, others @ ..] if others.iter().all(|(definition, _)| definition.is_same_as(&first.0)) => Ok(*first),
        several => {
            let names: Vec<_> = several.iter().map(|(_, name)| format!("'--{name}'")).collect();
            Err(format!("option '--{text}' is ambiguous; possibilities: {}", names.join(" ")))
        }
    }
}

fn key_options() -> impl Iterator<Item = (&'static Key, &'static KeyOption)> {
    KEYS.iter().filter_map(|key| Some((key, key.option.as_ref()?)))
}

impl Definition {
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

/// An option as the help text and the manual page show it.
pub(crate) struct DocumentedOption {
    /// One letter.
    pub(crate) short: Option<char>,
    /// The long name.
    pub(crate) long: &'static str,
    /// The lines of the help text.
    pub(crate) help: &'static [&'static str],
    /// What the option takes.
    #[cfg_attr(not(test), expect(dead_code, reason = "the manual page shows it"))]
    pub(crate) kind: ValueKind,
}

/// The options that are documented, in the order of the help text.
pub(crate) fn documented_options() -> impl Iterator<Item = DocumentedOption> {
    let keys = key_options().map(|(key, &KeyOption { short, long, help })| DocumentedOption {
        short: Some(short),
        long: long[0],
        help,
        kind: key.kind,
    });
    keys.chain(ACTIONS.iter().filter(|action| !action.help.is_empty()).map(|action| DocumentedOption {
        short: action.short,
        long: action.long,
        help: action.help,
        kind: if action.takes_value { ValueKind::Value } else { ValueKind::Flag },
    }))
}

fn help(program: &str) -> String {
    let mut text = format!("Usage: {program} [-m <method> -p <path>] [<options>]\n{}", version());
    let name = Path::new(program).file_name().map_or_else(Default::default, |name| name.to_string_lossy());
    let _ = writeln!(text, "{name} answers the commands of this machine's host.\n");
    for DocumentedOption { short, long, help: lines, .. } in documented_options() {
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

    /// What a command line prints: the configuration that it makes, if nothing else; or the error.
    fn output(words: &[&str]) -> Result<String, String> {
        match parse(["qgad"].iter().chain(words).map(Into::into)) {
            Parsed::Run(options) => {
                let mut settings = Settings::default();
                options.apply(&mut settings)?;
                Ok(String::from_utf8(settings.dump()).unwrap())
            }
            Parsed::Print(text) => Ok(text),
            Parsed::Invalid(reason) => Err(reason),
        }
    }

    fn check_contains(words: &[&str], expected: &[&str]) {
        let text = output(words).unwrap();
        for expected in expected {
            assert!(text.lines().any(|line| line == *expected), "{words:?} gives {text}");
        }
    }

    #[test]
    fn options_may_be_in_any_order_glued_together_or_abbreviated() {
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
    fn an_equals_sign_glued_to_a_short_option_is_part_of_its_value() {
        check_contains(
            &["-p=/x", "-b=guest-ping", "-F=/h"],
            &["path==/x", "block-rpcs==guest-ping", "fsfreeze-hook==/h"],
        );
        check_contains(&["--path=/x", "-p", "="], &["path=="]);
        assert_eq!(output(&["-v=1"]), Err("qgad: invalid option -- '='".into()));
    }

    #[test]
    fn a_list_grows_by_each_of_its_options() {
        check_contains(&["-b", "a,b", "--blacklist=c", "--bl", "d"], &["block-rpcs=a;b;c;d"]);
        check_contains(&["-a", "a", "--allow", "b"], &["allow-rpcs=a;b"]);
    }

    #[test]
    fn an_invalid_command_line_is_refused_in_getopts_words() {
        let check = |words: &[&str], reason: &str| assert_eq!(output(words), Err(format!("qgad: {reason}")));
        check(&["-Z"], "invalid option -- 'Z'");
        check(&["--foo"], "unrecognized option '--foo'");
        check(&["--service", "x"], "unrecognized option '--service'");
        check(&["-m"], "option requires an argument -- 'm'");
        check(&["--method"], "option '--method' requires an argument");
        check(&["--verb=1"], "option '--verbose' doesn't allow an argument");
        check(&["--p", "x"], "option '--p' is ambiguous; possibilities: '--path' '--pidfile'");
    }

    #[test]
    fn an_option_that_prints_ends_the_parsing() {
        assert_eq!(output(&["-V", "-Z"]), Ok(version()));
        assert!(output(&["-Z", "-V"]).is_err());
        let names: String = SPECS.iter().map(|spec| format!("{}\n", spec.name)).collect();
        assert_eq!(output(&["-b", "help", "-Z"]), Ok(names.clone()));
        assert_eq!(output(&["-a", "?"]), Ok(names));
    }

    #[test]
    fn the_help_names_every_option() {
        let text = output(&["-h"]).unwrap();
        let about_the_hook = text.lines().rfind(|line| line.contains("fsfreeze-hook")).unwrap();
        assert!(about_the_hook.ends_with("/etc/qemu/fsfreeze-hook)"), "hosts' test suites read the default here");
        for (_, option) in key_options() {
            assert!(text.contains(&format!("--{}", option.long[0])), "{}", option.long[0]);
        }
    }
}
