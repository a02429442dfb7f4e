//! What is published of the agent and compared with it: the sample configuration, the manual page, and the README's limits.
//!
//! The sample, `packaging/qemu-ga.conf`, is written by hand and describes each key once. The page, `docs/man/qgad.8`, is
//! made from the sample, from the options' help and from the limits; `UPDATE_DOCS=1 cargo test -p qgad published` writes
//! it and the limits anew.

mod limits;

use std::{
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use crate::config::{
    file::Source,
    options::{Documented, documented},
    settings::{KEYS, Settings, Takes},
};

const SAMPLE: &str = include_str!("../../../../packaging/qemu-ga.conf");

const DESCRIPTION: &str = "\
.B qgad
answers the commands of the host of a virtual machine, over a virtio-serial port, a serial line or a socket. It takes the
options, the configuration file and the state directory of
.BR qemu-ga ,
and can be used in its place. The host is root in the guest, by design: it may run programs, read and write files and set
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
As a service manager sets them: the agent tells when it is ready and what it is doing, gives signs of life in half the time
in which they are wanted, every five minutes under the units of the packages, and serves a listening socket that it is given.
.SH SIGNALS
SIGTERM and SIGINT end the agent at once. File systems that are frozen stay so for 30 seconds, in which another agent may
take them over; then they are thawed. Programs that hosts have started go on.
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
0 after a signal or when the port went away, 1 for what the agent cannot start or go on without; the log says what.
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
fn the_sample_shows_every_key_described() {
    let shown: Vec<_> = sample().iter().map(|sample| sample.key).collect();
    let keys: Vec<_> = KEYS.iter().map(|key| key.names[0]).collect();
    assert_eq!(shown, keys);
    for sample in sample() {
        assert!(!sample.description.is_empty(), "{} is not described", sample.key);
    }
}

#[test]
fn the_sample_changes_nothing_until_a_line_is_enabled_and_then_every_line_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let load = |contents: &str| {
        let path = directory.path().join("config");
        fs::write(&path, contents).unwrap();
        let mut settings = Settings::default();
        Source::choose(Some(path.into()), None).load(&mut settings).map(|()| settings)
    };
    assert_eq!(load(SAMPLE).unwrap(), Settings::default());
    for Sample { key, value, .. } in sample() {
        let settings = load(&format!("[general]\n{key}={value}\n")).unwrap_or_else(|error| panic!("{key}: {error}"));
        let says_its_value = !description_of(key).contains("unless said") && !["path", "logfile"].contains(&key);
        if says_its_value {
            let (shown, without) = (settings.dump(), Settings::default().dump());
            assert_eq!(shown, without, "the value shown for {key} is not the one without it");
        }
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
    for Documented { short, long, help, takes } in documented() {
        let short = short.map_or_else(String::new, |letter| format!("\\fB\\-{letter}\\fR, "));
        let value = match takes {
            Takes::Flag => "",
            Takes::Value | Takes::Commands => "=\\fIVALUE\\fR",
            Takes::ValueOr(_) => "[=\\fIVALUE\\fR]",
        };
        writeln!(page, ".TP\n{short}\\fB\\-\\-{}\\fR{value}\n{}", spell(long), spell(&help.join(" "))).unwrap();
    }
    page += ".SH CONFIGURATION\nThe file has these keys, in the group\n.BR [general] .\n";
    for Sample { key, value, description } in sample() {
        writeln!(page, ".TP\n.BR {} = {}\n{}", spell(key), spell(value), spell(&description.join("\n"))).unwrap();
    }
    page += ".SH LIMITS\n";
    for (what, limit) in limits::limits() {
        writeln!(page, ".TP\n{}\n{}", spell(&what.replace('`', "")), spell(&limit.replace('`', ""))).unwrap();
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

/// Text as roff reads it.
fn spell(text: &str) -> String {
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
