//! One subcommand on several machines at once.
//!
//! qgactl runs itself once for each machine, so that a subcommand behaves as it does on one. What each run prints
//! appears line by line as it comes, behind the name of its machine. None of them has a standard input. The exit status
//! is the number of machines on which the subcommand failed.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    process::{Command, ExitCode, Stdio},
    sync::Mutex,
    thread,
};

use crate::{connect::Selected, failure::say, render::piece};

/// The option that tells a run its machine, whatever else its command line says.
pub(crate) const ONLY: &str = "--only";

/// Most runs at a time: each is a process, and one of its connections.
const MAX_RUNS: usize = 32;

/// Highest exit status: above it begin those that a shell gives to programs that it cannot run.
const MAX_STATUS: usize = 100;

/// Longest line that is kept together, in bytes: the output of a program may have no line ends at all.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// Runs the whole command line for each of these machines.
pub(crate) fn run(machines: Vec<Selected>) -> ExitCode {
    let total = machines.len();
    let threads = total.min(MAX_RUNS);
    let rest = Mutex::new(machines.into_iter());
    let failed = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some((name, address)) = rest.lock().ok().and_then(|mut rest| rest.next()) else { return };
            let name = piece(&name);
            let outcome = address.and_then(|address| run_one(&name, &address).map_err(|error| error.to_string()));
            if let Err(why) = &outcome {
                say(&format!("{name}: {}", piece(why)));
            }
            if !matches!(outcome, Ok(true))
                && let Ok(mut failed) = failed.lock()
            {
                failed.push(name);
            }
        }
    };
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let mut failed = failed.into_inner().unwrap_or_default();
    failed.sort();
    if !failed.is_empty() {
        say(&format!("qgactl: failed on {} of {total} machines: {}", failed.len(), failed.join(", ")));
    }
    u8::try_from(failed.len().min(MAX_STATUS)).unwrap_or(u8::MAX).into()
}

/// Whether it succeeded on this machine.
fn run_one(name: &str, address: &str) -> io::Result<bool> {
    let mut command = Command::new(env::current_exe()?);
    command.args([ONLY, address]).args(env::args_os().skip(1));
    let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
    thread::scope(|scope| {
        if let Some(pipe) = stderr {
            scope.spawn(|| pass_on(name, pipe, io::stderr()));
        }
        if let Some(pipe) = stdout {
            pass_on(name, pipe, io::stdout());
        }
    });
    Ok(process.wait()?.success())
}

/// Passes lines on until there are no more. A reader that has gone away is no reason to stop half-way.
fn pass_on(name: &str, pipe: impl Read, mut out: impl Write) {
    let mut lines = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.extend_from_slice(name.as_bytes());
        line.extend_from_slice(b": ");
        let begin = line.len();
        let read = (&mut lines).take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
        if !read.is_ok_and(|read| read > 0) {
            return;
        }
        if line.last() != Some(&b'\n') || line.len() == begin {
            line.push(b'\n');
        }
        // In one call, so that no other machine's line comes between.
        let _ = out.write_all(&line).and_then(|()| out.flush());
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(output: &[u8], expected: &[u8]) {
        let mut passed = Vec::new();
        pass_on("web", output, &mut passed);
        assert_eq!(String::from_utf8_lossy(&passed), String::from_utf8_lossy(expected));
    }

    #[test]
    fn each_line_begins_with_the_name_and_ends() {
        check(b"", b"");
        check(b"a\n\nb", b"web: a\nweb: \nweb: b\n");
        check(b"\xFF\n", b"web: \xFF\n");
    }

    #[test]
    fn output_without_line_ends_is_not_kept() {
        let mut passed = Vec::new();
        pass_on("web", &[b'x'; 200_000][..], &mut passed);
        assert_eq!(passed.iter().filter(|byte| **byte == b'\n').count(), 4);
    }
}
