//! QEMU's own control channel.
//!
//! One command at a time. Events that arrive meanwhile are kept until somebody waits for them. Every line in either
//! direction goes to a log.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// How long QEMU may take for a command. It takes milliseconds, but the machine may be busy.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A conversation with QEMU.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
    log: File,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Takes over a stream on which QEMU is about to greet.
    ///
    /// # Errors
    /// When QEMU does not greet or is gone; so for all below.
    pub fn greet(stream: UnixStream, log: File) -> Result<Self> {
        let mut qmp = Self { stream: BufReader::new(stream), log, events: VecDeque::new() };
        let greeting = qmp.receive(Instant::now() + TIMEOUT)?;
        if greeting.get("QMP").is_none() {
            bail!("QEMU greeted with {greeting}");
        }
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns its result.
    ///
    /// # Errors
    /// When QEMU refuses the command.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let deadline = Instant::now() + TIMEOUT;
        let request = json!({"execute": command, "arguments": arguments});
        writeln!(self.log, "> {request}")?;
        writeln!(self.stream.get_mut(), "{request}").with_context(|| format!("failed to send {command} to QEMU"))?;
        loop {
            let mut message = self.receive(deadline).with_context(|| format!("no answer of QEMU to {command}"))?;
            if message.get("event").is_some() {
                self.events.push_back(message);
            } else if let Some(result) = message.get_mut("return") {
                return Ok(result.take());
            } else {
                bail!("QEMU refused {command}: {}", message["error"]["desc"]);
            }
        }
    }

    /// Waits for an event, unless it came already; returns its data. Earlier events of other names are kept.
    ///
    /// # Errors
    /// When it does not come in time.
    pub fn wait_event(&mut self, name: &str, deadline: Instant) -> Result<Value> {
        loop {
            if let Some(index) = self.events.iter().position(|event| event["event"] == name) {
                return Ok(self.events.remove(index).map(|mut event| event["data"].take()).unwrap_or_default());
            }
            let message = self.receive(deadline).with_context(|| format!("no event {name} of QEMU"))?;
            self.events.push_back(message);
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Value> {
        let remaining = deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            bail!("the deadline passed");
        }
        self.stream.get_ref().set_read_timeout(Some(remaining))?;
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("QEMU is gone");
        }
        write!(self.log, "< {line}")?;
        serde_json::from_str(&line).with_context(|| format!("QEMU sent {line:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A conversation with a QEMU that has said all it will say.
    fn after(lines: &str) -> Result<Qmp> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"{\"QMP\": {}}\n{\"return\": {}}\n").unwrap();
        theirs.write_all(lines.as_bytes()).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        // The other end must stay open, or requests could not be sent.
        std::mem::forget(theirs);
        Qmp::greet(ours, tempfile::tempfile().unwrap())
    }

    #[test]
    fn events_before_a_result_are_kept_for_who_waits_for_them() {
        let mut qmp =
            after("{\"event\": \"A\", \"data\": 1}\n{\"event\": \"B\", \"data\": 2}\n{\"return\": 3}\n").unwrap();
        assert_eq!(qmp.execute("x", &json!({})).unwrap(), json!(3));
        let soon = Instant::now() + TIMEOUT;
        assert_eq!(qmp.wait_event("B", soon).unwrap(), json!(2));
        assert_eq!(qmp.wait_event("A", soon).unwrap(), json!(1));
    }

    #[test]
    fn a_refusal_says_why() {
        let mut qmp = after("{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such device\"}}\n").unwrap();
        let error = qmp.execute("device_del", &json!({})).unwrap_err();
        assert_eq!(error.to_string(), "QEMU refused device_del: \"no such device\"");
    }

    #[test]
    fn the_end_of_qemu_ends_the_wait() {
        let error = after("").unwrap().wait_event("STOP", Instant::now() + TIMEOUT).unwrap_err();
        assert_eq!(format!("{error:#}"), "no event STOP of QEMU: QEMU is gone");
    }
}
