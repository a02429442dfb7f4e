//! `qgactl doctor`: diagnoses the path from this host to a working agent.
//!
//! It checks from the near end to the far one, and stops at the first failure: the socket's path, the connection, an
//! answer, the agent's commands, whether file systems are frozen, which commands are refused for which reason, and
//! which mounted file systems have no disk. If the disk was removed, qgad leaves the file system out of a freeze.
//! Nothing changes in the guest: a command that is reported as disabled is called with an argument that no command has.

use std::{
    collections::BTreeMap,
    fmt::Write,
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    process::ExitCode,
    time::Instant,
};

use clap::Args;
use nix::unistd::geteuid;
use qga::{
    client::Error,
    commands::{
        SPECS,
        freeze::{FreezeState, FreezeStatus},
        session::{self, AgentInfo},
        storage::GetFsinfo,
    },
};
use serde_json::value::RawValue;

use super::{Options, Subcommand, print};
use crate::{connect::Agent, failure::Failure, render::piece};

/// Most commands that are probed: more than any agent has.
const MAX_PROBES: usize = 200;
/// An argument that no command has: an agent that would run the command refuses it and does nothing.
const NO_ARGUMENT: &str = "qgactl-doctor";

/// Part of the error with which an agent refuses a command because file systems are frozen.
const FROZEN: &str = "the agent is in frozen state";

const LEFT_OUT: &str = "qgad leaves it out of a freeze; unmount it";

const WHERE_RULES_STAND: &str = "            \
in the guest: /etc/qemu/qemu-ga.conf, the agent's options -b and -a, /etc/sysconfig/qemu-ga; \
or it has no means for it\n";

/// Diagnose the connection, the agent and the commands it refuses
#[derive(Args, Debug)]
pub(crate) struct Doctor {}

impl Subcommand for Doctor {
    fn has_json(&self) -> bool {
        false
    }

