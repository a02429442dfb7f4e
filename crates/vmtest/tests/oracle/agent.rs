//! Starting the two agents and talking to them.
//!
//! Each input gets new agents, each in a directory of its own, with only the environment that the input gives. They end
//! with their input, also when it fails.

use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::{
    answer::{self, Answer},
    input::{Input, Kind, Peer},
};

/// The path at which Debian installs the reference.
const REFERENCE: &str = "/usr/sbin/qemu-ga";
/// The socket of an agent, in its directory.
const SOCKET: &str = "socket";
/// The prefix of a temporary file's name in the reference's messages; six random letters follow.
const TEMPORARY: &str = "qga.state.";
/// How long an agent may take for anything. The slowest input has 64 MiB in one string.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often a start is checked, which takes a few times as long.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// The two programs.
#[derive(Debug)]
pub(crate) struct Agents {
    theirs: PathBuf,
    ours: PathBuf,
}

impl Agents {
    /// Finds both, or says which is missing.
    pub(crate) fn find() -> std::result::Result<Self, String> {
        let theirs = PathBuf::from(REFERENCE);
        if !theirs.exists() {
            return Err(format!("there is no {REFERENCE}: install Debian's qemu-guest-agent"));
        }
        Ok(Self { theirs, ours: our_agent()? })
    }

    /// The answers of both to an input, the reference's first.
    pub(crate) fn play(&self, input: &Input) -> Result<(Answer, Answer)> {
        let mut theirs = play(&self.theirs, input).context("qemu-ga")?;
        let mut ours = play(&self.ours, input).context("qgad")?;
        answer::align(&mut theirs, &mut ours);
        if theirs == ours {
            return Ok((theirs, ours));
        }
        if matches!(input.kind, Kind::Run) {
            answer::leave_out_common_lines(&mut theirs, &mut ours);
        }
        Ok((answer::shorten(&theirs), answer::shorten(&ours)))
    }
}

fn our_agent() -> std::result::Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("QGAD") {
        return Ok(path.into());
    }
    // This test is target/PROFILE/deps/oracle-HASH.
    let test = std::env::current_exe().map_err(|error| error.to_string())?;
    let profile = test.ancestors().nth(2).unwrap_or(&test);
    let candidates =
        [profile.join("qgad"), profile.with_file_name("debug/qgad"), profile.with_file_name("release/qgad")];
    let found = candidates.into_iter().find(|path| path.exists());
    found.ok_or_else(|| "there is no qgad: build it with `cargo build -p qgad`, or set QGAD".into())
}

fn play(agent: &Path, input: &Input) -> Result<Answer> {
    let directory = tempfile::tempdir()?;
    for (name, contents) in &input.files {
        std::fs::write(directory.path().join(name), localize(contents, &directory))?;
    }
    match &input.kind {
        Kind::Run => run(agent, input, &directory),
        Kind::Conversation(peers) => converse(agent, input, peers, &directory),
    }
}

fn converse(agent: &Path, input: &Input, peers: &[Peer], directory: &TempDir) -> Result<Answer> {
    let socket = directory.path().join(SOCKET);
    let mut command = command(agent, input, directory);
    command.args(["-m", "unix-listen", "-p"]).arg(&socket).arg("-t").arg(directory.path());
    command.args(arguments(input, directory)).stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = Running(command.spawn()?);
    let mut answer = Vec::new();
    for (index, peer) in peers.iter().enumerate() {
        if peers.len() > 1 {
            answer.push(format!("(peer {})", index + 1));
        }
        let stream = running.connect(&socket)?;
        let lines = answer::of_peer(&talk(&stream, peer)?, &input.masked);
        answer.extend(lines.iter().map(|line| line.replace(&*directory.path().to_string_lossy(), "$DIR")));
    }
    ensure!(running.0.try_wait()?.is_none(), "the agent has ended");
    Ok(answer)
}

/// Sends while it receives, so that neither side waits for the other.
fn talk(stream: &UnixStream, peer: &Peer) -> Result<Vec<u8>> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let (mut sending, mut receiving) = (stream, stream);
    let mut received = Vec::new();
    if peer.leaves_at_once {
        sending.write_all(&peer.sends)?;
        return Ok(received);
    }
    thread::scope(|scope| {
        let sender = scope.spawn(move || {
            sending.write_all(&peer.sends)?;
            sending.shutdown(Shutdown::Write)
        });
        receiving.read_to_end(&mut received).context("failed to read answers")?;
        sender.join().expect("sending does not panic").context("failed to send")
    })?;
    Ok(received)
}

