//! Agents to run qgactl against: Debian's, ours, and one that says what a test tells it to.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Write},
    os::unix::{
        net::{UnixListener, UnixStream},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

/// Where Debian's package puts the reference agent.
const REFERENCE: &str = "/usr/sbin/qemu-ga";

/// How long anything may take that is waited for, on a machine under load.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// What a scripted agent says to hang up.
pub(crate) const HANG_UP: &str = "hang up";

/// An agent on a unix socket, ended with the test.
pub(crate) struct Agent {
    directory: TempDir,
    /// The program and its options, if it is one.
    command: Vec<OsString>,
    process: Option<Child>,
}

impl Agent {
    /// Debian's agent and ours, those of them that are there. Where tests must not be skipped, all must be.
    pub(crate) fn each(options: &[&str]) -> impl Iterator<Item = Self> {
        Self::reference(options).into_iter().chain(Self::ours(options))
    }

    /// Debian's agent, or none with the reason on stderr.
    pub(crate) fn reference(options: &[&str]) -> Option<Self> {
        Self::start(Path::new(REFERENCE), "Debian package qemu-guest-agent", options)
    }

    /// Our agent: the program that `QGAD` names, or else the one built beside qgactl.
    pub(crate) fn ours(options: &[&str]) -> Option<Self> {
        let beside_us = Path::new(env!("CARGO_BIN_EXE_qgactl")).with_file_name("qgad");
        let program = std::env::var_os("QGAD").map_or(beside_us, PathBuf::from);
        Self::start(&program, "cargo build --workspace", options)
    }

    fn start(program: &Path, remedy: &str, options: &[&str]) -> Option<Self> {
        if !program.exists() {
            let reason = format!("{} is absent ({remedy})", program.display());
            assert!(std::env::var("VMTEST_REQUIRE").as_deref() != Ok("all"), "{reason}");
            eprintln!("skipped: {reason}");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut command: Vec<OsString> = vec![program.into()];
        command.extend(["-m", "unix-listen", "-p", "socket", "-t", "."].map(Into::into));
        command.extend(options.iter().map(Into::into));
        let mut agent = Self { directory, command, process: None };
        agent.spawn();
        Some(agent)
    }

    fn spawn(&mut self) {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).current_dir(self.directory.path()).stderr(Stdio::null());
        self.process = Some(command.spawn().unwrap());
        wait_until("the agent has opened its socket", || UnixStream::connect(self.socket()).is_ok());
    }

    /// Kills it, does something meanwhile, and starts it again.
    pub(crate) fn restart(&mut self, meanwhile: impl FnOnce()) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        meanwhile();
        self.spawn();
    }

    /// An agent that answers syncs, and everything else with what `answer` returns: a line, or `None` for silence.
    pub(crate) fn scripted(answer: impl FnMut(&Value) -> Option<String> + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::scripted_at(&directory.path().join("socket"), answer);
        Self { directory, command: Vec::new(), process: None }
    }

    /// As [`Self::scripted`], at a socket that the caller owns.
    pub(crate) fn scripted_at(socket: &Path, mut answer: impl FnMut(&Value) -> Option<String> + Send + 'static) {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                converse(&stream.unwrap(), &mut answer);
            }
        });
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// A directory that goes with the test.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs qgactl to its end.
    pub(crate) fn qgactl(&self, arguments: &[&str]) -> Outcome {
        qgactl(&self.socket(), arguments, b"")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill().ok();
            process.wait().ok();
        }
        // Jobs and their supervisor are nobody's children, and work in this directory.
        let directory = self.directory.path().canonicalize().unwrap();
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(pid) =
                pid.filter(|_| std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == directory))
            {
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
        }
    }
}

/// Waits until something is so that nothing announces.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < TIMEOUT, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn converse(stream: &UnixStream, answer: &mut dyn FnMut(&Value) -> Option<String>) {
    let (mut requests, mut replies) = (BufReader::new(stream), stream);
    let mut line = Vec::new();
    while requests.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let request: Value = serde_json::from_slice(line.strip_prefix(b"\xFF").unwrap_or(&line)).unwrap();
        line.clear();
        let reply = if request["execute"] == "guest-sync-delimited" {
            [b"\xFF", format!(r#"{{"return": {}}}"#, request["arguments"]["id"]).as_bytes()].concat()
        } else {
            match answer(&request) {
                Some(reply) if reply == HANG_UP => return,
                Some(reply) => reply.into_bytes(),
                None => continue,
            }
        };
        if replies.write_all(&[&reply, b"\n".as_slice()].concat()).is_err() {
            return;
        }
    }
}

/// How a run of qgactl ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Checks the exit status, and that stderr holds the text.
    pub(crate) fn check(&self, status: i32, said: &str) {
        assert_eq!(self.status, status, "{}", self.stderr);
        assert!(self.stderr.contains(said), "{said:?} is not in {:?}", self.stderr);
    }

    /// What a successful run printed.
    pub(crate) fn success(self) -> String {
        assert_eq!(self.status, 0, "{}", self.stderr);
        String::from_utf8(self.stdout).unwrap()
    }
}

/// Runs qgactl to its end.
pub(crate) fn qgactl(socket: &Path, arguments: &[&str], input: &[u8]) -> Outcome {
    let mut process = start(socket, arguments);
    // A run that fails early does not read it.
    process.stdin.take().unwrap().write_all(input).ok();
    finish(process)
}

/// Starts qgactl.
pub(crate) fn start(socket: &Path, arguments: &[&str]) -> Child {
    start_through(&["env"], socket, arguments)
}

/// Starts qgactl by a program that turns into the one that its arguments name.
pub(crate) fn start_through(program: &[&str], socket: &Path, arguments: &[&str]) -> Child {
    command_through(program, socket, arguments).spawn().unwrap()
}

/// Starts qgactl as a shell starts a job, in a process group of its own.
pub(crate) fn start_job(socket: &Path, arguments: &[&str]) -> Child {
    command_through(&["env"], socket, arguments).process_group(0).spawn().unwrap()
}

fn command_through(program: &[&str], socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program[0]);
    command
        .args(&program[1..])
        .arg(env!("CARGO_BIN_EXE_qgactl"))
        .arg("--socket")
        .arg(socket)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Waits until a run has ended.
pub(crate) fn finish(process: Child) -> Outcome {
    let Output { status, stdout, stderr } = process.wait_with_output().unwrap();
    Outcome { status: status.code().unwrap_or(-1), stdout, stderr: String::from_utf8(stderr).unwrap() }
}
