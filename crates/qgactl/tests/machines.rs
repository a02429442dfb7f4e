//! `--machine`: names and addresses, with processes that have a QEMU's command line.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod support;

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::{net::UnixListener, process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use support::{Agent, Outcome, finish};

const PORT: &str = "virtserialport,chardev=c0,name=org.qemu.guest_agent.0";
const PONG: &str = r#"{"return": {}}"#;

/// A process that looks like a QEMU.
struct Qemu(Child);

impl Qemu {
    fn start(arguments: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.arg0("qemu-system-test").args(["-c", "echo; read _", "-machine", "none"]).args(arguments);
        let mut process = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // From its first line on, it has its command line.
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        Self(process)
    }

    /// One with an agent behind a socket.
    fn with_agent(name: &str, uuid: &str, socket: &Path) -> Self {
        let backend = format!("socket,id=c0,path={},server=on,wait=off", socket.display());
        Self::start(&["-name", name, "-uuid", uuid, "-chardev", &backend, "-device", PORT])
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A name that no other machine of this host has.
fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

fn ponging() -> Agent {
    Agent::scripted(|_| Some(PONG.into()))
}

fn qgactl(arguments: &[&str], machine: Option<&str>) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qgactl"));
    command.args(arguments).env_remove("QGACTL_MACHINE").envs(machine.map(|name| ("QGACTL_MACHINE", name)));
    finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

#[test]
fn a_machine_is_reached_by_its_name_or_its_uuid_before_and_behind_the_subcommand() {
    let agent = ponging();
    let name = unique("reached");
    let uuid = format!("7f2b1c9e-0000-4000-8000-{:012x}", std::process::id());
    let _qemu = Qemu::with_agent(&name, &uuid, &agent.socket());
    qgactl(&["-M", &name, "ping"], None).success();
    qgactl(&["ping", "--machine", &uuid.to_uppercase()], None).success();
    qgactl(&["ping"], Some(&name)).success();
    // An option outweighs the variable.
    qgactl(&["ping", "-M", &name], Some("no such machine")).success();
    qgactl(&["--socket", agent.socket().to_str().unwrap(), "ping"], Some("no such machine")).success();
}

#[test]
fn a_name_that_fits_several_machines_lists_them_and_is_wrong_usage() {
    let (one, other) = (ponging(), ponging());
    let name = unique("twice");
    let _qemus = [&one, &other].map(|agent| Qemu::with_agent(&name, "00-1", &agent.socket()));
    let outcome = qgactl(&["-M", &name, "ping"], None);
    outcome.check(2, &format!("several machines are named {name}:\n"));
    for agent in [one, other] {
        outcome.check(2, &format!("unix:{}\n", agent.socket().display()));
    }
}

#[test]
fn a_name_that_fits_none_and_a_machine_without_agent_are_no_connection() {
    let name = unique("deaf");
    let _qemu = Qemu::start(&["-name", &name]);
    qgactl(&["-M", &name, "ping"], None).check(3, &format!("{name} has no port org.qemu.guest_agent.0\n"));
    let missing = unique("missing");
    qgactl(&["-M", &missing, "ping"], None).check(3, &format!("no machine is named {missing}"));
}

#[test]
fn no_name_is_needed_unless_there_are_several_machines() {
    let name = unique("unnamed");
    let agent = ponging();
    let _qemus = ["", "-too"].map(|end| Qemu::with_agent(&format!("{name}{end}"), "00-1", &agent.socket()));
    qgactl(&["ping"], None).check(2, "no machine is named, and there are several:\n");
    qgactl(&["ping"], Some("")).check(2, "no machine is named, and there are several:\n");
}

#[test]
fn an_address_needs_no_machine() {
    let agent = ponging();
    qgactl(&["-M", &format!("unix:{}", agent.socket().display()), "ping"], None).success();
    qgactl(&["-M", "unix:/nonexistent/socket", "ping"], None).check(3, "No such file or directory");
    qgactl(&["-M", "vsock:x", "ping"], None).check(2, "vsock:CID[:PORT] has two decimal numbers");
    qgactl(&["-M", "serial:/dev/null", "ping"], None)
        .check(3, "failed to connect to serial:/dev/null: Not a typewriter");
}

#[test]
fn only_one_target_can_be_given() {
    for arguments in [["-M", "a", "--socket", "b", "ping"], ["--socket", "b", "ping", "-M", "a"]] {
        qgactl(&arguments, None).check(2, "cannot be used with");
    }
}

/// What qgactl says of a hypervisor that gives this answer to CONNECT, before an agent speaks.
fn through_mux(answer: &'static str) -> Outcome {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("v.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let agent = ponging();
    let guest = agent.socket();
    let hypervisor = thread::spawn(move || {
        let mut host = BufReader::new(listener.accept().unwrap().0);
        let mut request = String::new();
        host.read_line(&mut request).unwrap();
        host.get_mut().write_all(answer.as_bytes()).unwrap();
        if answer.starts_with("OK ") {
            let mut guest = std::os::unix::net::UnixStream::connect(guest).unwrap();
            let (mut replies, mut peer) = (guest.try_clone().unwrap(), host.get_ref().try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut replies, &mut peer));
            std::io::copy(&mut host, &mut guest).unwrap();
            guest.shutdown(std::net::Shutdown::Write).ok();
        }
        request
    });
    let outcome = qgactl(&["-M", &format!("vsock-mux:{}:52", path.display()), "ping"], None);
    assert_eq!(hypervisor.join().unwrap(), "CONNECT 52\n");
    outcome
}

#[test]
fn a_hypervisor_that_serves_vsock_on_a_socket_is_asked_for_the_port() {
    through_mux("OK 1073741824\n").success();
    through_mux("").check(3, "nobody listens on vsock port 52 of the guest");
    through_mux("NO\n").check(3, "the hypervisor did not answer CONNECT with OK");
}
