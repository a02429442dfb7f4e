//! The real agent as a process, on a unix socket in a directory of its own. It ends with the test, and so do the
//! programs that it runs.
#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod random_requests;

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

use qga::{
    Client, client,
    commands::{
        exec::{CaptureOutput, Exec, ExecStatus, ProgramStatus, StartedProgram},
        session::{Nothing, Ping},
    },
};

/// How long anything here may take before the test fails; a busy machine is slow.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);
/// How often a condition is checked that nothing announces.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// An agent that ends with the test.
pub(crate) struct Agent {
    process: Child,
    directory: tempfile::TempDir,
    most_descriptors: Option<u32>,
}

impl Agent {
    /// Starts one and waits until it answers.
    pub(crate) fn start() -> Self {
        Self::start_with("", None)
    }

    /// Starts one with these lines of configuration, and at most so many descriptors.
    pub(crate) fn start_with(general: &str, most_descriptors: Option<u32>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config"), format!("[general]\n{general}")).unwrap();
        let process = spawn(directory.path(), Path::new("."), most_descriptors);
        let agent = Self { process, directory, most_descriptors };
        agent.connect();
        agent
    }

    /// Starts one with the state directory of another.
    pub(crate) fn start_beside(other: &Self) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let process = spawn(directory.path(), other.directory.path(), None);
        let agent = Self { process, directory, most_descriptors: None };
        agent.connect();
        agent
    }

    /// Kills it and starts it again, in the same directory.
    pub(crate) fn restart(&mut self) {
        self.process.kill().unwrap();
        self.start_again();
    }

    /// Terminates it and starts another one, as an upgrade does.
    pub(crate) fn replace(&mut self) {
        let process = nix::unistd::Pid::from_raw(self.pid().try_into().unwrap());
        nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.start_again();
    }

    fn start_again(&mut self) {
        self.process.wait().unwrap();
        self.process = spawn(self.directory.path(), Path::new("."), self.most_descriptors);
        // A program that the earlier agent has just started holds its socket until the kernel is done with the exec,
        // which may be after that agent has ended. It accepts no peer.
        wait_for("the new agent answers", || {
            let mut client = Client::new(UnixStream::connect(self.path("socket")).ok()?);
            client.sync(deadline()).ok()
        });
    }

    /// A path in its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A new connection, synchronized.
    pub(crate) fn connect(&self) -> Client<UnixStream> {
        let stream = wait_for("the agent listens", || UnixStream::connect(self.path("socket")).ok());
        let mut client = Client::new(stream);
        client.sync(deadline()).unwrap();
        client
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The process ids of its children, zombies included.
    pub(crate) fn children(&self) -> Vec<i64> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        let children = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
        children.flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect()
    }

    /// The processes that work in its directory: itself, the supervisor of its jobs, and jobs.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let directory = self.directory.path().canonicalize().unwrap();
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let entry = entry.ok()?;
            let pid = entry.file_name().to_str()?.parse().ok()?;
            (fs::read_link(entry.path().join("cwd")).ok()? == directory).then_some(pid)
        });
        processes.collect()
    }

    /// The supervisor of its jobs, if there is one.
    pub(crate) fn supervisor(&self) -> Option<i32> {
        let is_supervisor = |pid: &i32| fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"qgad-jobs\n");
        self.processes().into_iter().find(is_supervisor)
    }

    /// The names of its open descriptors' targets.
    pub(crate) fn descriptors(&self) -> Vec<String> {
        let directory = format!("/proc/{}/fd", self.pid());
        let targets = fs::read_dir(directory).unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        let mut targets: Vec<_> = targets.map(|target| target.to_string_lossy().into_owned()).collect();
        targets.sort();
        targets
    }

    /// Resident memory, in kibibytes.
    pub(crate) fn resident(&self) -> u64 {
        resident(self.pid())
    }

    /// Its processor time so far, in the kernel's ticks of a hundredth of a second.
    pub(crate) fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // After the name, which may contain anything: the state, ten numbers, then user time and system time.
        let (_, numbers) = stat.rsplit_once(')').unwrap();
        numbers.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // A test that fails must not leave its programs behind.
        for pid in self.children() {
            let _ = try_kill_group(pid);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        // Jobs and their supervisor are nobody's children, and work in this directory.
        for pid in self.processes() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

fn spawn(directory: &Path, state_directory: &Path, most_descriptors: Option<u32>) -> Child {
    let limit = most_descriptors.map_or_else(String::new, |count| format!("ulimit -n {count} && "));
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!(r#"{limit}exec "$0" "$@""#)).arg(env!("CARGO_BIN_EXE_qgad"));
    command.args(["-m", "unix-listen", "-p", "socket", "-t"]).arg(state_directory);
    command.env("QGA_CONF", directory.join("config"));
    command.current_dir(directory).spawn().unwrap()
}

/// Resident memory of a process, in kibibytes.
pub(crate) fn resident(pid: impl std::fmt::Display) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Kills a program and all of its session that has not left its process group.
pub(crate) fn try_kill_group(pid: i64) -> nix::Result<()> {
    let group = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL)
}

/// When a call that begins now must be done.
pub(crate) fn deadline() -> Instant {
    Instant::now() + TIMEOUT
}

/// Tries until there is a result.
pub(crate) fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = deadline();
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Checks that the agent answers.
pub(crate) fn ping(client: &mut Client<UnixStream>) {
    assert_eq!(client.call(&Ping {}, deadline()).unwrap(), Nothing {});
}

/// A program with these arguments, its input and output closed.
pub(crate) fn program(path: &str, arguments: &[&str]) -> Exec {
    Exec {
        path: path.into(),
        arg: Some(arguments.iter().map(ToString::to_string).collect()),
        env: None,
        input_data: None,
        capture_output: None,
    }
}

/// A line for the shell, its output captured.
pub(crate) fn shell(line: &str) -> Exec {
    Exec { capture_output: Some(CaptureOutput::Separated), ..program("/bin/sh", &["-c", line]) }
}

/// Starts a program, or returns the agent's refusal.
pub(crate) fn start(client: &mut Client<UnixStream>, program: &Exec) -> Result<i64, String> {
    refusal(client.call(program, deadline())).map(|StartedProgram { pid }| pid)
}

/// How a program is doing, or the agent's refusal.
pub(crate) fn status(client: &mut Client<UnixStream>, pid: i64) -> Result<ProgramStatus, String> {
    refusal(client.call(&ExecStatus { pid }, deadline()))
}

/// Waits for the last report about a program.
pub(crate) fn wait(client: &mut Client<UnixStream>, pid: i64) -> ProgramStatus {
    wait_for("the program is over", || Some(status(client, pid).unwrap()).filter(|status| status.exited))
}

/// Runs a program to its end.
pub(crate) fn run(client: &mut Client<UnixStream>, program: &Exec) -> ProgramStatus {
    let pid = start(client, program).unwrap();
    wait(client, pid)
}

/// The text of an agent's refusal.
pub(crate) fn refusal<T>(result: Result<T, client::Error>) -> Result<T, String> {
    result.map_err(|error| match error {
        client::Error::Refused { desc, .. } => desc,
        other => panic!("{other}"),
    })
}

/// What a program wrote to standard output.
pub(crate) fn output(status: &ProgramStatus) -> String {
    let bytes = status.out_data.clone().map_or_else(Vec::new, |data| data.into_bytes().unwrap());
    String::from_utf8(bytes).unwrap()
}

/// What a program wrote to standard error.
pub(crate) fn error_output(status: &ProgramStatus) -> String {
    let bytes = status.err_data.clone().map_or_else(Vec::new, |data| data.into_bytes().unwrap());
    String::from_utf8(bytes).unwrap()
}
