//! Every running QEMU, from its command line in /proc.
//!
//! The agent's channel is found by joining two options: the port whose name is [`PORT`] names its character device, and
//! that must be a unix socket on which QEMU listens. A socket that was opened by who started QEMU (`fd=`, as libvirt
//! does) is found by its number among the process's descriptors and in the kernel's table of unix sockets. A machine
//! without such a port but with a vsock device is reached over vsock.
//! A process counts as QEMU by the name of its program: `qemu-system-*`, `qemu-kvm` or `kvm`. What was plugged in after
//! the start is not seen.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use super::{host::Host, properties::Properties};
use crate::target::address::{Address, VSOCK_PORT};

/// The name of the agent's port, in all hosts' software.
const PORT: &str = "org.qemu.guest_agent.0";

/// A running QEMU.
#[derive(Debug)]
pub(super) struct Qemu {
    pub(super) pid: u32,
    /// The user that it runs as.
    pub(super) user: Option<u32>,
    /// As `-name` says.
    pub(super) name: Option<String>,
    /// As `-uuid` says.
    pub(super) uuid: Option<String>,
    /// Where its agent is, or why that is unknown.
    pub(super) agent: Result<Address, Unreachable>,
    pub(super) options: Options,
}

/// Why the way to an agent is unknown, as the end of a sentence about the machine.
#[derive(Debug)]
pub(super) enum Unreachable {
    /// It has no port for an agent.
    NoPort(String),
    /// It has one that leads elsewhere.
    OtherPort(String),
}

/// All of them, in the order of their process ids.
pub(super) fn running(host: &Host) -> Vec<Qemu> {
    let qemu = |pid| {
        let command_line = host.read(&format!("proc/{pid}/cmdline"))?;
        let mut words = command_line.split(|byte| *byte == 0).map(OsStr::from_bytes);
        if !is_qemu(words.next()?) {
            return None;
        }
        let options = Options::parse(words);
        let name = options.last("name").map(|name| Properties::parse(name, "guest"));
        Some(Qemu {
            pid,
            user: host.owner(&format!("proc/{pid}")),
            name: name.and_then(|name| name.text("guest")).filter(|name| !name.is_empty()),
            uuid: uuid(&options),
            agent: agent(host, pid, &options),
            options,
        })
    };
    host.processes().into_iter().filter_map(qemu).collect()
}

fn is_qemu(program: &OsStr) -> bool {
    let name = Path::new(program).file_name().unwrap_or_default().as_bytes();
    name.starts_with(b"qemu-system-") || name == b"qemu-kvm" || name == b"kvm"
}

/// The options of a command line that have an argument.
#[derive(Debug)]
pub(super) struct Options(Vec<(String, OsString)>);

impl Options {
    fn parse<'a>(words: impl Iterator<Item = &'a OsStr>) -> Self {
        let mut options = Vec::new();
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            let Some(name) = word.as_bytes().strip_prefix(b"-") else { continue };
            let name = String::from_utf8_lossy(name.strip_prefix(b"-").unwrap_or(name)).into_owned();
            // An option without an argument is followed by the next one.
            if let Some(argument) = words.next_if(|next| !next.as_bytes().starts_with(b"-")) {
                options.push((name, argument.to_owned()));
            }
        }
        Self(options)
    }

    /// The arguments of all options with this name.
    pub(super) fn all<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a OsStr> {
        self.0.iter().filter(move |(option, _)| option == name).map(|(_, argument)| argument.as_os_str())
    }

    /// The argument of the last option with this name, which is the one that counts.
    pub(super) fn last(&self, name: &'static str) -> Option<&OsStr> {
        self.all(name).last()
    }
}

/// In lower case. Proxmox has it in the firmware's tables only.
fn uuid(options: &Options) -> Option<String> {
    let firmware = || options.all("smbios").find_map(|table| Properties::parse(table, "type").text("uuid"));
    let uuid = options.last("uuid").map(|uuid| uuid.to_string_lossy().into_owned()).or_else(firmware)?;
    Some(uuid.to_lowercase())
}

