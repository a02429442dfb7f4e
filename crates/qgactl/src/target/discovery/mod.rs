//! The virtual machines of this host, and the choice of one by its name.
//!
//! Every running QEMU is a machine ([`qemu`]); libvirt and Proxmox VE add what they call it. libvirt's are reached
//! through it, because it keeps a connection to each agent. The names are claims of
//! the command lines of processes, and any user of the host can start a process: so a name that fits several machines
//! is never decided by a guess.

mod host;
mod libvirt;
mod properties;
mod proxmox;
mod qemu;

use std::fmt;

pub(crate) use self::host::Host;
use self::qemu::{Qemu, Unreachable};
use super::address::Address;

/// Most machines that an error lists.
const MAX_LISTED: usize = 20;

/// A running virtual machine.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// What people call it. One without a name is called by its process.
    pub(crate) name: String,
    /// In lower case.
    pub(crate) uuid: Option<String>,
    /// Who runs it.
    pub(crate) manager: Manager,
    /// The process of its QEMU.
    pub(crate) pid: u32,
    /// Where its agent is, or why it cannot be reached, as the end of a sentence about the machine.
    pub(crate) agent: Result<Address, String>,
}

/// Who runs a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    /// Whoever has started its QEMU.
    None,
    /// libvirt, at this URI.
    Libvirt { uri: &'static str },
    /// Proxmox VE, under this number.
    Proxmox { number: String },
}

/// Why no machine was chosen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotChosen {
    /// There is none with this name, or none at all.
    Absent(String),
    /// There are several.
    Ambiguous(String),
}

/// All machines of a host, in the order of their names.
pub(crate) fn machines(host: &Host) -> Vec<Machine> {
    let mut machines: Vec<_> = qemu::running(host).into_iter().map(machine).collect();
    machines.sort_by(|one, other| (&one.name, one.pid).cmp(&(&other.name, other.pid)));
    machines
}

fn machine(qemu: Qemu) -> Machine {
    let Qemu { pid, user, name, uuid, agent, options } = qemu;
    let (manager, hint) = match (libvirt::uri(&options), proxmox::number(&options)) {
        (Some(uri), _) => (Manager::Libvirt { uri }, "; `virsh edit` adds the channel"),
        (None, Some(number)) => (Manager::Proxmox { number }, "; the option \"QEMU Guest Agent\" adds it"),
        (None, None) => (Manager::None, ""),
    };
    let name = name.unwrap_or_else(|| format!("process {pid}"));
    let agent = match (&manager, agent) {
        (_, Err(Unreachable::NoPort(why))) => Err(why + hint),
        (Manager::Libvirt { uri }, _) => libvirt::address(uri, user, &name, uuid.as_deref()),
        (_, agent) => agent.map_err(|why| why.to_string()),
    };
    Machine { name, uuid, manager, pid, agent }
}

/// The machine with this name: that of its command line, its UUID in whatever case, or Proxmox VE's number.
pub(crate) fn choose(machines: Vec<Machine>, name: &str) -> Result<Machine, NotChosen> {
    let (mut named, others): (Vec<_>, Vec<_>) = machines.into_iter().partition(|machine| machine.is_named(name));
    match (named.pop(), named.is_empty()) {
        (Some(machine), true) => Ok(machine),
        (Some(last), false) => {
            named.push(last);
            Err(NotChosen::Ambiguous(format!("several machines are named {name}:{}", list(&named))))
        }
        (None, _) if others.is_empty() => {
            Err(NotChosen::Absent(format!("no machine is named {name}: no QEMU was found on this host")))
        }
        (None, _) => {
            Err(NotChosen::Absent(format!("no machine is named {name}, but these are here:{}", list(&others))))
        }
    }
}

/// Whether a name may stand for several machines.
pub(crate) fn is_pattern(name: &str) -> bool {
    name.contains([',', '*', '?'])
}

/// The machines with these names, which are separated by commas and may be patterns, in the order of their names. Each
/// name must have a machine, and one that is no pattern only one.
pub(crate) fn choose_several(machines: &[Machine], names: &str) -> Result<Vec<Machine>, NotChosen> {
    let mut chosen: Vec<Machine> = Vec::new();
    for name in names.split(',').filter(|name| !name.is_empty()) {
        let more = match is_pattern(name) {
            true => machines.iter().filter(|machine| matches(name, &machine.name)).cloned().collect(),
            false => vec![choose(machines.to_vec(), name)?],
        };
        if more.is_empty() {
            return Err(NotChosen::Absent(format!("no machine is named like {name}")));
        }
        chosen.extend(more);
    }
    chosen.sort_by(|one, other| (&one.name, one.pid).cmp(&(&other.name, other.pid)));
    chosen.dedup_by_key(|machine| machine.pid);
    match chosen.is_empty() {
        true => Err(NotChosen::Absent("no machine is named".into())),
        false => Ok(chosen),
    }
}

