//! `--machine`: names and addresses, with processes that have a QEMU's command line.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod support;

use std::{
    io::{BufRead, BufReader, Write},
    os::{
        fd::OwnedFd,
        unix::{
            net::{UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};
use support::{Agent, HANG_UP, Outcome, finish};

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

/// The entry of a machine in what `list --json` prints.
fn entry(name: &str) -> Value {
    let text = qgactl(&["list", "--json", "--timeout", "1"], None).success();
    let entries: Vec<Value> = serde_json::from_str(&text).unwrap();
    entries.into_iter().find(|entry| entry["name"] == name).unwrap()
}

#[test]
fn machines_are_listed_with_what_their_agents_say() {
    let frozen = r#"{"error": {"class": "CommandNotFound", "desc": "Command x has been disabled: the agent is in frozen state (for 35 s)"}}"#;
    let agent = Agent::scripted(|request| {
        Some(match request["execute"].as_str()? {
            "guest-info" => r#"{"return": {"version": "1.2.3", "supported_commands": []}}"#.into(),
            "guest-fsfreeze-status" => r#"{"return": "frozen"}"#.into(),
            _ => frozen.into(),
        })
    });
    let name = unique("listed");
    let qemu = Qemu::with_agent(&name, "00-AA", &agent.socket());
    let address = format!("unix:{}", agent.socket().display());
    let expected = json!({
        "name": name, "pid": qemu.0.id(), "manager": "none", "uuid": "00-aa", "address": address,
        "version": "1.2.3", "frozen": true, "frozen-seconds": 35,
    });
    assert_eq!(entry(&name), expected);
    let table = qgactl(&["list", "--timeout", "1"], None).success();
    let row = table.lines().find(|line| line.starts_with(&name)).unwrap();
    assert!(row.contains(&address) && row.ends_with("  1.2.3  frozen for 35 s"), "{row}");
    assert!(qgactl(&["list", "--names"], None).success().lines().any(|line| line == name));
}

#[test]
fn machines_that_do_not_answer_are_listed_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let socket = |name: &str| directory.path().join(name);
    let [silent, held] = ["silent", "held"].map(|name| UnixListener::bind(socket(name)).unwrap());
    let holder = UnixStream::connect(socket("held")).unwrap();
    let _served = held.accept().unwrap();
    let names = ["silent", "held", "gone"].map(unique);
    let [silent_name, held_name, gone_name] = &names;
    let files = ["silent", "held", "gone"];
    let _qemus = [0, 1, 2].map(|index| Qemu::with_agent(&names[index], "00-1", &socket(files[index])));
    assert_eq!(entry(silent_name)["problem"], "no agent answers");
    let held = entry(held_name);
    assert_eq!(held["held-by"]["pid"], std::process::id());
    assert!(held["problem"].as_str().unwrap().starts_with("its socket is held by "));
    assert!(entry(gone_name)["problem"].as_str().unwrap().ends_with("No such file or directory"));
    drop((holder, silent));
}

#[test]
fn a_socket_that_libvirt_holds_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    // What the kernel calls a process is the name of its file.
    let libvirt = directory.path().join("virtqemud");
    std::fs::copy("/bin/bash", &libvirt).unwrap();
    let client = UnixStream::connect(&socket).unwrap();
    let mut process = Command::new(&libvirt).arg("-c").arg("read _").stdin(OwnedFd::from(client)).spawn().unwrap();
    let (_served, _) = listener.accept().unwrap();
    let outcome = qgactl(&["--socket", socket.to_str().unwrap(), "ping"], None);
    outcome.check(3, "because libvirt holds it: virtqemud (");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "qgactl has connected");
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn several_machines_are_asked_at_once_and_the_failed_ones_counted() {
    let name = unique("several");
    let (one, other) = (ponging(), ponging());
    let _qemus = [
        Qemu::with_agent(&format!("{name}-a"), "00-1", &one.socket()),
        Qemu::with_agent(&format!("{name}-b"), "00-2", &other.socket()),
        Qemu::with_agent(&format!("{name}-c"), "00-3", Path::new("/nonexistent/socket")),
        Qemu::start(&["-name", &format!("{name}-d")]),
    ];
    let check = |outcome: Outcome, status, answered: &[&str], failed: &[&str]| {
        assert_eq!(outcome.status, status, "{}", outcome.stderr);
        let text = String::from_utf8(outcome.stdout).unwrap();
        let mut lines: Vec<_> = text.lines().filter_map(|line| line.split_once(": the agent answered in ")).collect();
        lines.sort_unstable();
        let names: Vec<_> = lines.iter().map(|(name, _)| name.rsplit('-').next().unwrap()).collect();
        assert_eq!(names, answered);
        for end in failed {
            assert!(outcome.stderr.contains(&format!("{name}-{end}: ")), "{}", outcome.stderr);
        }
    };
    check(qgactl(&["-M", &format!("{name}-*"), "ping"], None), 2, &["a", "b"], &["c", "d"]);
    check(qgactl(&["ping", "-M", &format!("{name}-b,{name}-a")], None), 0, &["a", "b"], &[]);
    check(qgactl(&["ping"], Some(&format!("{name}-b,00-3"))), 1, &["b"], &["c"]);
    qgactl(&["-M", &format!("{name}-a,{name}-x"), "ping"], None).check(3, &format!("no machine is named {name}-x"));
    qgactl(&["list", "--names"], Some(&format!("{name}-*"))).success();
    qgactl(&["-M", &format!("{name}-*"), "passwd", "root"], None).check(2, "for one machine at a time");
}

/// Guests that answer a freeze and a thaw with these, and note what they are asked for.
struct Frozen {
    pattern: String,
    asked: Arc<Mutex<Vec<String>>>,
    _machines: Vec<(Agent, Qemu)>,
}

impl Frozen {
    fn new(name: &str, answers: &[(&'static str, &'static str)]) -> Self {
        let name = unique(name);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let machine = |(index, answers): (usize, &(&'static str, &'static str))| {
            let (log, (freeze, thaw)) = (Arc::clone(&asked), *answers);
            let agent = Agent::scripted(move |request| {
                let command = request["execute"].as_str()?.trim_start_matches("guest-fsfreeze-").to_owned();
                let answer = if command == "thaw" { thaw } else { freeze };
                // Another test may list all machines.
                if ["freeze", "thaw"].contains(&command.as_str()) {
                    log.lock().unwrap().push(format!("{command} {index}"));
                }
                Some(answer.into())
            });
            let qemu = Qemu::with_agent(&format!("{name}-{index}"), &format!("00-{index}"), &agent.socket());
            (agent, qemu)
        };
        let machines = answers.iter().enumerate().map(machine).collect();
        Self { pattern: format!("{name}-*"), asked, _machines: machines }
    }

    /// Runs a program around which all are frozen, and returns what they were asked for, in alphabetical order.
    fn run(&self, script: &str) -> (Outcome, Vec<String>) {
        let outcome = qgactl(&["-M", &self.pattern, "freeze", "--run", "--", "sh", "-c", script], None);
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort();
        (outcome, asked)
    }
}

const ONE: &str = r#"{"return": 1}"#;
const FAILURE: &str = r#"{"error": {"class": "GenericError", "desc": "no luck"}}"#;

#[test]
fn several_guests_are_frozen_together_around_a_program() {
    let guests = Frozen::new("together", &[(ONE, ONE), (ONE, ONE), (ONE, ONE)]);
    let (outcome, asked) = guests.run("echo ran; exit 7");
    assert_eq!((outcome.status, outcome.stdout.as_slice()), (7, &b"ran\n"[..]), "{}", outcome.stderr);
    assert_eq!(asked, ["freeze 0", "freeze 1", "freeze 2", "thaw 0", "thaw 1", "thaw 2"]);
}

#[test]
fn a_guest_that_cannot_be_frozen_thaws_the_others_and_nothing_is_run() {
    let guests = Frozen::new("refused", &[(ONE, ONE), (FAILURE, ONE), (ONE, ONE)]);
    let (outcome, asked) = guests.run("echo ran");
    outcome.check(125, "-1: guest-fsfreeze-freeze: no luck");
    assert!(outcome.stdout.is_empty());
    assert_eq!(asked, ["freeze 0", "freeze 1", "freeze 2", "thaw 0", "thaw 2"]);
}

#[test]
fn a_guest_whose_freeze_may_have_been_done_is_thawed_with_the_others() {
    let guests = Frozen::new("doubtful", &[(ONE, ONE), (HANG_UP, ONE)]);
    let (outcome, asked) = guests.run("echo ran");
    outcome.check(125, "-1 may be frozen, and is thawed as soon as it answers");
    assert!(outcome.stdout.is_empty());
    assert_eq!(asked, ["freeze 0", "freeze 1", "thaw 0", "thaw 1"]);
}

#[test]
fn a_freeze_that_did_not_hold_on_one_guest_is_told_after_all_are_thawed() {
    let guests = Frozen::new("ended", &[(ONE, FAILURE), (ONE, ONE), (ONE, r#"{"return": 0}"#)]);
    let (outcome, asked) = guests.run("echo ran");
    outcome.check(125, "-0: guest-fsfreeze-thaw: no luck");
    outcome.check(125, "-2: the guest was not frozen any more");
    assert_eq!(asked, ["freeze 0", "freeze 1", "freeze 2", "thaw 0", "thaw 1", "thaw 2"]);
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
            let mut guest = UnixStream::connect(guest).unwrap();
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

#[test]
fn figures_of_several_machines_come_at_once_and_one_that_does_not_answer_is_down() {
    let agents = [ponging(), ponging()];
    let name = |index: usize| unique(&format!("fleet{index}"));
    let gone = tempfile::tempdir().unwrap();
    let mut qemus: Vec<_> =
        agents.iter().enumerate().map(|(index, agent)| Qemu::with_agent(&name(index), "", &agent.socket())).collect();
    qemus.push(Qemu::with_agent(&name(2), "", &gone.path().join("socket")));
    let machines = unique("fleet*");
    let outcome = qgactl(&["metrics", "--prometheus", "-M", &machines], None);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    let text = String::from_utf8(outcome.stdout).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("guest_up{"));
    let expected: Vec<_> =
        (0..3).map(|index| format!("guest_up{{machine=\"{}\"}} {}", name(index), u8::from(index < 2))).collect();
    assert_eq!(lines.collect::<Vec<_>>(), expected);
    // Without Prometheus, a machine that does not answer is a failure.
    assert_ne!(qgactl(&["metrics", "-M", &machines], None).status, 0);
}
