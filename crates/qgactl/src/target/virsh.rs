//! A domain whose agent's socket libvirt holds, through `virsh qemu-agent-command`.
//!
//! virsh is run once for each request, and what it prints is presented as the agent's line. Three things differ from a
//! stream of bytes:
//! - libvirt reads lines of JSON, and gives up on an agent that sends anything else. So the byte 0xFF never reaches it:
//!   the delimited sync becomes a plain one, and its reply gets the byte here.
//! - An agent's error comes back as virsh's message, without its class. `CommandNotFound` is known by its wording.
//! - Messages are small ([`LIMITS`]). A reply of more than 10 MiB makes libvirt give up on the agent until the guest's
//!   end of the channel is opened anew.
//!
//! virsh runs until the reply arrives, so a request is sent when its reply is read, with that read's timeout.

use std::{
    io::{self, Read, Write},
    mem,
    os::{fd::BorrowedFd, unix::process::ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use qga::{
    client::{Limits, Transport},
    wire::message::SENTINEL,
};
use serde_json::{Value, json};

use super::AgentStream;

/// The request is an argument: the kernel takes 32 pages for one, MAX_ARG_STRLEN of linux/binfmts.h, with the byte that
/// ends it. The reply is a string of libvirt's remote protocol: REMOTE_STRING_MAX is 4 MiB, and virsh adds line ends.
const LIMITS: Limits = Limits { request: 128 * 1024 - 1, reply: 4 * 1024 * 1024 - 16 };

/// Longest message of virsh that is read: an agent's error may contain what a hook printed.
const MAX_MESSAGE_BYTES: u64 = 64 * 1024;

/// Longest timeout: virsh takes a 32-bit number of seconds.
const MAX_TIMEOUT: Duration = Duration::from_secs(0x7FFF_FFFF);

/// How long virsh may take beyond the timeout that it was given, which is in whole seconds.
const GRACE: Duration = Duration::from_secs(2);

/// A domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Domain {
    /// libvirt's connection; without it, virsh chooses.
    pub(crate) uri: Option<String>,
    /// Its name, UUID or id.
    pub(crate) name: String,
}

/// The conversation with a domain's agent.
#[derive(Debug)]
pub(crate) struct Virsh {
    domain: Domain,
    /// What was written and not sent yet.
    requests: Vec<u8>,
    /// What was received and not read yet.
    reply: io::Cursor<Vec<u8>>,
    timeout: Duration,
}

impl Virsh {
    /// Makes sure that the domain exists and runs.
    pub(crate) fn open(domain: &Domain, timeout: Duration) -> io::Result<Self> {
        let output = run(&mut domain.virsh(["domstate", &domain.option()]), timeout)?;
        match (output.status.success(), String::from_utf8_lossy(&output.stdout).trim()) {
            (true, "running") => {}
            (true, state) => return Err(io::Error::other(format!("the domain is not running, but {state}"))),
            (false, _) => return Err(io::Error::other(output.message())),
        }
        Ok(Self { domain: domain.clone(), requests: Vec::new(), reply: io::Cursor::default(), timeout })
    }

    /// Sends one request, and returns the line that an agent would have answered.
    fn exchange(&self, line: &[u8]) -> io::Result<Vec<u8>> {
        let line = line.strip_prefix(&[SENTINEL]).unwrap_or(line);
        let request: Value = serde_json::from_slice(line)?;
        let is_delimited = request["execute"] == "guest-sync-delimited";
        let name = if is_delimited { "guest-sync" } else { request["execute"].as_str().unwrap_or_default() };
        let text = match is_delimited {
            true => json!({ "execute": name, "arguments": request["arguments"] }).to_string(),
            false => String::from_utf8_lossy(line).into_owned(),
        };
        if text.len() > LIMITS.request {
            let why = format!("a request of {} bytes; virsh takes {}", text.len(), LIMITS.request);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let seconds = self.timeout.as_secs().clamp(1, MAX_TIMEOUT.as_secs());
        let arguments = ["qemu-agent-command", &self.domain.option(), "--timeout", &seconds.to_string(), &text];
        let output = run(&mut self.domain.virsh(arguments), self.timeout.max(Duration::from_secs(seconds)) + GRACE)?;
        let mut reply = if is_delimited { vec![SENTINEL] } else { Vec::new() };
        if output.status.success() {
            reply.extend(output.stdout.trim_ascii());
        } else {
            reply.extend(refusal(name, &output.message())?);
        }
        reply.push(b'\n');
        Ok(reply)
    }
}

impl Domain {
    fn virsh<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new("virsh");
        if let Some(uri) = &self.uri {
            command.args(["-c", uri]);
        }
        // Its messages are read here.
        command.arg("-q").args(arguments).env("LC_ALL", "C");
        command
    }

    /// In one word, because a name may begin with a hyphen.
    fn option(&self) -> String {
        format!("--domain={}", self.name)
    }
}

/// The agent's error behind a message of virsh, as the agent sent it, or the channel's failure.
///
/// `error: internal error: unable to execute QEMU agent command 'guest-x': <what the agent said>`
fn refusal(command: &str, message: &str) -> io::Result<Vec<u8>> {
    if let Some((_, desc)) = message.split_once(&format!(" '{command}': ")) {
        let is_unknown = ["has not been found", "has been disabled"].iter().any(|words| desc.contains(words));
        let class = if is_unknown { "CommandNotFound" } else { "GenericError" };
        return Ok(json!({ "error": { "class": class, "desc": desc } }).to_string().into_bytes());
    }
    let has = |words: &[&str]| words.iter().any(|words| message.contains(words));
    let kind = if has(&["due to an error"]) {
        io::ErrorKind::Other
    } else if has(&["domain is not running", "failed to get domain", "Domain not found"]) {
        io::ErrorKind::ConnectionReset
    } else if has(&["agent is not responding", "not connected"]) {
        io::ErrorKind::TimedOut
    } else {
        io::ErrorKind::Other
    };
    let hint = if has(&["encode message payload"]) {
        ": the reply is larger than the 4 MiB that libvirt passes on"
    } else if has(&["No complete agent response", "due to an error"]) {
        ": libvirt ignores the agent until it is restarted in the guest"
    } else {
        ""
    };
    Err(io::Error::new(kind, format!("{message}{hint}")))
}

/// What a run of virsh left.
struct Output {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Output {
    /// Why virsh failed, in its words.
    fn message(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        match (text.trim(), self.status.signal()) {
            ("", Some(signal)) => format!("virsh was ended by signal {signal}"),
            ("", None) => format!("virsh failed with status {}", self.status.code().unwrap_or_default()),
            (text, _) => text.strip_prefix("error: ").unwrap_or(text).to_owned(),
        }
    }
}

/// Runs virsh until it ends, or kills it at the timeout.
fn run(virsh: &mut Command, timeout: Duration) -> io::Result<Output> {
    let deadline = Instant::now() + timeout;
    let started = virsh.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut process = started.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::other("virsh is not installed (Debian: libvirt-clients)"),
        _ => io::Error::other(format!("virsh cannot be run: {error}")),
    })?;
    let (sender, receiver) = mpsc::channel();
    let most = [LIMITS.reply as u64 + MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES];
    for (index, pipe) in pipes(&mut process).into_iter().enumerate() {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // What is beyond is not read, so that virsh ends with SIGPIPE.
            let read = pipe.take(most[index]).read_to_end(&mut bytes);
            sender.send((index, read.map(|_| bytes)))
        });
    }
    let mut read = [Vec::new(), Vec::new()];
    for _ in 0..read.len() {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((index, bytes)) => read[index] = bytes?,
            Err(_) => {
                process.kill()?;
                process.wait()?;
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
    let [stdout, stderr] = read;
    Ok(Output { status: process.wait()?, stdout, stderr })
}

/// Its output, then its messages.
fn pipes(process: &mut Child) -> Vec<Box<dyn Read + Send>> {
    let stdout = process.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
    let stderr = process.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
    stdout.into_iter().chain(stderr).collect()
}

impl Read for Virsh {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reply.read(buffer)?;
        if read > 0 {
            return Ok(read);
        }
        let Some(end) = self.requests.iter().position(|byte| *byte == b'\n') else {
            // Nothing was asked, and libvirt passes on nothing unasked.
            thread::sleep(self.timeout);
            return Err(io::ErrorKind::TimedOut.into());
        };
        let rest = self.requests.split_off(end + 1);
        let request = mem::replace(&mut self.requests, rest);
        self.reply = io::Cursor::new(self.exchange(&request[..end])?);
        self.reply.read(buffer)
    }
}

