//! The agent as a service: restarted whenever it ends, with an empty environment.
//!
//! `/run/agent.pid` holds its process id while it runs. Each end adds a line to `/run/agent.ends`, such as `exit 0` or
//! `signal 9`. While `/run/agent.stopped` exists it is not restarted. Its log goes
//! to the console.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

const PID: &str = "/run/agent.pid";
const ENDS: &str = "/run/agent.ends";
const STOPPED: &str = "/run/agent.stopped";
/// The delay of a restart, so that an agent that cannot start leaves the guest some processor time.
const RESTART_DELAY: Duration = Duration::from_millis(200);

/// Starts the agent and restarts it whenever it ends.
pub(crate) fn start(command: Vec<String>) -> Result<()> {
    let first = spawn(&command)?;
    thread::spawn(move || {
        let ended = keep(&command, first).unwrap_err();
        eprintln!("vmtest: the agent is not restarted any more: {ended:#}");
    });
    Ok(())
}

fn keep(command: &[String], mut agent: Child) -> Result<std::convert::Infallible> {
    loop {
        let status = agent.wait()?;
        fs::remove_file(PID)?;
        writeln!(OpenOptions::new().create(true).append(true).open(ENDS)?, "{}", name(status))?;
        thread::sleep(RESTART_DELAY);
        while Path::new(STOPPED).exists() {
            thread::sleep(RESTART_DELAY);
        }
        agent = spawn(command)?;
    }
}

fn spawn(command: &[String]) -> Result<Child> {
    let agent = Command::new(&command[0])
        .args(&command[1..])
        .env_clear()
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("failed to start {}", command[0]))?;
    fs::write(PID, agent.id().to_string())?;
    Ok(agent)
}

fn name(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or_default()),
    }
}