/// Whether a pattern fits a name: `*` stands for any characters, `?` for one. The time is that of one by the other.
fn matches(pattern: &str, name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    // Which beginnings of the name fit the pattern so far, by length.
    let mut fits = vec![false; name.len() + 1];
    fits[0] = true;
    for wanted in pattern.chars() {
        let mut next = vec![false; name.len() + 1];
        for length in 0..=name.len() {
            next[length] = match wanted {
                '*' => fits[length] || length > 0 && next[length - 1],
                '?' => length > 0 && fits[length - 1],
                wanted => length > 0 && fits[length - 1] && name[length - 1] == wanted,
            };
        }
        fits = next;
    }
    fits[name.len()]
}

/// The machine of a host that has just one.
pub(crate) fn only(mut machines: Vec<Machine>) -> Result<Machine, NotChosen> {
    match (machines.pop(), machines.is_empty()) {
        (Some(machine), true) => Ok(machine),
        (None, _) => Err(NotChosen::Absent("no machine is named, and no QEMU was found on this host".into())),
        (Some(last), false) => {
            machines.push(last);
            Err(NotChosen::Ambiguous(format!("no machine is named, and there are several:{}", list(&machines))))
        }
    }
}

/// A line for each machine.
fn list(machines: &[Machine]) -> String {
    let mut text: String = machines.iter().take(MAX_LISTED).map(|machine| format!("\n{machine}")).collect();
    if machines.len() > MAX_LISTED {
        text += &format!("\nand {} more", machines.len() - MAX_LISTED);
    }
    text
}

impl Machine {
    fn is_named(&self, name: &str) -> bool {
        let is_uuid = self.uuid.as_ref().is_some_and(|uuid| uuid.eq_ignore_ascii_case(name));
        let is_number = matches!(&self.manager, Manager::Proxmox { number } if number == name);
        self.name == name || is_uuid || is_number
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.name)?;
        if let Some(uuid) = &self.uuid {
            write!(formatter, ", UUID {uuid}")?;
        }
        if self.manager != Manager::None {
            write!(formatter, ", {}", self.manager)?;
        }
        match &self.agent {
            Ok(address) => write!(formatter, ", {address}"),
            Err(why) => write!(formatter, ", {why}"),
        }
    }
}

