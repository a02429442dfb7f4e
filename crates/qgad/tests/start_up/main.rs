//! The real program, from its command line to its exit status: options, configuration, the daemon and its peers.
//!
//! Restrictions, the log and channels have files of their own.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod channels;
mod log;
mod restrictions;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long a test waits for an event.
const TIMEOUT: Duration = Duration::from_secs(60);
const PING: &[u8] = br#"{"execute":"guest-ping"}"#;
const PONG: &str = "{\"return\": {}}\n";

/// The directory of one test, which is also the agent's state directory.
struct Scene {
    directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An agent with an empty environment, whose state and pid file are in the test's directory.
    fn agent(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qgad"));
        command.env_clear().env("QGA_CONF", self.path("config")).current_dir(self.directory.path());
        command.arg("-t").arg(self.directory.path()).arg("-f").arg(self.path("pid")).args(arguments);
        command
    }

    /// Runs the agent until it ends.
    fn run(&self, arguments: &[&str]) -> Output {
        self.agent(arguments).output().unwrap()
    }

    /// An agent that listens on the test's socket.
    fn listening(&self, arguments: &[&str]) -> Running {
        let arguments = [&["-m", "unix-listen", "-p", "socket"], arguments].concat();
        let agent = Running(self.agent(&arguments).stderr(Stdio::piped()).spawn().unwrap());
        self.ping();
        agent
    }

    /// Connects as soon as that is possible, and pings.
    fn ping(&self) {
        let stream = wait_for("the agent listens", || UnixStream::connect(self.path("socket")).ok());
        assert_eq!(ask(stream, PING), PONG);
    }
}

/// A process that is killed at the end of its test.
struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for the end. Returns the exit status and the text on standard error.
    fn end(&mut self) -> (Option<i32>, String) {
        let status = wait_for("the agent ends", || self.0.try_wait().unwrap());
        let mut errors = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            stderr.read_to_string(&mut errors).unwrap();
        }
        (status.code(), errors)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends a request over any stream and returns the next line.
