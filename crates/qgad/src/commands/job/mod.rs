//! Jobs: programs that a host talks to while they run.
//!
//! Every command except the start sends a request to the supervisor and waits for the answer without a thread.
//! Arguments, environment, input and output are for the host only: the log has the program's path and the job's id.

mod start;

use std::{
    os::fd::{AsFd, BorrowedFd},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
};
use qga::{
    Command,
    commands::{
        job::{
            AcceptedInput, INPUT_BYTES, Job, JobForget, JobList, JobOutput, JobRead, JobResize, JobSignal, JobWrite,
            MAX_WAIT, STREAM_BYTES,
        },
        session::Nothing,
    },
    wire::{base64::Base64, message::Error},
};

use super::{Begun, Result, Run, Wait};
use crate::{
    guest::Guest,
    process::jobs::{Pending, Request},
    util::errno,
};

/// The greatest number of a signal on Linux.
const MAX_SIGNAL: i32 = 64;

/// A command on existing jobs.
trait AboutJob: Command {
    /// The job.
    fn id(&self) -> i64;

    /// The request to the supervisor.
    fn request(&self, guest: &Guest) -> Result<Request>;

    /// The reply, from the supervisor's answer. `None` when the supervisor has ended, with its last job.
    fn reply(answer: &Pending) -> Result<Option<Self::Reply>>;

    /// The reply when there are no jobs.
    fn without_jobs(id: i64) -> Result<Self::Reply> {
        Err(Error::generic(format!("job {id} does not exist")))
    }
}

impl<C: AboutJob> Run for C {
    /// For a command that could not begin, because the agent is not connected to the supervisor: connects, if there is
    /// one. The thread does not wait for what jobs do.
    fn run(self, guest: &Guest) -> Result<C::Reply> {
        guest.jobs.find();
        let Some(begun) = self.begin(guest) else { return C::without_jobs(self.id()) };
        let Begun { wait, finish } = begun?;
        wait.hurry();
        wait_for(wait.descriptor());
        finish()
    }

    fn audit_subject(&self) -> Option<String> {
        Some(format!("job {}", self.id()))
    }

    fn begin(&self, guest: &Guest) -> Option<Result<Begun<C::Reply>>> {
        let failed = |error| Error::generic(format!("failed to reach the jobs: {}", errno::describe(error)));
        let (id, asked) = (self.id(), self.request(guest).and_then(|request| guest.jobs.ask(request).map_err(failed)));
        let begun = asked.transpose()?.map(|pending| {
            let answer = pending.clone();
            let finish = move || C::reply(&answer)?.map_or_else(|| C::without_jobs(id), Ok);
            Begun { wait: Arc::new(pending), finish: Box::new(finish) as _ }
        });
        Some(begun)
    }
}

impl Wait for Pending {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn hurry(&self) {
        self.ask_for_answer();
    }
}

fn wait_for(descriptor: BorrowedFd<'_>) {
    while poll(&mut [PollFd::new(descriptor, PollFlags::POLLIN)], PollTimeout::NONE) == Err(Errno::EINTR) {}
}

impl AboutJob for JobRead {
    fn id(&self) -> i64 {
        self.id
    }

    fn request(&self, guest: &Guest) -> Result<Request> {
        let count = self.count.map_or(Ok(STREAM_BYTES), |count| not_negative("count", count))?.min(STREAM_BYTES);
        if let Some(offset) = self.err_offset {
            not_negative("err-offset", offset)?;
        }
        Ok(Request::Read {
            id: self.id,
            out_offset: self.out_offset,
            err_offset: self.err_offset,
            count: i64::try_from(count).unwrap_or(i64::MAX),
            wait: wait_millis(self.wait, guest.timeout(&Self::SPEC))?,
        })
    }

    fn reply(answer: &Pending) -> Result<Option<JobOutput>> {
        answer.output()
    }
}

impl AboutJob for JobWrite {
    fn id(&self) -> i64 {
        self.id
    }

