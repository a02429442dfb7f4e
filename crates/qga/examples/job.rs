//! Runs a shell command in the guest as a job, gives it some input, and shows its output while it runs.
//!
//! `cargo run -p qga --example job -- /run/vm1.qga 'sort; echo sorted >&2; sleep 1; exit 3'`

use std::{
    error::Error,
    io::{self, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use qga::{
    Client,
    commands::job::{JobForget, JobStart},
};

/// How long a reply may take, beyond what the agent is asked to wait.
const REPLY_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the agent waits for output before it says that there is none.
const WAIT: Duration = Duration::from_secs(30);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(socket), Some(line)) = (arguments.next(), arguments.next()) else {
        return Err("usage: job SOCKET COMMAND".into());
    };
    let mut client = Client::new(UnixStream::connect(socket)?);
    let start = JobStart {
        path: Some("/bin/sh".into()),
        arg: Some(vec!["-c".into(), line]),
        stdin: Some(true),
        ..JobStart::default()
    };
    let (mut reader, mut writer) = client.start_job(&start, Instant::now() + REPLY_TIMEOUT)?;
    writer.write(&mut client, b"pear\napple\n", true, WAIT, REPLY_TIMEOUT)?;
    let end = loop {
        let output = reader.read(&mut client, WAIT, REPLY_TIMEOUT)?;
        io::stdout().write_all(&output.out)?;
        io::stderr().write_all(&output.err)?;
        if let Some(end) = output.end {
            break end;
        }
    };
    client.call(&JobForget { id: reader.id() }, Instant::now() + REPLY_TIMEOUT)?;
    println!("exit code {:?}, signal {:?}", end.exit_code, end.signal);
    Ok(())
}
