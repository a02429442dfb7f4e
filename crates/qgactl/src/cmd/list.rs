//! `qgactl list`: the machines of this host and their agents.
//!
//! All agents are asked at once, for their version and whether file systems are frozen. Each has the timeout to answer
//! all of it, so that a host full of dead agents takes no longer than a single one. A socket that somebody else holds
//! is left alone: QEMU would only serve us when that one leaves.

use std::{
    io::Write,
    process::ExitCode,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use qga::{
    Command,
    client::Error,
    commands::{
        freeze::{FreezeState, FreezeStatus},
        session::Info,
        system::GetHostName,
    },
};
use serde_json::{Value, json};

use super::{Options, Subcommand, doctor, print};
use crate::{
    connect::Target,
    failure::{self, Failure},
    table::table,
    target::{
        discovery::{self, Host, Machine, Manager},
        holder::{Connections, Holder},
    },
};

/// How long an agent may take to answer all questions, unless `--timeout` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Most agents that are asked at the same time: each takes a thread and a connection.
const MAX_ASKED: usize = 128;

/// List the virtual machines of this host, how each is reached, and what its agent says
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Print the names only, and ask no agent
    #[arg(long)]
    names: bool,
}

/// What is known of a machine.
#[derive(Debug)]
struct Entry {
    machine: Machine,
    holder: Option<Holder>,
    agent: Result<Agent, String>,
}

/// What an agent has said.
#[derive(Debug, PartialEq, Eq)]
struct Agent {
    version: String,
    frozen: Option<Frozen>,
}

/// Since when file systems are frozen, in seconds, if the agent says so.
#[derive(Debug, PartialEq, Eq)]
struct Frozen(Option<u64>);

impl Subcommand for List {
    fn has_json(&self) -> bool {
        true
    }

