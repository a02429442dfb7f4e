//! QEMU's own control channel.
//!
//! One command at a time. Events that arrive in between are kept until a wait for them. Every line in either direction
//! goes to a log.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// How long QEMU may take for a command: milliseconds on an idle machine, more on a busy one.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A conversation with QEMU.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
    log: File,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Waits for the greeting on a stream that QEMU has opened, and enables commands.
    ///
    /// # Errors
    /// When QEMU does not greet or has ended. The latter applies to all below.
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

    /// Waits for an event, unless it has arrived already, and returns its data. Other events are kept.
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
pub(crate) mod tests {
    use std::{io::Read, net::Shutdown};

    use super::*;

    /// A conversation with a fake QEMU whose lines are known beforehand.
    pub(crate) struct Script {
        pub(crate) qmp: Qmp,
        peer: UnixStream,
    }

    impl Script {
        /// QEMU greets, and sends these lines before it reads anything.
        pub(crate) fn begin(lines: &[&str]) -> Self {
            let (stream, mut peer) = UnixStream::pair().unwrap();
            for line in [r#"{"QMP": {}}"#, r#"{"return": {}}"#].iter().chain(lines) {
                writeln!(peer, "{line}").unwrap();
            }
            Self { qmp: Qmp::greet(stream, tempfile::tempfile().unwrap()).unwrap(), peer }
        }

        /// QEMU sends nothing more.
        fn end(&self) {
            self.peer.shutdown(Shutdown::Write).unwrap();
        }

        /// What QEMU was asked after the greeting.
        pub(crate) fn requests(mut self) -> Vec<Value> {
            drop(self.qmp);
            let mut text = String::new();
            self.peer.read_to_string(&mut text).unwrap();
            text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    #[test]
    fn a_qemu_that_does_not_greet_is_refused() {
        let (stream, mut peer) = UnixStream::pair().unwrap();
        peer.write_all(b"{\"event\": \"STOP\"}\n").unwrap();
        let error = Qmp::greet(stream, tempfile::tempfile().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), r#"QEMU greeted with {"event":"STOP"}"#);
    }

    #[test]
    fn a_command_is_sent_with_its_arguments() {
        let mut script = Script::begin(&[r#"{"return": {"status": "running"}}"#]);
        assert_eq!(script.qmp.execute("query-status", &json!({"x": 1})).unwrap(), json!({"status": "running"}));
        assert_eq!(script.requests(), [json!({"execute": "query-status", "arguments": {"x": 1}})]);
    }

    #[test]
    fn every_line_of_both_sides_is_logged() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut script = Script::begin(&[r#"{"return": 1}"#]);
        script.qmp.log = log.reopen().unwrap();
        script.qmp.execute("stop", &json!({})).unwrap();
        let request = json!({"execute": "stop", "arguments": {}});
        assert_eq!(std::fs::read_to_string(&log).unwrap(), format!("> {request}\n< {{\"return\": 1}}\n"));
    }

    #[test]
    fn events_before_a_result_are_kept_until_a_wait_for_them() {
        let lines = [r#"{"event": "A", "data": 1}"#, r#"{"event": "B", "data": 2}"#, r#"{"return": 3}"#];
        let Script { mut qmp, peer: _peer } = Script::begin(&lines);
        assert_eq!(qmp.execute("x", &json!({})).unwrap(), json!(3));
        let soon = Instant::now() + TIMEOUT;
        assert_eq!(qmp.wait_event("B", soon).unwrap(), json!(2));
        assert_eq!(qmp.wait_event("A", soon).unwrap(), json!(1));
    }

    #[test]
    fn a_refusal_says_why() {
        let mut script = Script::begin(&[r#"{"error": {"class": "GenericError", "desc": "no such device"}}"#]);
        let error = script.qmp.execute("device_del", &json!({})).unwrap_err();
        assert_eq!(error.to_string(), "QEMU refused device_del: \"no such device\"");
    }

    #[test]
    fn the_end_of_qemu_ends_the_wait() {
        let mut script = Script::begin(&[]);
        script.end();
        let error = script.qmp.wait_event("STOP", Instant::now() + TIMEOUT).unwrap_err();
        assert_eq!(format!("{error:#}"), "no event STOP of QEMU: QEMU is gone");
    }
}
