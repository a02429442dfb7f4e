//! The servers that are measured, each a process of its own on a socket in a directory of its own.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use super::client::{Client, request};

/// How long a server may take to come up.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Between two attempts to connect; far below what starting takes.
const ATTEMPT: Duration = Duration::from_micros(50);

/// A program that serves.
pub(crate) struct Binary {
    pub(crate) path: PathBuf,
    is_echo: bool,
}

impl Binary {
    /// An agent.
    pub(crate) fn agent(path: &Path) -> anyhow::Result<Self> {
        // Servers have a working directory of their own.
        let path = fs::canonicalize(path).with_context(|| format!("no agent at {}", path.display()))?;
        Ok(Self { path, is_echo: false })
    }

    /// The floor.
    pub(crate) fn echo() -> anyhow::Result<Self> {
        Ok(Self { path: std::env::current_exe()?, is_echo: true })
    }

    /// Starts it, waits until it has answered once, and tells how long that took.
    pub(crate) fn start(&self) -> anyhow::Result<(Server, Duration)> {
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("socket");
        let mut command = Command::new(&self.path);
        match self.is_echo {
            true => command.arg("--echo").arg(&socket),
            false => command.args(["-m", "unix-listen", "-t"]).arg(directory.path()).arg("-p").arg(&socket),
        };
        command.current_dir(directory.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let begin = Instant::now();
        let process = command.spawn().with_context(|| format!("failed to start {}", self.path.display()))?;
        let mut server = Server { process, socket, directory };
        let mut client = loop {
            match Client::connect(&server.socket) {
                Ok(client) => break client,
                Err(error) if begin.elapsed() > TIMEOUT || server.process.try_wait()?.is_some() => {
                    return Err(error).with_context(|| format!("{} does not listen", self.path.display()));
                }
                Err(_) => thread::sleep(ATTEMPT),
            }
        };
        client.exchange(&request("guest-ping", &serde_json::json!({})))?;
        let elapsed = begin.elapsed();
        Ok((server, elapsed))
    }

    /// What it says its version is.
    pub(crate) fn version(&self) -> anyhow::Result<String> {
        let output = Command::new(&self.path).arg("--version").output()?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
    }
}

/// A server that runs; it ends with this.
pub(crate) struct Server {
    process: Child,
    pub(crate) socket: PathBuf,
    pub(crate) directory: tempfile::TempDir,
}

impl Server {
    pub(crate) fn connect(&self) -> anyhow::Result<Client> {
        Client::connect(&self.socket)
    }

    /// A figure of `/proc/PID/status` in kibibytes.
    pub(crate) fn memory(&self, name: &str) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let Some(value) = value.and_then(|value| value.split_whitespace().next()?.parse().ok()) else {
            bail!("the kernel does not tell {name}");
        };
        Ok(value)
    }

    /// Processor time used so far, in clock ticks.
    pub(crate) fn ticks(&self) -> anyhow::Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let behind_name = stat.rsplit_once(')').context("the kernel tells no times")?.1;
        Ok(behind_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum())
    }

    /// How often its threads went to sleep by themselves so far: one more than it woke up.
    pub(crate) fn sleeps(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let status = fs::read_to_string(task?.path().join("status"))?;
            let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sum += sleeps.and_then(|sleeps| sleeps.trim().parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(sum)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The floor: answers each line with the reply to a ping.
pub(crate) fn serve_echo(socket: &Path) -> anyhow::Result<()> {
    let listener = UnixListener::bind(socket)?;
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let (mut stream, _) = listener.accept()?;
        while let Ok(count @ 1..) = stream.read(&mut chunk) {
            let requests = chunk[..count].iter().filter(|&&byte| byte == b'\n').count();
            stream.write_all(&b"{\"return\": {}}\n".repeat(requests))?;
        }
    }
}