    fn run(&self, options: &Options<'_>) -> anyhow::Result<ExitCode> {
        let machines = discovery::machines(&Host::this());
        if self.names {
            print(&machines.iter().map(|machine| format!("{}\n", machine.name)).collect::<String>())?;
            return Ok(ExitCode::SUCCESS);
        }
        let entries = ask_all(machines, options.timeout.unwrap_or(TIMEOUT));
        if options.json {
            writeln!(std::io::stdout(), "{}", Value::from_iter(entries.iter().map(in_json)))?;
        } else {
            print(&describe(&entries))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Asks all agents at once, and returns the entries in the order of the machines.
fn ask_all(machines: Vec<Machine>, timeout: Duration) -> Vec<Entry> {
    let connections = Connections::now();
    let threads = machines.len().min(MAX_ASKED);
    let entries: Mutex<Vec<Option<Entry>>> = Mutex::new((0..machines.len()).map(|_| None).collect());
    let rest = Mutex::new(machines.into_iter().enumerate());
    let work = || {
        loop {
            let Some((index, machine)) = rest.lock().ok().and_then(|mut rest| rest.next()) else { return };
            let socket = machine.agent.as_ref().ok().and_then(|address| address.qemu_socket());
            let holder = socket.and_then(|socket| connections.holder(socket));
            let agent = match &holder {
                Some(holder) => Err(format!("its socket is held by {holder}")),
                None => Target::of_machine(machine.clone()).and_then(|target| ask(&target, timeout)).map_err(summary),
            };
            if let Ok(mut entries) = entries.lock() {
                entries[index] = Some(Entry { machine, holder, agent });
            }
        }
    };
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    entries.into_inner().unwrap_or_default().into_iter().flatten().collect()
}

fn ask(target: &Target, timeout: Duration) -> Result<Agent, Failure> {
    let deadline = Instant::now() + timeout;
    let mut agent = target.connect(Some(timeout))?;
    let version = agent.call_until(&Info {}, deadline)?.version;
    let frozen = match agent.call_until(&FreezeStatus {}, deadline) {
        Ok(FreezeState::Frozen) => Some(Frozen(doctor::frozen_for(&mut agent, GetHostName::SPEC.name, deadline)?)),
        Ok(FreezeState::Thawed) | Err(Failure::Command { error: Error::Refused { .. }, .. }) => None,
        Err(failure) => return Err(failure),
    };
    Ok(Agent { version, frozen })
}

/// What is wrong, without the machine's name, which stands beside it.
fn summary(failure: Failure) -> String {
    match failure {
        Failure::Unreachable { why, .. } => why,
        Failure::Silent { .. } => "no agent answers".into(),
        Failure::NoConnection { error, .. } => failure::reason(&error),
        failure => failure.to_string(),
    }
}

fn describe(entries: &[Entry]) -> String {
    let rows: Vec<_> = entries
        .iter()
        .map(|Entry { machine, agent, .. }| {
            let address = machine.agent.as_ref().map_or_else(|_| "-".into(), ToString::to_string);
            let (version, state) = match agent {
                Ok(Agent { version, frozen: None }) => (version.clone(), "thawed".into()),
                Ok(Agent { version, frozen: Some(Frozen(None)) }) => (version.clone(), "frozen".into()),
                Ok(Agent { version, frozen: Some(Frozen(Some(time))) }) => {
                    (version.clone(), format!("frozen for {time} s"))
                }
                Err(why) => ("-".into(), why.clone()),
            };
            vec![machine.name.clone(), machine.manager.to_string(), address, version, state]
        })
        .collect();
    table(&["name", "manager", "address", "agent", "state"], &rows)
}

fn in_json(Entry { machine, holder, agent }: &Entry) -> Value {
    let mut entry = json!({
        "name": machine.name,
        "pid": machine.pid,
        "manager": match &machine.manager {
            Manager::None => "none",
            Manager::Libvirt { .. } => "libvirt",
            Manager::Proxmox { .. } => "proxmox",
        },
    });
    let mut add = |key: &str, value: Value| entry[key] = value;
    match &machine.manager {
        Manager::None => {}
        Manager::Libvirt { uri } => add("uri", (*uri).into()),
        Manager::Proxmox { number } => add("number", number.as_str().into()),
    }
    if let Some(uuid) = &machine.uuid {
        add("uuid", uuid.as_str().into());
    }
    if let Ok(address) = &machine.agent {
        add("address", address.to_string().into());
    }
    if let Some(holder) = holder {
        let (pid, program) = holder.process.clone().unzip();
        add("held-by", json!({ "pid": pid, "program": program }));
    }
    match agent {
        Ok(Agent { version, frozen }) => {
            add("version", version.as_str().into());
            add("frozen", frozen.is_some().into());
            if let Some(Frozen(Some(time))) = frozen {
                add("frozen-seconds", (*time).into());
            }
        }
        Err(why) => add("problem", why.as_str().into()),
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::address::Address;

    fn entries() -> Vec<Entry> {
        let machine = |name: &str, manager, agent: Result<&str, &str>| Machine {
            name: name.into(),
            uuid: Some(format!("uuid-{name}")),
            manager,
            pid: 7,
            agent: agent.map(|path| Address::Unix(path.into())).map_err(Into::into),
        };
        let agent = |frozen| Ok(Agent { version: "1.2".into(), frozen });
        let holder = Holder { process: Some((9, "socat".into())) };
        let proxmox = Manager::Proxmox { number: "100".into() };
        let libvirt = Manager::Libvirt { uri: "qemu:///system" };
        vec![
            Entry {
                machine: machine("db", proxmox, Ok("/run/db")),
                holder: None,
                agent: agent(Some(Frozen(Some(35)))),
            },
            Entry {
                machine: machine("deaf", Manager::None, Err("has no port")),
                holder: None,
                agent: Err("has no port".into()),
            },
            Entry {
                machine: machine("held", Manager::None, Ok("/run/held")),
                holder: Some(holder),
                agent: Err("its socket is held by socat (9)".into()),
            },
            Entry { machine: machine("web", libvirt, Ok("/run/web")), holder: None, agent: agent(None) },
        ]
    }

    #[test]
    fn a_machine_is_a_row_with_its_address_and_what_is_wrong() {
        let expected = "\
name  manager                 address         agent  state
db    Proxmox 100             unix:/run/db    1.2    frozen for 35 s
deaf  -                       -               -      has no port
held  -                       unix:/run/held  -      its socket is held by socat (9)
web   libvirt qemu:///system  unix:/run/web   1.2    thawed
";
        assert_eq!(describe(&entries()), expected);
    }

    #[test]
    fn json_has_only_what_is_known() {
        let json: Vec<_> = entries().iter().map(in_json).collect();
        let frozen = json!({
            "name": "db", "pid": 7, "manager": "proxmox", "number": "100", "uuid": "uuid-db", "address": "unix:/run/db",
            "version": "1.2", "frozen": true, "frozen-seconds": 35,
        });
        let deaf =
            json!({ "name": "deaf", "pid": 7, "manager": "none", "uuid": "uuid-deaf", "problem": "has no port" });
        assert_eq!((&json[0], &json[1]), (&frozen, &deaf));
        assert_eq!(json[2]["held-by"], json!({ "pid": 9, "program": "socat" }));
        assert_eq!(json[3]["uri"], "qemu:///system");
    }
}