fn agent(host: &Host, pid: u32, options: &Options) -> Result<Address, Unreachable> {
    let devices: Vec<_> = options.all("device").map(|device| Properties::parse(device, "driver")).collect();
    let Some(port) = devices.iter().find(|device| device.has("name", PORT)) else {
        let cid = devices.iter().find_map(|device| device.text("guest-cid")?.parse().ok());
        return match cid {
            Some(cid) => Ok(Address::Vsock { cid, port: VSOCK_PORT }),
            None => Err(Unreachable::NoPort(format!("has no port {PORT}"))),
        };
    };
    let other = |why| Err(Unreachable::OtherPort(why));
    let id = port.text("chardev").unwrap_or_default();
    let mut backends = options.all("chardev").map(|backend| Properties::parse(backend, "backend"));
    let Some(backend) = backends.find(|backend| backend.has("id", &id)) else {
        return other(format!("has no -chardev {id}, which its port {PORT} names"));
    };
    let is_server = backend.get("server").is_some_and(|server| server != "off" && server != "no");
    if let Some(descriptor) = backend.text("fd") {
        return match inherited_socket(host, pid, &descriptor) {
            Some(path) => Ok(Address::Unix(path)),
            None => other("was given its agent's socket by its parent, and this user cannot see the path".into()),
        };
    }
    match backend.get("path") {
        Some(path) if is_server => Ok(Address::Unix(host.path_of_process(pid, Path::new(path)))),
        Some(path) => other(format!("connects to {} instead of listening there (server=on)", path.display())),
        None if backend.has("backend", "pty") => {
            other("has a pseudo-terminal behind its agent's port; QEMU said which: serial:/dev/pts/N".into())
        }
        None => other(format!("has no unix socket behind its agent's port (-chardev {id})")),
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NoPort(why) | Self::OtherPort(why)) = self;
        formatter.write_str(why)
    }
}

/// The path of the socket behind a process's descriptor.
fn inherited_socket(host: &Host, pid: u32, descriptor: &str) -> Option<PathBuf> {
    let descriptor: u32 = descriptor.parse().ok()?;
    let link = host.link(&format!("proc/{pid}/fd/{descriptor}"))?;
    let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.as_bytes().to_vec();
    let table = host.read(&format!("proc/{pid}/net/unix"))?;
    table
        .split(|byte| *byte == b'\n')
        .filter_map(inode_and_path)
        .find(|(other, _)| *other == inode)
        .map(|(_, path)| path)
}

/// A line of the kernel's table of unix sockets, proc_net(5): six columns, the inode, and the path if there is one.
fn inode_and_path(line: &[u8]) -> Option<(&[u8], PathBuf)> {
    let mut rest = line;
    for _ in 0..6 {
        rest = next_word(rest)?.1;
    }
    let (inode, path) = next_word(rest)?;
    path.starts_with(b"/").then(|| (inode, OsString::from_vec(path.to_vec()).into()))
}