    fn request(&self, guest: &Guest) -> Result<Request> {
        let mut bytes = self.buf_b64.clone().map(Base64::into_bytes).transpose()?.unwrap_or_default();
        // The supervisor would refuse it.
        let is_whole = bytes.len() <= INPUT_BYTES;
        bytes.truncate(INPUT_BYTES);
        if let Some(offset) = self.offset {
            not_negative("offset", offset)?;
        }
        Ok(Request::Write {
            id: self.id,
            offset: self.offset,
            is_last: is_whole && self.eof == Some(true),
            wait: wait_millis(self.wait, guest.timeout(&Self::SPEC))?,
            bytes,
        })
    }

    fn reply(answer: &Pending) -> Result<Option<AcceptedInput>> {
        answer.accepted()
    }
}

impl AboutJob for JobSignal {
    fn id(&self) -> i64 {
        self.id
    }

    fn request(&self, _: &Guest) -> Result<Request> {
        let number = signal_number(&self.signal)
            .ok_or_else(|| Error::generic(format!("there is no signal '{}'", self.signal)))?;
        Ok(Request::Signal { id: self.id, number })
    }

    fn reply(answer: &Pending) -> Result<Option<Nothing>> {
        answer.done().map(|done| done.map(|()| Nothing {}))
    }
}

impl AboutJob for JobResize {
    fn id(&self) -> i64 {
        self.id
    }

    fn request(&self, _: &Guest) -> Result<Request> {
        Ok(Request::Resize { id: self.id, rows: self.rows, columns: self.columns })
    }

    fn reply(answer: &Pending) -> Result<Option<Nothing>> {
        answer.done().map(|done| done.map(|()| Nothing {}))
    }
}

impl AboutJob for JobForget {
    fn id(&self) -> i64 {
        self.id
    }

    fn request(&self, _: &Guest) -> Result<Request> {
        Ok(Request::Forget { id: self.id })
    }

    fn reply(answer: &Pending) -> Result<Option<Nothing>> {
        answer.done().map(|done| done.map(|()| Nothing {}))
    }
}

impl AboutJob for JobList {
    fn id(&self) -> i64 {
        0
    }

    fn request(&self, _: &Guest) -> Result<Request> {
        Ok(Request::List)
    }

    fn reply(answer: &Pending) -> Result<Option<Vec<Job>>> {
        answer.list()
    }

    fn without_jobs(_: i64) -> Result<Vec<Job>> {
        Ok(Vec::new())
    }
}

fn not_negative(name: &str, number: i64) -> Result<usize> {
    usize::try_from(number).map_err(|_| Error::generic(format!("'{name}' is negative: {number}")))
}

/// How long to wait: less than the command may take, which the administrator may have shortened.
fn wait_millis(wait: Option<i64>, timeout: Duration) -> Result<i64> {
    let most = MAX_WAIT.min(timeout / 2).as_millis();
    let wait = wait.map_or(Ok(0), |wait| not_negative("wait", wait))?;
    Ok(i64::try_from(most).unwrap_or(i64::MAX).min(i64::try_from(wait).unwrap_or(i64::MAX)))
}

/// The number of a signal, from its name with or without `SIG`, or from digits.
fn signal_number(text: &str) -> Option<i32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|number| (1..=MAX_SIGNAL).contains(number));
    }
    let name = if text.starts_with("SIG") { text.into() } else { format!("SIG{text}") };
    Signal::from_str(&name).ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_a_name_and_a_number() {
        for text in ["TERM", "SIGTERM", "15"] {
            assert_eq!(signal_number(text), Some(15), "{text}");
        }
        assert_eq!(signal_number("64"), Some(64));
        for text in ["", "0", "65", "-1", "term", "SIGSIGTERM", "99999999999"] {
            assert_eq!(signal_number(text), None, "{text}");
        }
    }

    #[test]
    fn a_wait_is_bounded_by_half_of_the_commands_timeout() {
        let wait = |wait, seconds| wait_millis(wait, Duration::from_secs(seconds)).map_err(|error| error.desc);
        assert_eq!(wait(None, 60), Ok(0));
        assert_eq!(wait(Some(100), 60), Ok(100));
        assert_eq!(wait(Some(i64::MAX), 60), Ok(30_000));
        assert_eq!(wait(Some(30_000), 20), Ok(10_000));
        assert_eq!(wait(Some(-1), 60), Err("'wait' is negative: -1".into()));
    }
}
