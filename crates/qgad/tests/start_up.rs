//! The real agent from its command line to its exit status.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    pty::{OpenptyResult, openpty},
    sys::{
        signal::{Signal, kill},
        termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr},
    },
    unistd::{Pid, pipe, ttyname},
};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
const PING: &[u8] = br#"{"execute":"guest-ping"}"#;
const PONG: &str = "{\"return\": {}}\n";

/// A directory for one test, with the state directory, and the agents started for it.
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

    /// The agent with nothing in its environment, its state and its pid file in the test's directory.
    fn agent(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qgad"));
        command.env_clear().env("QGA_CONF", self.path("config")).current_dir(self.directory.path());
        command.arg("-t").arg(self.directory.path()).arg("-f").arg(self.path("pid")).args(arguments);
        command
    }

    /// Runs the agent to its end.
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

/// A process that does not outlive its test.
struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for the end: the exit status, and what was written to standard error.
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
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(Instant::now() < end, "waited in vain until {what}");
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
fn the_command_line_goes_before_the_file_and_lists_grow() {
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
fn what_is_printed_reads_back_the_same() {
    let scene = Scene::new();
    let first = scene.run(&["-D", "-p", " odd\\path\n", "-F", "-r", "-l", "log", "-b", "a,b", "-a", "c"]).stdout;
    fs::write(scene.path("printed"), &first).unwrap();
    let second = Command::new(env!("CARGO_BIN_EXE_qgad")).arg("-D").arg("-c").arg(scene.path("printed")).output();
    assert_eq!(second.unwrap().stdout, first);
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
fn an_unknown_option_is_said_on_both_streams() {
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
fn a_start_that_fails_while_file_systems_are_frozen_says_why() {
    let scene = Scene::new();
    fs::write(scene.path("qga.state.isfrozen"), "").unwrap();
    check_refusal(
        &scene,
        &["-p", "missing", "-l", "log"],
        "error opening channel 'missing': No such file or directory",
    );
    assert!(!scene.path("log").exists(), "nothing is written while it might wait for ever");
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
fn a_list_with_an_unknown_name_gives_a_warning_and_no_more() {
    let scene = Scene::new();
    let mut agent = scene.listening(&["-b", "guest-bogus"]);
    agent.signal(Signal::SIGINT);
    let (status, errors) = agent.end();
    assert_eq!(status, Some(0));
    assert!(errors.contains("name a command that does not exist: 'guest-bogus'"), "{errors}");
}

#[test]
fn an_allow_list_allows_its_members_only_and_refusals_go_before_arguments() {
    let scene = Scene::new();
    let _agent = scene.listening(&["-a", "guest-ping"]);
    let stream = UnixStream::connect(scene.path("socket")).unwrap();
    let answer = ask(stream, br#"{"execute":"guest-sync","arguments":{"bad":1}}"#);
    assert!(answer.contains("\"CommandNotFound\""), "{answer}");
    assert!(answer.contains("Command guest-sync has been disabled: the command is not allowed"), "{answer}");
}

#[test]
fn a_profile_refuses_by_name_and_file_and_shows_in_the_list_of_commands() {
    let scene = Scene::new();
    fs::write(scene.path("config"), "[general]\nprofile=read-only\n").unwrap();
    let _agent = scene.listening(&[]);
    let asked = |request: &[u8]| ask(UnixStream::connect(scene.path("socket")).unwrap(), request);
    let refusal = format!(
        "Command guest-exec has been disabled: the command is not allowed (profile=read-only in {})",
        scene.path("config").display()
    );
    let answer = asked(br#"{"execute":"guest-exec"}"#);
    assert!(answer.contains("\"CommandNotFound\"") && answer.contains(&refusal), "{answer}");
    let list = asked(br#"{"execute":"guest-info"}"#);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let commands = list["return"]["supported_commands"].as_array().unwrap();
    for (name, enabled) in [("guest-exec", false), ("guest-fsfreeze-freeze", false), ("guest-get-osinfo", true)] {
        assert!(commands.iter().any(|command| command["name"] == name && command["enabled"] == enabled), "{name}");
    }
}

#[test]
fn programs_and_files_elsewhere_are_refused_by_the_lists_that_are_set() {
    let scene = Scene::new();
    let config = format!(
        "[general]\nexec-allow=/bin/true\nfile-read-allow={0}/in\nfile-write-allow=\n",
        scene.directory.path().display()
    );
    fs::write(scene.path("config"), config).unwrap();
    fs::create_dir(scene.path("in")).unwrap();
    fs::write(scene.path("in/file"), "x").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", scene.path("in/link")).unwrap();
    let _agent = scene.listening(&[]);
    let check = |command: &str, arguments: &str, expected: &str| {
        let request = format!(r#"{{"execute":"{command}","arguments":{arguments}}}"#);
        let answer = ask(UnixStream::connect(scene.path("socket")).unwrap(), request.as_bytes());
        assert!(answer.contains(expected), "{arguments}: {answer}");
    };
    let file = |name: &str, mode: &str| format!(r#"{{"path":"{}","mode":"{mode}"}}"#, scene.path(name).display());
    check("guest-exec", r#"{"path":"true"}"#, "\"pid\"");
    check("guest-exec", r#"{"path":"/bin/sh"}"#, "(it is not allowed, exec-allow in ");
    check("guest-exec", r#"{"path":"true","env":["A=b"]}"#, "an environment is not allowed (exec-allow in ");
    check("guest-file-open", &file("in/file", "r"), "\"return\": 1000");
    check("guest-file-open", &file("in/link", "r"), "it is not allowed (file-read-allow in ");
    check("guest-file-open", &file("in/../config", "r"), "it is not allowed (file-read-allow in ");
    check("guest-file-open", r#"{"path":"/proc/self/root/etc/passwd"}"#, "it is not allowed (file-read-allow in ");
    check("guest-file-open", &file("in/file", "r+"), "it is not allowed (file-write-allow in ");
    check("guest-file-open", &file("in/new", "w"), "it is not allowed (file-write-allow in ");
    assert!(!scene.path("in/new").exists());
}

#[test]
fn a_checked_configuration_shows_every_command_and_every_mistake_with_its_line() {
    let scene = Scene::new();
    let config = "[general]\nprofile=backup\ngarbage\nverbose=maybe\nexec-alow=/x\nblock-rpcs=guest-bogus;guest-ping\n";
    fs::write(scene.path("config"), config).unwrap();
    let output = scene.run(&["--check-config", "-a", "guest-typo"]);
    let report = String::from_utf8(output.stdout).unwrap();
    let file = scene.path("config");
    let file = file.display();
    let expected = [
        format!("{file}:3: Key file contains line “garbage” which is not a key-value pair, group, or comment"),
        format!("{file}:4: Key file contains key “verbose” which has a value that cannot be interpreted."),
        format!("{file}:5: there is no key 'exec-alow'"),
        format!("{file}:6: the block and allow lists name a command that does not exist: 'guest-bogus'"),
        "the command line: the block and allow lists name a command that does not exist: 'guest-typo'".into(),
    ];
    let mut lines = report.lines();
    assert_eq!(lines.by_ref().take(expected.len()).collect::<Vec<_>>(), expected);
    let becomes: Vec<_> = lines.filter_map(|line| line.split_once(' ')).collect();
    assert_eq!(becomes.len(), qga::commands::SPECS.len());
    assert!(becomes.iter().any(|(name, text)| *name == "guest-exec" && text.contains("refused: profile=backup in ")));
    assert_eq!(output.status.code(), Some(1));

    fs::write(scene.path("config"), "[general]\nexec-allow=/bin/true\nblock-rpcs=guest-ping\n").unwrap();
    let output = scene.run(&["--check-config"]);
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{report}");
    let becomes = |name: &str| report.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(becomes("guest-ping "), format!("refused: block-rpcs in {file}"));
    assert_eq!(becomes("guest-exec "), format!("allowed: /bin/true by exec-allow in {file}"));
    assert_eq!(becomes("guest-info "), "allowed");
}

#[test]
fn a_checked_configuration_shows_what_has_no_effect_and_what_keeps_the_agent_from_starting() {
    let scene = Scene::new();
    let file = scene.path("config");
    let check = |config: &str, expected: &[&str]| {
        fs::write(&file, config).unwrap();
        let output = scene.run(&["--check-config"]);
        let report = String::from_utf8(output.stdout).unwrap();
        let mistakes = report.lines().take_while(|line| !line.starts_with("guest-"));
        assert_eq!(mistakes.collect::<Vec<_>>(), expected, "{config}");
        assert_eq!(output.status.code(), Some(1));
    };
    let at = |line: usize, reason: &str| format!("{}:{line}: {reason}", file.display());
    check("[General]\nblock-rpcs=guest-exec\n", &[&at(1, "nothing in the group [General] is read, only in [general]")]);
    check(
        "[general]\nblock-rpcs=guest-exec\nblock-rpcs=guest-ping\n",
        &[&at(3, "the key 'block-rpcs' is there already, and loses its value")],
    );
    check("[general]\nallow-rpcs=\n", &[&at(2, "the key 'allow-rpcs' names no command, and so allows all")]);
    check("[general]\nmethod=unix-listen\n", &["must specify a path for this channel"]);
    check("[general]\nmethod=unix-listen\npath=/no/socket\n", &["there is no directory for the socket /no/socket"]);
    check("[general]\nmethod=vsock-listen\npath=x:1\n", &["Failed to parse cid 'x'"]);
    check("[general]\nmethod=magic\npath=x\n", &["unsupported channel method/type: magic"]);
    check(
        "[general]\nlogfile=/no/log\naudit-file=/no/audit/file\n",
        &["there is no directory /no", "there is no directory /no/audit"],
    );
}

#[test]
fn what_has_no_effect_in_the_configuration_is_warned_of() {
    let scene = Scene::new();
    fs::write(scene.path("config"), "[general]\nexec_allow=/bin/true\n[Else]\n").unwrap();
    let output = scene.run(&["--dump-conf"]);
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("config:2: there is no key 'exec_allow'"), "{log}");
    assert!(log.contains("config:3: nothing in the group [Else] is read, only in [general]"), "{log}");
}

#[test]
fn a_log_without_room_is_complained_of_once() {
    let scene = Scene::new();
    let mut agent = scene.listening(&["-v", "-l", "/dev/full"]);
    for _ in 0..3 {
        scene.ping();
    }
    agent.signal(Signal::SIGTERM);
    let (code, errors) = agent.end();
    assert_eq!(code, Some(0));
    assert!(errors.ends_with(": critical: failed to write to the log's file: No space left on device\n"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[test]
fn the_audit_tells_of_what_changes_the_guest_and_neither_it_nor_the_log_has_a_secret() {
    let scene = Scene::new();
    fs::write(scene.path("config"), "[general]\naudit-file=audit\nblock-rpcs=guest-shutdown\n").unwrap();
    let mut agent = scene.listening(&["-v", "-l", "log"]);
    // The secret as text and as base64, in every argument that may hold one. The user does not exist.
    let (secret, coded) = ("SECRETsecret", "U0VDUkVUc2VjcmV0");
    let check = |command: &str, arguments: &str| {
        let request = format!(r#"{{"execute":"{command}","arguments":{arguments}}}"#);
        ask(UnixStream::connect(scene.path("socket")).unwrap(), request.as_bytes())
    };
    let exec = format!(r#"{{"path":"/bin/true","arg":["{secret}"],"env":["A={secret}"],"input-data":"{coded}"}}"#);
    assert!(check("guest-exec", &exec).contains("pid"));
    check("guest-exec", &format!(r#"{{"path":"/no/such","arg":["{secret}"],"unknown":"{secret}"}}"#));
    let file = format!(r#"{{"path":"{}","mode":"w"}}"#, scene.path("file").display());
    assert!(check("guest-file-open", &file).contains("1000"));
    assert!(check("guest-file-write", &format!(r#"{{"handle":1000,"buf-b64":"{coded}"}}"#)).contains("12"));
    let nobody = "no-such-user";
    check("guest-set-user-password", &format!(r#"{{"username":"{nobody}","password":"{coded}","crypted":false}}"#));
    for command in ["guest-ssh-add-authorized-keys", "guest-ssh-remove-authorized-keys"] {
        check(command, &format!(r##"{{"username":"{nobody}","keys":["#{secret}"]}}"##));
        check(command, &format!(r#"{{"username":"{nobody}","keys":["{secret}"]}}"#));
    }
    check("guest-shutdown", r#"{"mode":"halt"}"#);
    agent.signal(Signal::SIGTERM);
    agent.end();
    let [log, audit] = ["log", "audit"].map(|name| fs::read_to_string(scene.path(name)).unwrap());
    for text in [&log, &audit] {
        assert!(!text.is_empty() && !text.contains(secret) && !text.contains(coded), "{text}");
    }
    let lines: Vec<serde_json::Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines.iter().map(|line| (line["command"].as_str().unwrap(), &line["outcome"])).collect();
    let key_errors =
        ["guest-ssh-add-authorized-keys", "guest-ssh-remove-authorized-keys"].map(|name| [(name, "error"); 2]);
    let mut expected = vec![
        ("guest-exec", "ok"),
        ("guest-exec", "error"),
        ("guest-file-open", "ok"),
        ("guest-set-user-password", "error"),
    ];
    expected.extend(key_errors.into_iter().flatten());
    expected.push(("guest-shutdown", "refused"));
    assert_eq!(told.iter().map(|(name, outcome)| (*name, outcome.as_str().unwrap())).collect::<Vec<_>>(), expected);
    assert_eq!(lines[0]["touched"], "/bin/true");
    assert_eq!(lines[0]["class"], "exec");
    let refused = lines.last().unwrap();
    assert!(refused["reason"].as_str().unwrap().contains("block-rpcs in "));
    assert_eq!(refused["touched"], "halt");
}

#[test]
fn the_socket_is_roots_and_the_log_is_not_for_everybody_whatever_the_umask() {
    let scene = Scene::new();
    let mut command = Command::new("/bin/sh");
    command.args([
        "-c",
        r#"umask 0; exec "$@""#,
        "sh",
        env!("CARGO_BIN_EXE_qgad"),
        "-m",
        "unix-listen",
        "-p",
        "socket",
    ]);
    command.args(["-l", "log", "-t", "."]).current_dir(scene.directory.path());
    let _agent = Running(command.spawn().unwrap());
    scene.ping();
    let mode = |name: &str| fs::metadata(scene.path(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("socket"), mode("log")], [0o600, 0o640]);
}

#[test]
fn the_log_names_commands_and_never_their_arguments() {
    let scene = Scene::new();
    let mut agent = scene.listening(&["-v", "-l", "log"]);
    let stream = UnixStream::connect(scene.path("socket")).unwrap();
    ask(stream, br#"{"execute":"guest-sync","arguments":{"id":424242}}"#);
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.end(), (Some(0), String::new()));
    let log = fs::read_to_string(scene.path("log")).unwrap();
    assert!(log.lines().any(|line| line.contains("read data") && line.contains("guest-sync")), "{log}");
    assert!(!log.contains("424242"), "{log}");
}

#[test]
fn a_log_that_takes_nothing_keeps_nobody_waiting() {
    let scene = Scene::new();
    // Nobody reads what the agent logs, which is more than a pipe holds.
    let (_unread, full) = pipe().unwrap();
    let arguments = ["-v", "-m", "unix-listen", "-p", "socket"];
    let mut agent = Running(scene.agent(&arguments).stderr(full).spawn().unwrap());
    for _ in 0..2000 {
        scene.ping();
    }
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.end().0, Some(0));
}

#[test]
fn half_a_message_of_one_peer_is_not_completed_by_the_next() {
    let scene = Scene::new();
    let _agent = scene.listening(&[]);
    let mut first = UnixStream::connect(scene.path("socket")).unwrap();
    first.write_all(br#"{"execute":"guest-"#).unwrap();
    drop(first);
    scene.ping();
}

#[test]
fn a_peer_that_ends_its_input_still_gets_its_answers() {
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
fn a_daemon_writes_its_pid_file_keeps_others_out_and_removes_it_at_the_end() {
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
    assert!(scene.path("pid").exists(), "printing the configuration touches nothing");

    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    wait_for("the pid file is removed", || (!scene.path("pid").exists()).then_some(()));
    assert!(socket.exists(), "the socket stays, as its directory may be watched");
}

#[test]
fn an_inherited_socket_replaces_the_channel() {
    let scene = Scene::new();
    let listener = UnixListener::bind(scene.path("socket")).unwrap();
    let mut agent = Running(activated(&scene, &[listener.into()], &["-v"]).spawn().unwrap());
    scene.ping();
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.end().0, Some(0));
}

#[test]
fn an_inherited_socket_shows_in_the_printed_configuration() {
    let scene = Scene::new();
    let listener = UnixListener::bind(scene.path("socket")).unwrap();
    let output = activated(&scene, &[listener.into()], &["-D", "-m", "isa-serial"]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("method=unix-listen\npidfile="), "{printed}");
}

#[test]
fn exactly_one_socket_of_a_known_family_can_be_inherited() {
    let scene = Scene::new();
    let listener = |name| OwnedFd::from(UnixListener::bind(scene.path(name)).unwrap());
    let check = |sockets: &[OwnedFd], reason: &str| {
        let output = activated(&scene, sockets, &[]).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains(reason), "{errors}");
    };
    check(&[listener("a"), listener("b")], "qemu-ga only supports listening on one socket");
    let internet = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    check(&[internet.into()], "unsupported listen fd type");
    check(&[fs::File::open("/dev/null").unwrap().into()], "the inherited listening socket cannot be used");
}

/// The agent with these descriptors from number 3 on, as a service manager starts it. The shell keeps its process
/// number when it becomes the agent.
fn activated(scene: &Scene, sockets: &[OwnedFd], arguments: &[&str]) -> Command {
    let agent = scene.agent(arguments);
    let mut redirections = String::new();
    for (index, socket) in sockets.iter().enumerate() {
        fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        redirections.push_str(&format!(" {}<&{}", index + 3, socket.as_raw_fd()));
    }
    let script = format!("export LISTEN_PID=$$ LISTEN_FDS={}; exec \"$0\" \"$@\"{redirections}", sockets.len());
    let mut shell = Command::new("/bin/sh");
    shell.env_clear().current_dir(scene.directory.path()).arg("-c").arg(script);
    shell.arg(agent.get_program()).args(agent.get_args()).stderr(Stdio::piped());
    shell
}

#[test]
fn a_serial_line_is_served_and_its_hang_up_ends_the_agent() {
    let scene = Scene::new();
    let pty = open_terminal();
    let line = terminal_path(&pty.slave);
    let mut agent = Running(scene.agent(&["-m", "isa-serial", "-p", line.to_str().unwrap()]).spawn().unwrap());
    let host = fs::File::from(pty.master);
    // Until the agent has made the line raw it would echo.
    wait_for("the agent has opened the line", || holds(&agent, &line).then_some(()));
    wait_for("the line is raw", || {
        let settings = tcgetattr(&pty.slave).unwrap();
        settings.local_flags.is_empty().then_some(())
    });
    assert_eq!(ask(&host, PING), PONG);
    drop((host, pty.slave));
    assert_eq!(agent.end().0, Some(0));
}

#[test]
fn an_agent_that_waits_for_its_port_opens_it_when_it_comes_and_leaves_when_told() {
    let scene = Scene::new();
    let mut agent = Running(scene.agent(&["-p", "port", "-r"]).stderr(Stdio::piped()).spawn().unwrap());
    let mut errors = BufReader::new(agent.0.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("waiting for channel path...") {
        line.clear();
        assert!(errors.read_line(&mut line).unwrap() > 0, "the agent does not wait");
    }
    let pty = open_terminal();
    make_raw(&pty.slave);
    std::os::unix::fs::symlink(terminal_path(&pty.slave), scene.path("port")).unwrap();
    let host = fs::File::from(pty.master);
    assert_eq!(ask(&host, PING), PONG);
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.end().0, Some(0));

    let mut waiting = Running(scene.agent(&["-p", "nothing", "-r"]).stderr(Stdio::piped()).spawn().unwrap());
    let mut first = [0];
    waiting.0.stderr.as_mut().unwrap().read_exact(&mut first).unwrap();
    waiting.signal(Signal::SIGTERM);
    assert_eq!(waiting.end().0, Some(0));
}

/// A terminal that no other test's agent inherits.
fn open_terminal() -> OpenptyResult {
    let terminal = openpty(None, None).unwrap();
    for end in [&terminal.master, &terminal.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    }
    terminal
}

fn terminal_path(terminal: &OwnedFd) -> PathBuf {
    ttyname(terminal).unwrap()
}

fn make_raw(terminal: &OwnedFd) {
    let mut settings = tcgetattr(terminal).unwrap();
    cfmakeraw(&mut settings);
    tcsetattr(terminal, SetArg::TCSANOW, &settings).unwrap();
}

fn holds(agent: &Running, path: &Path) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", agent.0.id()));
    descriptors.is_ok_and(|mut found| {
        found.any(|entry| entry.is_ok_and(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == path)))
    })
}
