//! The process that keeps the pipes of programs open after their agent has ended.
//!
//! A program that writes to a pipe without a reader is killed by SIGPIPE. An upgrade of the guest that a host runs
//! through the agent would then stop halfway, when it replaces the agent. So an agent that ends starts a pipe holder,
//! which is the same executable, and passes it the open pipes. The pipe holder discards what programs write, gives
//! them the rest of their input, and ends with the last pipe. The output that the agent had and the exit status of
//! the programs are lost. An agent that is killed leaves no pipe holder.

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

/// The option that makes this executable a pipe holder. Not for people.
pub(crate) const OPTION: &str = "--pipe-holder";
/// The executable of this process. An upgrade may have replaced the file at its path.
const OURSELVES: &str = "/proc/self/exe";
/// How long, in seconds, the agent waits for the pipe holder to receive the next pipe. A service manager that stops the
/// agent waits longer.
const SEND_TIMEOUT_SECONDS: i64 = 2;

/// A message with a pipe to read.
const OUTPUT: u8 = b'O';
/// A message with the bytes to write to the pipe that follows.
const REST: u8 = b'R';
/// A message with a pipe to write.
const INPUT: u8 = b'I';

/// Starts a pipe holder and passes it the pipes.
pub(super) fn start(pipes: &Pipes, environment: &Environment) -> io::Result<()> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    setsockopt(&ours, sockopt::SendTimeout, &TimeVal::new(SEND_TIMEOUT_SECONDS, 0))?;
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

/// Runs the pipe holder to its end.
pub(crate) fn run() -> ExitCode {
    // For lists of processes, which would show `exe`. The kernel allows 15 bytes.
    let _ = prctl::set_name(c"qgad-pipes");
    match hold_pipes() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("programs lose their input and output: {}", errno::describe(error));
            ExitCode::FAILURE
        }
    }
}

/// Serves each pipe by a thread, which needs no memory except its stack.
fn hold_pipes() -> io::Result<()> {
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
        // It is no failure when a program closes its input early.
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