impl Write for Virsh {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.requests.extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AgentStream for Virsh {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl Transport for Virsh {
    fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.timeout = timeout.map_or(MAX_TIMEOUT, |timeout| timeout.min(MAX_TIMEOUT));
        Ok(())
    }

    fn limits(&self) -> Limits {
        LIMITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(message: &str, expected: Result<&str, io::ErrorKind>) {
        let answer = refusal("guest-x", message).map(|line| String::from_utf8(line).unwrap());
        assert_eq!(answer.as_deref().map_err(io::Error::kind), expected, "{message}");
    }

    #[test]
    fn an_agents_error_is_found_behind_virshs_words() {
        check(
            "internal error: unable to execute QEMU agent command 'guest-x': failed to open '/a': No such file",
            Ok(r#"{"error":{"class":"GenericError","desc":"failed to open '/a': No such file"}}"#),
        );
        check(
            "internal error: unable to execute QEMU agent command 'guest-x': The command guest-x has not been found",
            Ok(r#"{"error":{"class":"CommandNotFound","desc":"The command guest-x has not been found"}}"#),
        );
        // The daemon may speak another language.
        check(
            "Interner Fehler: Befehl 'guest-x': Command guest-x has been disabled: the agent is in frozen state",
            Ok(concat!(
                r#"{"error":{"class":"CommandNotFound","#,
                r#""desc":"Command guest-x has been disabled: the agent is in frozen state"}}"#
            )),
        );
    }

    #[test]
    fn what_libvirt_does_after_a_reply_that_is_too_large_is_explained() {
        let check = |message: &str, hint: &str| {
            let said = refusal("guest-x", message).unwrap_err().to_string();
            assert_eq!(said, format!("{message}{hint}"));
        };
        let ignored = ": libvirt ignores the agent until it is restarted in the guest";
        check("Unable to encode message payload", ": the reply is larger than the 4 MiB that libvirt passes on");
        check("No complete agent response found in 10485760 bytes: Numerical result out of range", ignored);
        check("Guest agent is not responding: QEMU guest agent is not available due to an error", ignored);
        check("internal error: no", "");
    }

    #[test]
    fn what_is_not_the_agents_error_is_the_channels() {
        check("Guest agent is not responding: QEMU guest agent is not connected", Err(io::ErrorKind::TimedOut));
        check("Guest agent is not responding: Guest agent not available for now", Err(io::ErrorKind::TimedOut));
        let lost = "Guest agent is not responding: QEMU guest agent is not available due to an error";
        check(lost, Err(io::ErrorKind::Other));
        check("Requested operation is not valid: domain is not running", Err(io::ErrorKind::ConnectionReset));
        check("failed to get domain 'web'", Err(io::ErrorKind::ConnectionReset));
        check("failed to connect to the hypervisor", Err(io::ErrorKind::Other));
        check("internal error: 'guest-y': no", Err(io::ErrorKind::Other));
        check("", Err(io::ErrorKind::Other));
    }
}