/// A word, and what follows the blanks behind it.
fn next_word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b' ')?;
    Some((&text[..end], text[end..].trim_ascii_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address of the agent of process 7, or why there is none.
    fn check(host: &str, expected: Result<&str, &str>) {
        let (host, _directory) = Host::from_text(host);
        let machines = running(&host);
        let agent = machines[0].agent.as_ref().map(ToString::to_string).map_err(ToString::to_string);
        assert_eq!(agent.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn a_port_and_its_socket_are_joined_by_the_id_of_the_character_device() {
        check(
            "proc/7/cmdline: qemu-system-x86_64|-chardev|socket,path=/run/other,server=on,id=c1|-chardev|\
             socket,path=/run/vm1.qga,server=on,wait=off,id=c0|-device|virtio-serial|\
             -device|virtserialport,chardev=c0,name=org.qemu.guest_agent.0|",
            Ok("unix:/run/vm1.qga"),
        );
        check(
            r#"proc/7/cmdline: /usr/bin/kvm|-chardev|{"backend":"socket","path":"/run/a,b","server":true,"id":"c0"}|\
             -device|{"driver":"virtserialport","nr":1,"chardev":"c0","name":"org.qemu.guest_agent.0"}|"#
                .replace("\\\n             ", "")
                .as_str(),
            Ok("unix:/run/a,b"),
        );
    }

    #[test]
    fn a_relative_path_begins_where_qemu_was_started() {
        check(
            "proc/7/cmdline: kvm|-chardev|socket,path=vm1.qga,server,nowait,id=c0|-device|\
             virtserialport,chardev=c0,name=org.qemu.guest_agent.0|
             proc/7/cwd -> /srv/vms",
            Ok("unix:/srv/vms/vm1.qga"),
        );
    }

    #[test]
    fn a_path_in_a_container_leads_through_the_process() {
        let host = "proc/7/cmdline: kvm|-chardev|socket,path=/run/vm1.qga,server=on,id=c0|-device|\
                    virtserialport,chardev=c0,name=org.qemu.guest_agent.0|
                    proc/self/ns/mnt -> mnt:[1]\nproc/7/ns/mnt -> mnt:";
        check(&format!("{host}[2]"), Ok("unix:/proc/7/root/run/vm1.qga"));
        check(&format!("{host}[1]"), Ok("unix:/run/vm1.qga"));
    }

    #[test]
    fn a_socket_that_qemu_was_given_is_found_by_its_inode() {
        let host = "proc/7/cmdline: kvm|-chardev|socket,fd=30,server=on,id=c0|-device|\
                    virtserialport,chardev=c0,name=org.qemu.guest_agent.0|
                    proc/7/fd/30 -> socket:[123]
                    proc/7/net/unix: Num       RefCount Protocol Flags    Type St Inode Path
                    proc/7/net/unix: 0000000000000000: 00000003 00000000 00000000 0001 03  9123 /run/other
                    proc/7/net/unix: 0000000000000000: 00000003 00000000 00000000 0001 03   124
                    proc/7/net/unix: 0000000000000000: 00000002 00000000 00010000 0001 01   123 ";
        check(&format!("{host}/run/1-my vm/socket"), Ok("unix:/run/1-my vm/socket"));
        let unknown = "was given its agent's socket by its parent, and this user cannot see the path";
        check(&format!("{host}@abstract"), Err(unknown));
        check(host.split_once("proc/7/fd").unwrap().0, Err(unknown));
    }

    #[test]
    fn a_machine_without_port_may_have_vsock() {
        check("proc/7/cmdline: kvm|-device|vhost-vsock-pci,guest-cid=42|", Ok("vsock:42:1234"));
        check("proc/7/cmdline: kvm|-device|vhost-vsock-pci,guest-cid=x|", Err("has no port org.qemu.guest_agent.0"));
        check("proc/7/cmdline: qemu-kvm|", Err("has no port org.qemu.guest_agent.0"));
    }

    #[test]
    fn a_port_that_cannot_be_reached_says_why() {
        let check = |chardev: &str, expected| {
            let port = "virtserialport,chardev=c0,name=org.qemu.guest_agent.0";
            check(&format!("proc/7/cmdline: kvm|-device|{port}|-chardev|{chardev}|"), Err(expected));
        };
        check("socket,id=c0,path=/run/a", "connects to /run/a instead of listening there (server=on)");
        check("socket,id=c0,path=/run/a,server=off", "connects to /run/a instead of listening there (server=on)");
        check("null,id=c0", "has no unix socket behind its agent's port (-chardev c0)");
        check("pty,id=c0", "has a pseudo-terminal behind its agent's port; QEMU said which: serial:/dev/pts/N");
        check("socket,id=c1,path=/run/a", "has no -chardev c0, which its port org.qemu.guest_agent.0 names");
    }

    #[test]
    fn a_machine_has_the_name_and_the_uuid_of_its_command_line() {
        let (host, _directory) = Host::from_text(
            "proc/9/cmdline: /usr/libexec/qemu-kvm|-S|-name|guest=web,,1,debug-threads=on|-uuid|AB-12|
             proc/10/cmdline: qemu-system-aarch64|-daemonize|-name|web2|-smbios|type=1,uuid=cd-34|
             proc/11/cmdline: qemu-system-x86_64|-name||
             proc/12/cmdline: sh|-c|kvm|-name|web1|
             proc/13/cmdline: |
             proc/sys/cmdline: kvm|",
        );
        let machines: Vec<_> = running(&host).into_iter().map(|qemu| (qemu.pid, qemu.name, qemu.uuid)).collect();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(machines, [(9, text("web,1"), text("ab-12")), (10, text("web2"), text("cd-34")), (11, None, None)]);
    }
}