fn ask<S: Read + Write>(mut stream: S, request: &[u8]) -> String {
    stream.write_all(request).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

fn check_refusal(scene: &Scene, arguments: &[&str], reason: &str) {
    let output = scene.run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
    assert!(errors.contains(reason), "{arguments:?}: {errors}");
}

#[test]
fn the_command_line_takes_precedence_over_the_file_and_lists_grow() {
    let scene = Scene::new();
    let config = "[general]\nmethod=unix-listen\npath=/from-file\nverbose=1\nblock-rpcs=guest-a;guest-b\n";
    fs::write(scene.path("config"), config).unwrap();
    let output = scene.run(&["-D", "-p", "/from-line", "-b", "guest-c", "-f", "/pid", "-t", "/state"]);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "[general]\ndaemon=false\nmethod=unix-listen\npath=/from-line\npidfile=/pid\nstatedir=/state\nverbose=true\n\
         retry-path=false\nblock-rpcs=guest-a;guest-b;guest-c\nallow-rpcs=\n"
    );
    assert!(output.stderr.is_empty());
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_printed_configuration_reads_back_the_same() {
    let scene = Scene::new();
    let first = scene.run(&["-D", "-p", " odd\\path\n", "-F", "-r", "-l", "log", "-b", "a,b", "-a", "c"]).stdout;
    fs::write(scene.path("printed"), &first).unwrap();
    let second = Command::new(env!("CARGO_BIN_EXE_qgad")).arg("-D").arg("-c").arg(scene.path("printed")).output();
    assert_eq!(second.unwrap().stdout, first);
}

#[test]
fn the_path_of_a_port_is_the_default_of_its_method() {
    let scene = Scene::new();
    for (method, path) in [("virtio-serial", "/dev/virtio-ports/org.qemu.guest_agent.0"), ("isa-serial", "/dev/ttyS0")]
    {
        let output = String::from_utf8(scene.run(&["-D", "-m", method]).stdout).unwrap();
        assert!(output.contains(&format!("\nmethod={method}\npath={path}\n")), "{output}");
    }
    check_refusal(&scene, &["-D", "-m", "vsock-listen"], "must specify a path for this channel");
}

#[test]
fn a_configuration_that_cannot_be_read_ends_the_start() {
    let scene = Scene::new();
    check_refusal(
        &scene,
        &["-c", "missing"],
        "error loading configuration from path: missing, No such file or directory",
    );
    check_refusal(&scene, &["-c", "."], "error loading configuration from path: ., Not a regular file");
    fs::write(scene.path("config"), "[general]\nverbose=maybe\n").unwrap();
    check_refusal(&scene, &[], "Key file contains key “verbose” which has a value that cannot be interpreted.");
}

#[test]
fn an_unknown_option_is_reported_on_both_streams() {
    let output = Scene::new().run(&["-Z"]);
    assert_eq!(output.status.code(), Some(1));
    let program = env!("CARGO_BIN_EXE_qgad");
    assert_eq!(String::from_utf8_lossy(&output.stderr), format!("{program}: invalid option -- 'Z'\n"));
    let hint = format!("Unknown option, try '{program} --help' for more information.\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), hint);
}

#[test]
fn a_channel_that_cannot_be_opened_ends_the_start_with_its_reason() {
    let scene = Scene::new();
    check_refusal(&scene, &["-p", "missing"], "error opening channel 'missing': No such file or directory");
    check_refusal(&scene, &["-m", "isa-serial", "-p", "missing"], "error opening channel 'missing'");
    check_refusal(&scene, &["-m", "bogus", "-p", "x"], "unsupported channel method/type: bogus");
    check_refusal(&scene, &["-m", "unix-listen"], "must specify a path for this channel");
    check_refusal(&scene, &["-m", "unix-listen", "-p", "no/such"], "Failed to bind socket to no/such: No such file");
    check_refusal(&scene, &["-m", "unix-listen", "-p", &"x".repeat(120)], "is too long");
    check_refusal(&scene, &["-m", "vsock-listen", "-p", "abc"], "error parsing address 'abc'");
    check_refusal(&scene, &["-m", "unix-listen", "-p", "s", "-t", "missing"], "error initializing guest agent");
    check_refusal(&scene, &["-m", "unix-listen", "-p", "s", "-l", "missing/log"], "unable to open specified log file");
}

#[test]
fn a_start_that_fails_while_file_systems_are_frozen_gives_its_reason_and_writes_no_file() {
    let scene = Scene::new();
    fs::write(scene.path("qga.state.isfrozen"), "").unwrap();
    check_refusal(
        &scene,
        &["-p", "missing", "-l", "log"],
        "error opening channel 'missing': No such file or directory",
    );
    assert!(!scene.path("log").exists(), "a write could block until the thaw");
    assert!(!scene.path("qga.state").exists());
}

#[test]
fn a_state_file_of_garbage_is_replaced_with_a_warning() {
    let scene = Scene::new();
    fs::write(scene.path("qga.state"), "garbage\n").unwrap();
    let mut agent = scene.listening(&[]);
    agent.signal(Signal::SIGTERM);
    let (status, errors) = agent.end();
    assert_eq!(status, Some(0));
    assert!(errors.contains("qga.state makes no sense and is replaced"), "{errors}");
}

#[test]
fn an_unknown_name_in_a_list_is_only_a_warning() {
    let scene = Scene::new();
    let mut agent = scene.listening(&["-b", "guest-bogus"]);
    agent.signal(Signal::SIGINT);
    let (status, errors) = agent.end();
    assert_eq!(status, Some(0));
    assert!(errors.contains("name a command that does not exist: 'guest-bogus'"), "{errors}");
}

#[test]
fn an_incomplete_message_of_one_peer_is_not_completed_by_the_next() {
    let scene = Scene::new();
    let _agent = scene.listening(&[]);
    let mut first = UnixStream::connect(scene.path("socket")).unwrap();
    first.write_all(br#"{"execute":"guest-"#).unwrap();
    drop(first);
    scene.ping();
}

#[test]
fn a_peer_that_closes_its_sending_side_still_gets_its_replies() {
    let scene = Scene::new();
    let _agent = scene.listening(&[]);
    let mut peer = UnixStream::connect(scene.path("socket")).unwrap();
    peer.write_all(&PING.repeat(3)).unwrap();
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answers = String::new();
    peer.read_to_string(&mut answers).unwrap();
    assert_eq!(answers, PONG.repeat(3));
}

#[test]
fn a_daemon_writes_its_pid_file_excludes_others_and_removes_it_at_the_end() {
    let scene = Scene::new();
    let socket = scene.path("socket");
    let arguments = ["-d", "-m", "unix-listen", "-p", socket.to_str().unwrap()];
    assert_eq!(scene.run(&arguments).status.code(), Some(0));
    scene.ping();
    let pid: i32 = fs::read_to_string(scene.path("pid")).unwrap().trim().parse().unwrap();

    let other_socket = scene.path("other");
    check_refusal(
        &scene,
        &["-d", "-m", "unix-listen", "-p", other_socket.to_str().unwrap()],
        "Cannot lock pid file: Resource temporarily unavailable",
    );
    assert_eq!(scene.run(&["-D", "-d"]).status.code(), Some(0));
    assert!(scene.path("pid").exists(), "printing the configuration changes nothing");

    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    wait_for("the pid file is removed", || (!scene.path("pid").exists()).then_some(()));
    assert!(socket.exists(), "the socket stays, as its directory may be watched");
}