fn run(agent: &Path, input: &Input, directory: &TempDir) -> Result<Answer> {
    let mut command = command(agent, input, directory);
    command.args(arguments(input, directory)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Some(output) = Running(command.spawn()?).finish(&directory.path().join(SOCKET))? else {
        return Ok(vec!["(serves)".into()]);
    };
    let mut answer = vec![match output.status.code() {
        Some(code) => format!("(exit code {code})"),
        None => format!("({})", output.status),
    }];
    if input.only_exit_code {
        return Ok(answer);
    }
    for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
        let text = String::from_utf8_lossy(&bytes).replace(&*directory.path().to_string_lossy(), "$DIR");
        // The reference prints typographic quotes as question marks unless it runs in a locale.
        let text = text.replace(&*agent.to_string_lossy(), "AGENT").replace(['“', '”'], "?");
        let text = text.split_once(TEMPORARY).map_or(text.clone(), |(before, after)| {
            format!("{before}{TEMPORARY}XXXXXX{}", after.get(6..).unwrap_or_default())
        });
        answer.extend(text.lines().filter(|line| !line.is_empty()).map(|line| format!("{name}: {}", unstamped(line))));
    }
    Ok(answer)
}

/// A line without process number and time: `** (process:1): CRITICAL **: 12:00:00.000: text` and
/// `1700000000.000000: critical: text` both become `critical: text`.
fn unstamped(line: &str) -> String {
    if let Some((_, rest)) =
        line.split_once("(process:").filter(|(before, _)| before.trim_matches('*').trim().is_empty())
    {
        let mut parts = rest.splitn(3, ": ");
        let (_, level, text) = (parts.next(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let text = text.split_once(": ").map_or(text, |(_, text)| text);
        return format!("{}: {text}", level.trim_matches([' ', '*']).to_lowercase());
    }
    match line.split_once(": ") {
        Some((stamp, rest)) if stamp.parse::<f64>().is_ok() => rest.into(),
        _ => line.into(),
    }
}

fn command(agent: &Path, input: &Input, directory: &TempDir) -> Command {
    let mut command = Command::new(agent);
    // A configuration file of the machine the tests run on must not matter.
    command.env_clear().env("LC_ALL", "C.UTF-8").env("QGA_CONF", directory.path().join("none"));
    command.envs(input.environment.iter().map(|(name, value)| (name, localize(value, directory))));
    command.current_dir(directory.path()).stdin(Stdio::null());
    command
}

fn arguments(input: &Input, directory: &TempDir) -> Vec<String> {
    input.arguments.iter().map(|word| localize(word, directory)).collect()
}

fn localize(text: &str, directory: &TempDir) -> String {
    text.replace("$DIR", &directory.path().to_string_lossy())
}

/// A process that ends with its owner.
struct Running(Child);

impl Running {
    /// Connects as soon as the agent listens.
    fn connect(&mut self, socket: &Path) -> Result<UnixStream> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match UnixStream::connect(socket) {
                Ok(stream) => return Ok(stream),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
                Err(error) => return Err(error).context("failed to connect"),
            }
            if let Some(status) = self.0.try_wait()? {
                bail!("the agent ended before it listened: {status}");
            }
            ensure!(Instant::now() < deadline, "the agent does not listen");
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits until it ends by itself, or listens and so will not.
    fn finish(mut self, socket: &Path) -> Result<Option<Output>> {
        let (mut stdout, mut stderr) = (self.0.stdout.take(), self.0.stderr.take());
        let deadline = Instant::now() + TIMEOUT;
        let status = loop {
            if let Some(status) = self.0.try_wait()? {
                break status;
            }
            if UnixStream::connect(socket).is_ok() {
                return Ok(None);
            }
            ensure!(Instant::now() < deadline, "the agent neither ends nor listens");
            thread::sleep(POLL_INTERVAL);
        };
        let mut output = Output { status, stdout: Vec::new(), stderr: Vec::new() };
        // What an agent prints when it does not serve fits in a pipe.
        stdout.as_mut().map_or(Ok(0), |pipe| pipe.read_to_end(&mut output.stdout))?;
        stderr.as_mut().map_or(Ok(0), |pipe| pipe.read_to_end(&mut output.stderr))?;
        Ok(Some(output))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
