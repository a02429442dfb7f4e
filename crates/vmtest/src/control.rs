//! Shell commands in the guest, on a port of their own, independent of the agent under test.
//!
//! The guest sends `ready` once the agent's service has been started. Then the host sends scripts, each after a line
//! with its length. The guest replies to each with a line of its exit status and the lengths of its output and errors,
//! and with those bytes. Scripts run one at a time. A script that leaves a process running must redirect its output.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// The port's name in the guest.
pub const PORT_NAME: &str = "vmtest.control";
/// How long a script may take. The same as any other wait of a test.
pub const SCRIPT_TIMEOUT: Duration = Duration::from_secs(60);
/// The first line that the guest sends.
const READY: &str = "ready\n";

/// The end of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit status; -1 when a signal killed it.
    pub status: i32,
    /// Its standard output.
    pub output: Vec<u8>,
    /// Its standard error.
    pub errors: Vec<u8>,
}

/// The host's side.
#[derive(Debug)]
pub struct Control {
    stream: BufReader<UnixStream>,
}

impl Control {
    /// The host's side on a stream; the guest may still be booting.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// Waits until the guest has booted and the agent's service has been started.
    ///
    /// # Errors
    /// When that does not happen in time.
    pub fn wait_ready(&mut self, deadline: Instant) -> Result<()> {
        self.set_deadline(deadline)?;
        let line = read_line(&mut self.stream).context("the guest did not boot")?;
        if line != READY {
            bail!("the guest sent {line:?} instead of {READY:?}");
        }
        Ok(())
    }

    /// Runs a script in the guest.
    ///
    /// # Errors
    /// When the guest does not answer in time. A script that fails is no error here.
    pub fn run(&mut self, script: &str) -> Result<Outcome> {
        self.set_deadline(Instant::now() + SCRIPT_TIMEOUT)?;
        self.exchange(script).with_context(|| format!("no answer of the guest to the script {script:?}"))
    }

    fn exchange(&mut self, script: &str) -> Result<Outcome> {
        write!(self.stream.get_mut(), "{}\n{script}", script.len())?;
        let line = read_line(&mut self.stream)?;
        let fields: Vec<_> = line.split_whitespace().collect();
        let [status, output, errors] = fields[..] else { bail!("the guest sent {line:?}") };
        let (mut output, mut errors) = (vec![0; output.parse()?], vec![0; errors.parse()?]);
        self.stream.read_exact(&mut output)?;
        self.stream.read_exact(&mut errors)?;
        Ok(Outcome { status: status.parse()?, output, errors })
    }

    fn set_deadline(&self, deadline: Instant) -> Result<()> {
        let remaining = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        Ok(self.stream.get_ref().set_read_timeout(Some(remaining))?)
    }
}

/// The guest's side: runs scripts until the port ends.
///
/// # Errors
/// When the port breaks.
pub fn serve(input: impl Read, mut output: impl Write) -> Result<()> {
    let mut input = BufReader::new(input);
    output.write_all(READY.as_bytes())?;
    loop {
        let length = read_line(&mut input)?;
        let mut script = vec![0; length.trim().parse().with_context(|| format!("{length:?} is no length"))?];
        input.read_exact(&mut script)?;
        let outcome = match Command::new("/bin/sh").arg("-c").arg(String::from_utf8(script)?).output() {
            Ok(ran) => Outcome { status: ran.status.code().unwrap_or(-1), output: ran.stdout, errors: ran.stderr },
            Err(error) => Outcome { status: -1, output: Vec::new(), errors: error.to_string().into_bytes() },
        };
        let mut reply = format!("{} {} {}\n", outcome.status, outcome.output.len(), outcome.errors.len()).into_bytes();
        reply.extend(outcome.output);
        reply.extend(outcome.errors);
        output.write_all(&reply)?;
    }
}

fn read_line(stream: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    match stream.read_line(&mut line) {
        Ok(0) => bail!("the control channel ended"),
        Ok(_) => Ok(line),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => bail!("the deadline passed"),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_comes_back_with_its_status_output_and_errors() {
        let (host, guest) = UnixStream::pair().unwrap();
        std::thread::spawn(move || serve(guest.try_clone().unwrap(), guest));
        let mut control = Control::new(host);
        control.wait_ready(Instant::now() + SCRIPT_TIMEOUT).unwrap();
        for status in [0, 3] {
            let outcome = control.run(&format!("printf 'a\nb'; printf c >&2; exit {status}")).unwrap();
            assert_eq!(outcome, Outcome { status, output: b"a\nb".to_vec(), errors: b"c".to_vec() });
        }
    }

    #[test]
    fn the_end_of_the_guest_ends_the_wait() {
        let (host, guest) = UnixStream::pair().unwrap();
        drop(guest);
        let error = Control::new(host).wait_ready(Instant::now() + SCRIPT_TIMEOUT).unwrap_err();
        assert_eq!(format!("{error:#}"), "the guest did not boot: the control channel ended");
    }
}
