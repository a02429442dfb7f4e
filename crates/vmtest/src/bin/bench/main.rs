//! Measures our agent against Debian's, in one run, with one client.
//!
//! Each figure is the lower quartile of samples taken in turns, so that other load of the machine affects both alike.
//! Where the machine itself is the limit there is a floor: a server that only sends each line back.
//! `bench OURS [THEIRS]` prints the table; with `--write FILE` it also goes there, with the machine described.
//! Absolute figures are this machine's; what is promised is the ratios.

mod agent;
mod cases;
mod client;
mod jobs;
mod metrics;
mod mounts;
mod namespace;
mod network;
mod port;
mod report;
mod sysfs;

use std::{ffi::OsString, path::PathBuf};

use anyhow::{Context, bail};
use lexopt::{Arg, Parser};

use self::agent::Binary;

/// Where Debian installs the reference agent.
const REFERENCE: &str = "/usr/sbin/qemu-ga";

fn main() -> anyhow::Result<()> {
    let mut arguments = Parser::from_env();
    let mut binaries: Vec<OsString> = Vec::new();
    let mut output: Option<PathBuf> = None;
    let mut only = None;
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("echo") => return agent::serve_echo(&PathBuf::from(arguments.value()?)),
            Arg::Long("write") => output = Some(arguments.value()?.into()),
            Arg::Long("only") => only = Some(arguments.value()?.to_string_lossy().into_owned()),
            Arg::Value(binary) => binaries.push(binary),
            other => return Err(other.unexpected().into()),
        }
    }
    let (ours, theirs) = match &binaries[..] {
        [ours] => (ours.clone(), REFERENCE.into()),
        [ours, theirs] => (ours.clone(), theirs.clone()),
        _ => bail!("usage: bench [--write FILE] [--only ROW] OURS [THEIRS]"),
    };
    let ours = Binary::agent(ours.as_ref())?;
    let theirs = Binary::agent(theirs.as_ref()).context("Debian's package qemu-guest-agent has the reference")?;
    let rows = cases::measure(&ours, &theirs, only.as_deref())?;
    let report = report::format_report(&rows, &ours, &theirs)?;
    println!("{report}");
    if let Some(path) = output {
        std::fs::write(&path, report).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}