    fn run(&self, options: &Options<'_>) -> anyhow::Result<ExitCode> {
        let Options { target, timeout, .. } = *options;
        if let Some(path) = target.socket()? {
            print(&describe_socket(&path))?;
        }
        let begin = Instant::now();
        let mut agent = target.connect(timeout)?;
        print(&format!("agent       answers, after {:.0} ms\n", begin.elapsed().as_secs_f64() * 1000.0))?;
        let info = match agent.call(&session::Info {}) {
            Ok(info) => info,
            Err(Failure::Command { error: Error::Refused { desc, .. }, .. }) => {
                print(&format!("commands    cannot be listed: {}\n", piece(&desc)))?;
                return Ok(ExitCode::FAILURE);
            }
            Err(failure) => return Err(failure.into()),
        };
        print(&describe_age(&info))?;
        let is_frozen = matches!(agent.call(&FreezeStatus {}), Ok(FreezeState::Frozen));
        let refusals = refusals(&mut agent, &info)?;
        if is_frozen {
            print(&describe_freeze(&refusals))?;
        }
        print(&describe_refusals(&refusals))?;
        if is_frozen {
            return Ok(ExitCode::FAILURE);
        }
        let without_disk = describe_without_disk(&mut agent)?;
        print(&without_disk)?;
        let is_well = refusals.is_empty() && without_disk.is_empty();
        print(if is_well { "nothing is wrong\n" } else { "nothing else is wrong\n" })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What is at the socket's path, and who may use it.
fn describe_socket(path: &Path) -> String {
    let us = geteuid();
    let place = path.display();
    match path.metadata() {
        Ok(found) if found.file_type().is_socket() => {
            let (owner, mode) = (found.uid(), found.mode() & 0o777);
            format!("socket      {place} exists, owner {owner}, mode {mode:04o}; qgactl runs as user {us}\n")
        }
        Ok(_) => format!("socket      {place} exists, but is not a socket\n"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let missing = path.ancestors().filter(|part| part.symlink_metadata().is_err()).last().unwrap_or(path);
            let leads_nowhere = path.symlink_metadata().is_ok();
            let what = if leads_nowhere { path } else { missing };
            let why = if leads_nowhere { "is a dangling symbolic link" } else { "does not exist" };
            format!("socket      {} {why}\n", what.display())
        }
        Err(error) => format!("socket      {place} cannot be examined by user {us}: {error}\n"),
    }
}

/// The agent's version, and the commands of the protocol it is too old for: those of qgad's own say nothing of age.
fn describe_age(info: &AgentInfo) -> String {
    let is_known = |name: &str| info.supported_commands.iter().any(|command| command.name == name);
    let of_protocol = SPECS.iter().map(|spec| spec.name).filter(|name| name.starts_with("guest-"));
    let unknown: Vec<_> = of_protocol.filter(|name| !is_known(name)).collect();
    let mut text = format!("version     {}, {} commands\n", piece(&info.version), info.supported_commands.len());
    if !unknown.is_empty() {
        let _ = writeln!(text, "too old for {}", unknown.join(", "));
    }
    text
}

/// The refused commands, by the agent's reason.
type Refusals = BTreeMap<String, Vec<String>>;

fn refusals(agent: &mut Agent, info: &AgentInfo) -> Result<Refusals, Failure> {
    let mut refusals = Refusals::new();
    for command in info.supported_commands.iter().filter(|command| !command.enabled).take(MAX_PROBES) {
        let why = piece(&why_refused(agent, &command.name)?);
        // All refusals because of a freeze count as one: only the elapsed time in them differs.
        let earlier = refusals.keys().find(|earlier| earlier.contains(FROZEN) && why.contains(FROZEN)).cloned();
        refusals.entry(earlier.unwrap_or(why)).or_default().push(piece(&command.name));
    }
    Ok(refusals)
}

/// For how many seconds file systems have been frozen, if the agent says so when it refuses this command.
pub(super) fn frozen_for(agent: &mut Agent, command: &str, deadline: Instant) -> Result<Option<u64>, Failure> {
    let why = why_refused_until(agent, command, deadline)?;
    Ok(time_of(&why).and_then(|time| time.strip_prefix("for ")?.strip_suffix(" s")?.parse().ok()))
}

/// How an agent's refusal says since when file systems are frozen: `for 35 s`.
fn time_of(why: &str) -> Option<&str> {
    why.split_once(FROZEN)?.1.strip_prefix(" (")?.strip_suffix(')')
}

/// That file systems are frozen, and for how long if the agent says so when it refuses a command.
fn describe_freeze(refusals: &Refusals) -> String {
    let time = refusals.keys().find_map(|why| time_of(why)).map_or_else(String::new, |time| format!(" {time}"));
    format!("frozen      file systems are frozen{time}: writes to them block; `qgactl thaw` thaws them\n")
}

fn describe_refusals(refusals: &Refusals) -> String {
    let mut text = String::new();
    for (why, commands) in refusals {
        let _ = writeln!(text, "refused     {}\n            {why}", commands.join(", "));
    }
    // qgad names the rule and its file in parentheses.
    if refusals.keys().any(|why| !why.ends_with(')') && !why.contains("frozen")) {
        text += WHERE_RULES_STAND;
    }
    text
}

/// The file systems whose device the guest's kernel does not have. Agents tell its numbers instead of its name then.
fn describe_without_disk(agent: &mut Agent) -> Result<String, Failure> {
    let file_systems = match agent.call(&GetFsinfo {}) {
        Ok(file_systems) => file_systems,
        // Why it is refused has been told.
        Err(Failure::Command { error: Error::Refused { .. }, .. }) => return Ok(String::new()),
        Err(failure) => return Err(failure),
    };
    let mut text = String::new();
    for one in file_systems.iter().filter(|one| one.disk.is_empty() && is_device_number(&one.name)) {
        let (mount_point, kind, number) = (piece(&one.mountpoint), piece(&one.kind), &one.name);
        let _ =
            writeln!(text, "no disk     {mount_point} ({kind} on device {number}): if its disk is gone, {LEFT_OUT}");
    }
    Ok(text)
}

fn is_device_number(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.split_once(':').is_some_and(|(major, minor)| is_number(major) && is_number(minor))
}

fn why_refused(agent: &mut Agent, name: &str) -> Result<String, Failure> {
    let timeout = agent.reply_timeout::<session::Info>();
    why_refused_until(agent, name, Instant::now() + timeout)
}

fn why_refused_until(agent: &mut Agent, name: &str, deadline: Instant) -> Result<String, Failure> {
    let arguments = [(NO_ARGUMENT.to_owned(), true.into())].into_iter().collect();
    match agent.client.call_as::<Box<RawValue>>(name, &arguments, deadline) {
        Err(Error::Refused { class, desc }) if class == "CommandNotFound" => {
            Ok(desc.replace(&format!("Command {name} "), "").replace(&format!("The command {name} "), ""))
        }
        Ok(_) | Err(Error::Refused { .. }) => Ok("is said to be refused, and is not".into()),
        Err(error) => Err(Failure::Command { name: name.into(), error }),
    }
}
