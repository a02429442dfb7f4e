//! Tests that the published documents match the agent: the sample configuration, the manual page, the README's limits.
//!
//! The sample, `packaging/qemu-ga.conf`, is written by hand and describes each key once. The page, `docs/man/qgad.8`,
//! is generated from the sample, the help text of the options and the limits. `UPDATE_DOCS=1 cargo test -p qgad
//! published` writes the page and the table of limits anew.

mod limits;

use std::{
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use crate::config::{
    file::ConfigFile,
    options::{DocumentedOption, documented_options},
    settings::{KEYS, Settings},
    values::ValueKind,
};

/// The words in the sample about a key whose line shows an example and not the default.
const NO_DEFAULT: &str = "Default:";
const SAMPLE: &str = include_str!("../../../../packaging/qemu-ga.conf");

const DESCRIPTION: &str = "\
.B qgad
runs commands for the host of a virtual machine, over a virtio-serial port, a serial line or a socket. It uses the
options, the configuration file and the state directory of
.BR qemu-ga ,
and can replace it. By design the host is root in the guest: it may run programs, read and write files and set
passwords, unless the keys
.B block-rpcs
and
.B allow-rpcs
say otherwise.
";

const REST: &str = "\
.SH ENVIRONMENT
.TP
.B QGA_CONF
The configuration file, unless
.B \\-\\-config
names one.
.TP
.BR NOTIFY_SOCKET \", \" WATCHDOG_USEC \", \" LISTEN_FDS
Set by a service manager. The agent reports when it is ready and what it is doing, sends two watchdog pings in each
watchdog timeout (one every five minutes with the units of the packages), and serves the listening socket that it
inherits.
.SH SIGNALS
SIGTERM and SIGINT end the agent at once. Frozen file systems stay frozen for 30 seconds, during which another agent can
take them over; then they are thawed. Programs that hosts have started keep running.
.SH FILES
.TP
.I /etc/qemu/qemu-ga.conf
The configuration.
.TP
.IR /etc/qemu/fsfreeze-hook \", \" /etc/qemu/fsfreeze-hook.d
The hooks that a bare
.B \\-F
enables.
.TP
.I /dev/virtio-ports/org.qemu.guest_agent.0
The port that hosts create.
.SH EXIT STATUS
0 after a signal, also while the agent waits for its port, or when the port went away; 1 if the agent could not start
or go on. The log has the reason.
.SH SEE ALSO
.BR qgactl (1)
";

/// One key as the sample shows it.
struct Sample {
    key: &'static str,
    value: &'static str,
    description: Vec<&'static str>,
}

/// The keys of the sample, in its order.
fn sample() -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut description = Vec::new();
    for line in SAMPLE.lines() {
        match (line.strip_prefix("# "), line.strip_prefix('#').and_then(|line| line.split_once('='))) {
            (Some(text), _) => description.push(text),
            (None, Some((key, value))) => {
                samples.push(Sample { key, value, description: std::mem::take(&mut description) });
            }
            (None, None) => description.clear(),
        }
    }
    samples
}

#[test]
fn the_sample_describes_every_key() {
    let shown: Vec<_> = sample().iter().map(|sample| sample.key).collect();
    let keys: Vec<_> = KEYS.iter().map(|key| key.names[0]).collect();
    assert_eq!(shown, keys);
    for sample in sample() {
        assert!(!sample.description.is_empty(), "{} is not described", sample.key);
    }
}

#[test]
fn the_sample_changes_nothing_and_each_of_its_lines_is_valid_and_shows_the_default_or_an_example() {
    let directory = tempfile::tempdir().unwrap();
    let load = |contents: &str| {
        let path = directory.path().join("config");
        fs::write(&path, contents).unwrap();
        let mut settings = Settings::default();
        ConfigFile::select(Some(path.into()), None).load(&mut settings).map(|()| settings)
    };
    assert_eq!(load(SAMPLE).unwrap(), Settings::default());
    for Sample { key, value, .. } in sample() {
        let settings = load(&format!("[general]\n{key}={value}\n")).unwrap_or_else(|error| panic!("{key}: {error}"));
        let shows_default = !description_of(key).contains(NO_DEFAULT);
        assert_eq!(settings.dump() == Settings::default().dump(), shows_default, "{key}");
    }
}

fn description_of(key: &str) -> String {
    sample().iter().find(|sample| sample.key == key).map(|sample| sample.description.join(" ")).unwrap_or_default()
}

#[test]
fn the_manual_page_is_current() {
    let mut page =
        format!(".TH QGAD 8 \"\" \"qgad {}\"\n.SH NAME\nqgad \\- QEMU guest agent\n", env!("CARGO_PKG_VERSION"));
    page += ".SH SYNOPSIS\n.B qgad\n.RI [ OPTION ...]\n.SH DESCRIPTION\n";
    page += DESCRIPTION;
    page += ".SH OPTIONS\n";
    for DocumentedOption { short, long, help, kind } in documented_options() {
        let short = short.map_or_else(String::new, |letter| format!("\\fB\\-{letter}\\fR, "));
        let value = match kind {
            ValueKind::Flag => "",
            ValueKind::Value | ValueKind::Commands => "=\\fIVALUE\\fR",
            ValueKind::OptionalValue(_) => "[=\\fIVALUE\\fR]",
        };
        writeln!(page, ".TP\n{short}\\fB\\-\\-{}\\fR{value}\n{}", roff(long), roff(&help.join(" "))).unwrap();
    }
    page += ".SH CONFIGURATION\nThe file has these keys, in the group\n.BR [general] .\n";
    for Sample { key, value, description } in sample() {
        writeln!(page, ".TP\n.BR {} = {}\n{}", roff(key), roff(value), roff(&description.join("\n"))).unwrap();
    }
    page += ".SH LIMITS\n";
    for (what, limit) in limits::limits() {
        writeln!(page, ".TP\n{}\n{}", roff(&what.replace('`', "")), roff(&limit.replace('`', ""))).unwrap();
    }
    page += REST;
    check("docs/man/qgad.8", &page);
}

#[test]
fn the_limits_in_the_readme_are_current() {
    const HEAD: &str = "| What | Limit |\n|---|---|\n";
    let readme = published("README.md");
    let (before, rest) = readme.split_once(HEAD).unwrap();
    let (_, behind) = rest.split_once("\n\n").unwrap();
    let mut page = format!("{before}{HEAD}");
    for (what, limit) in limits::limits() {
        writeln!(page, "| {what} | {limit} |").unwrap();
    }
    check("README.md", &format!("{page}\n{behind}"));
}

/// Escapes text for roff.
fn roff(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

#[track_caller]
fn check(name: &str, text: &str) {
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path(name), text).unwrap();
    }
    assert!(published(name) == text, "{name} is out of date: set UPDATE_DOCS=1, run this test again, review the diff");
}

fn published(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_default()
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}