impl fmt::Display for Manager {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => formatter.write_str("-"),
            Self::Libvirt { uri } => write!(formatter, "libvirt {uri}"),
            Self::Proxmox { number } => write!(formatter, "Proxmox {number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: &str = "-device|virtserialport,chardev=c0,name=org.qemu.guest_agent.0|";

    /// A plain QEMU, one of libvirt with the same name, one of Proxmox, and one without a name or a port.
    fn host() -> (Host, tempfile::TempDir) {
        Host::from_text(&format!(
            "proc/1/cmdline: kvm|-name|web|-uuid|aa-1|-chardev|socket,id=c0,path=/run/web,server=on|{PORT}
             proc/2/cmdline: kvm|-name|guest=web|-uuid|aa-2|-chardev|socket,id=c0,path=/run/2,server=on|{PORT}\
             -object|secret,id=masterKey0,file=/var/lib/libvirt/qemu/domain-1-web/master-key.aes|
             proc/3/cmdline: /usr/bin/kvm|-id|100|-name|db|-pidfile|/var/run/qemu-server/100.pid|\
             -chardev|socket,path=/var/run/qemu-server/100.qga,server=on,wait=off,id=c0|{PORT}
             proc/4/cmdline: qemu-system-x86_64|"
        ))
    }

    fn check(name: &str, expected: Result<u32, &str>) {
        let (host, _directory) = host();
        let found = choose(machines(&host), name).map(|machine| machine.pid);
        let error = found.as_ref().err().map(|error| match error {
            NotChosen::Absent(text) | NotChosen::Ambiguous(text) => text.clone(),
        });
        assert_eq!(found.map_err(|_| error.as_deref().unwrap_or_default()), expected, "{name}");
    }

    #[test]
    fn a_machine_is_found_by_its_name_its_uuid_or_its_number() {
        check("db", Ok(3));
        check("100", Ok(3));
        check("aa-1", Ok(1));
        check("AA-2", Ok(2));
        check("process 4", Ok(4));
    }

    #[test]
    fn a_name_that_fits_several_machines_lists_them() {
        check(
            "web",
            Err("several machines are named web:\nweb, UUID aa-1, unix:/run/web\n\
                 web, UUID aa-2, libvirt qemu:///system, libvirt:qemu:///system#web"),
        );
    }

    #[test]
    fn a_name_that_fits_none_lists_all() {
        check(
            "we",
            Err("no machine is named we, but these are here:\ndb, Proxmox 100, unix:/var/run/qemu-server/100.qga\n\
                 process 4, has no port org.qemu.guest_agent.0\nweb, UUID aa-1, unix:/run/web\n\
                 web, UUID aa-2, libvirt qemu:///system, libvirt:qemu:///system#web"),
        );
        let nobody = NotChosen::Absent("no machine is named x: no QEMU was found on this host".into());
        assert_eq!(choose(Vec::new(), "x").unwrap_err(), nobody);
    }

    #[test]
    fn a_pattern_fits_whole_names() {
        let check = |pattern, name, expected| assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        for (pattern, name) in [("*", ""), ("web*", "web"), ("web*", "web1"), ("w?b", "wéb"), ("*b*1", "web-b11")] {
            check(pattern, name, true);
        }
        for (pattern, name) in [("?", ""), ("web*", "aweb"), ("w?b", "wb"), ("*1", "web12"), ("", "a")] {
            check(pattern, name, false);
        }
        check(&"*a".repeat(1000), &"a".repeat(500), false);
    }

    #[test]
    fn several_names_choose_each_machine_once() {
        let (host, _directory) = host();
        let choose = |names| {
            let chosen = choose_several(&machines(&host), names);
            chosen.map(|machines| machines.iter().map(|machine| machine.pid).collect::<Vec<_>>())
        };
        assert_eq!(choose("w*,db,100,"), Ok(vec![3, 1, 2]));
        assert_eq!(choose("d?,aa-1"), Ok(vec![3, 1]));
        assert!(matches!(choose("db,x"), Err(NotChosen::Absent(_))));
        assert_eq!(choose("x*"), Err(NotChosen::Absent("no machine is named like x*".into())));
        assert!(matches!(choose("db,web"), Err(NotChosen::Ambiguous(_))));
        assert_eq!(choose(","), Err(NotChosen::Absent("no machine is named".into())));
    }

    #[test]
    fn one_machine_of_many_must_be_named_and_a_single_one_need_not_be() {
        let (host, _directory) = host();
        let mut machines = machines(&host);
        machines.truncate(1);
        assert_eq!(only(machines).unwrap().name, "db");
        assert!(matches!(only(super::machines(&host)), Err(NotChosen::Ambiguous(text)) if text.lines().count() == 5));
        assert!(matches!(only(Vec::new()), Err(NotChosen::Absent(_))));
    }

    #[test]
    fn a_machine_without_port_is_told_how_its_manager_adds_one() {
        let text = "proc/1/cmdline: kvm|-pidfile|/run/qemu-server/7.pid|
                    proc/2/cmdline: kvm|-object|{\"file\":\"/root/.config/libvirt/qemu/lib/domain-1-a/key\"}|";
        let (host, _directory) = Host::from_text(text);
        let why: Vec<_> = machines(&host).into_iter().map(|machine| machine.agent.unwrap_err()).collect();
        let port = "has no port org.qemu.guest_agent.0; ";
        let expected = ["the option \"QEMU Guest Agent\" adds it", "`virsh edit` adds the channel"];
        assert_eq!(why, expected.map(|hint| format!("{port}{hint}")));
    }

    #[test]
    fn an_error_lists_a_bounded_number_of_machines() {
        let line = |pid| format!("proc/{pid}/cmdline: kvm|\n");
        let (host, _directory) = Host::from_text(&(1..=30).map(line).collect::<String>());
        let Err(NotChosen::Ambiguous(text)) = only(machines(&host)) else { panic!("one was chosen") };
        assert_eq!(text.lines().count(), 1 + MAX_LISTED + 1);
        assert!(text.ends_with("and 10 more"));
    }
}
