//! Who looks after the pipes of programs whose agent has left.
//!
//! A program that writes to a pipe which nobody reads any more is killed by that: an upgrade of the guest that a host runs
//! through the agent would end halfway when it comes to the agent. So an agent that leaves starts an heir, this very program,
//! and hands over the pipes that are open. The heir drops what programs write, gives them the rest of their input, and ends
//! with the last pipe. What programs have written and how they end is lost with the agent. An agent that is killed leaves
//! no heir.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, Write},
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
    thread,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        prctl,
        socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt},
        time::TimeVal,
    },
};

use super::{pump::STACK_BYTES, table::Pipes};
use crate::{
    environment::Environment,
    process::{
        descriptor_passing::{receive, send, take_standard_input},
        spawn::{Program, Stdio},
    },
    util::errno,
};

/// What makes this program an heir; not an option for people.
pub(crate) const OPTION: &str = "--program-heir";
/// This very program, whatever is at its path by now.
const OURSELVES: &str = "/proc/self/exe";
/// How long the agent waits for its heir to take the next pipe: a service manager that wants it to leave waits longer.
const PATIENCE_SECONDS: i64 = 2;

/// A pipe that is read.
const OUTPUT: u8 = b'O';
/// What is to be written to the pipe that comes next.
const REST: u8 = b'R';
/// A pipe that is written.
const INPUT: u8 = b'I';

/// Starts an heir and gives it the pipes.
pub(super) fn start(pipes: &Pipes, environment: &Environment) -> io::Result<()> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    setsockopt(&ours, sockopt::SendTimeout, &TimeVal::new(PATIENCE_SECONDS, 0))?;
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    let program = Program::new(OURSELVES, [OPTION], environment.for_children())?;
    program.start(Stdio { input: theirs.as_fd(), output: null.as_fd(), error: io::stderr().as_fd() })?;
    drop(theirs);
    for pipe in &pipes.outputs {
        send(&ours, OUTPUT, &[], Some(pipe))?;
    }
    for (pipe, bytes) in &pipes.inputs {
        let mut rest = File::from(memfd_create(c"input", MFdFlags::MFD_CLOEXEC)?);
        rest.write_all(bytes)?;
        rest.rewind()?;
        send(&ours, REST, &[], Some(&rest))?;
        send(&ours, INPUT, &[], Some(pipe))?;
    }
    Ok(())
}

/// Runs the heir to its end.
pub(crate) fn run() -> ExitCode {
    // A name for lists of processes; that of the program is the path by which it was started.
    let _ = prctl::set_name(c"qgad-heir");
    match look_after_pipes() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("the pipes of programs whose agent has left are given up: {}", errno::words(error));
            ExitCode::FAILURE
        }
    }
}

/// A thread each, which needs no memory but its stack.
fn look_after_pipes() -> io::Result<()> {
    let agent = take_standard_input()?;
    let (mut threads, mut rest) = (Vec::new(), None);
    let mut kind = [0];
    while let Some((_, Some(descriptor))) = receive(&agent, &mut kind)? {
        match kind[0] {
            REST => rest = Some(File::from(descriptor)),
            OUTPUT => {
                let mut pipe = blocking(descriptor)?;
                threads.push(start_thread(move || io::copy(&mut pipe, &mut io::sink()))?);
            }
            _ => {
                let (mut pipe, rest) = (blocking(descriptor)?, rest.take());
                let feed = move || rest.map_or(Ok(0), |mut rest| io::copy(&mut rest, &mut pipe));
                threads.push(start_thread(feed)?);
            }
        }
    }
    for thread in threads {
        // A program that has closed its input early is no failure.
        let _ = thread.join();
    }
    Ok(())
}

fn start_thread(
    work: impl FnOnce() -> io::Result<u64> + Send + 'static,
) -> io::Result<thread::JoinHandle<io::Result<u64>>> {
    thread::Builder::new().stack_size(STACK_BYTES).spawn(work)
}

fn blocking(pipe: OwnedFd) -> io::Result<File> {
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(pipe.into())
}
