//! `qgactl doctor`: says in words what stands between here and an agent that does as it is asked.
//!
//! It looks from the near end to the far one, and stops where there is no way on: the socket's path, the connection, an
//! answer, what the agent knows, whether file systems are frozen, and which commands are refused in which words. Nothing
//! is changed in the guest: a command that is said to be refused is called with an argument that no command has.

use std::{
    collections::BTreeMap,
    fmt::Write,
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use nix::unistd::geteuid;
use qga::{
    client::Error,
    commands::{
        SPECS,
        freeze::{FreezeState, FreezeStatus},
        session::{self, AgentInfo},
    },
};
use serde_json::value::RawValue;

use super::print;
use crate::{
    connect::{Agent, Target},
    failure::Failure,
    render::piece,
};

/// Most commands that are asked about: more than any agent has.
const MAX_PROBES: usize = 200;
/// An argument that no command has: an agent that would serve the command says so and does nothing.
const NO_ARGUMENT: &str = "qgactl-doctor";

/// The words of an agent that refuses a command because file systems are frozen.
const FROZEN: &str = "the agent is in frozen state";

const WHERE_RULES_STAND: &str = "            \
in the guest: /etc/qemu/qemu-ga.conf, the agent's options -b and -a, /etc/sysconfig/qemu-ga; or it has no means for it\n";

/// Say what is wrong between here and the agent, if anything is
#[derive(Args, Debug)]
pub(crate) struct Doctor {}

impl Doctor {
    pub(crate) fn run(&self, target: &Target, timeout: Option<Duration>) -> anyhow::Result<ExitCode> {
        if let Some(path) = target.socket() {
            print(&describe_socket(path))?;
        }
        let begin = Instant::now();
        let mut agent = target.connect(timeout)?;
        print(&format!("agent       answers, after {:.0} ms\n", begin.elapsed().as_secs_f64() * 1000.0))?;
        let info = match agent.call(&session::Info {}) {
            Ok(info) => info,
            Err(Failure::Command { error: Error::Refused { desc, .. }, .. }) => {
                print(&format!("commands    cannot be told: {}\n", piece(&desc)))?;
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
        print(if refusals.is_empty() { "nothing is wrong\n" } else { "nothing else is wrong\n" })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What stands at the socket's path, and who may use it.
fn describe_socket(path: &Path) -> String {
    let us = geteuid();
    let place = path.display();
    match path.metadata() {
        Ok(found) if found.file_type().is_socket() => {
            let (owner, mode) = (found.uid(), found.mode() & 0o777);
            format!("socket      {place} is there, of user {owner} with mode {mode:04o}; this is user {us}\n")
        }
        Ok(_) => format!("socket      {place} is there, and is no socket\n"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let missing = path.ancestors().filter(|part| part.symlink_metadata().is_err()).last().unwrap_or(path);
            let leads_nowhere = path.symlink_metadata().is_ok();
            let what = if leads_nowhere { path } else { missing };
            let why = if leads_nowhere { "is a link that leads nowhere" } else { "does not exist" };
            format!("socket      {} {why}\n", what.display())
        }
        Err(error) => format!("socket      {place} cannot be looked at by user {us}: {error}\n"),
    }
}

/// How old the agent is, by what it does not know.
fn describe_age(info: &AgentInfo) -> String {
    let is_known = |name: &str| info.supported_commands.iter().any(|command| command.name == name);
    let unknown: Vec<_> = SPECS.iter().map(|spec| spec.name).filter(|name| !is_known(name)).collect();
    let mut text = format!("version     {}, {} commands\n", piece(&info.version), info.supported_commands.len());
    if !unknown.is_empty() {
        let _ = writeln!(text, "too old for {}", unknown.join(", "));
    }
    text
}

/// Which commands are refused, by the agent's words for why.
type Refusals = BTreeMap<String, Vec<String>>;

fn refusals(agent: &mut Agent, info: &AgentInfo) -> Result<Refusals, Failure> {
    let mut refusals = Refusals::new();
    for command in info.supported_commands.iter().filter(|command| !command.enabled).take(MAX_PROBES) {
        let why = piece(&why_refused(agent, &command.name)?);
        // Of a freeze the first one's time stands for all.
        let earlier = refusals.keys().find(|earlier| earlier.contains(FROZEN) && why.contains(FROZEN)).cloned();
        refusals.entry(earlier.unwrap_or(why)).or_default().push(piece(&command.name));
    }
    Ok(refusals)
}

/// That file systems are frozen, and for how long if the agent says so when it refuses a command.
fn describe_freeze(refusals: &Refusals) -> String {
    let mut times = refusals.keys().filter_map(|why| why.split_once(FROZEN)?.1.strip_prefix(" (")?.strip_suffix(')'));
    let time = times.next().map_or_else(String::new, |time| format!(" {time}"));
    format!("frozen      file systems are frozen{time}: whoever writes to them waits; `qgactl thaw` thaws them\n")
}

fn describe_refusals(refusals: &Refusals) -> String {
    let mut text = String::new();
    for (why, commands) in refusals {
        let _ = writeln!(text, "refused     {}\n            {why}", commands.join(", "));
    }
    // Ours names the rule, and where it stands, in parentheses.
    if refusals.keys().any(|why| !why.ends_with(')') && !why.contains("frozen")) {
        text += WHERE_RULES_STAND;
    }
    text
}

fn why_refused(agent: &mut Agent, name: &str) -> Result<String, Failure> {
    let arguments = [(NO_ARGUMENT.to_owned(), true.into())].into_iter().collect();
    match agent.client.call_as::<Box<RawValue>>(name, &arguments, Instant::now() + agent.reply_timeout) {
        Err(Error::Refused { class, desc }) if class == "CommandNotFound" => {
            Ok(desc.replace(&format!("Command {name} "), "").replace(&format!("The command {name} "), ""))
        }
        Ok(_) | Err(Error::Refused { .. }) => Ok("is said to be refused, and is not".into()),
        Err(error) => Err(Failure::Command { name: name.into(), error }),
    }
}
