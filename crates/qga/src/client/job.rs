//! A job in the guest: its output as it comes, and input for it at any time.
//!
//! A job has two halves. Each knows the job's id and how far its streams have come, and no connection: after a failure
//! that is no refusal, the caller connects again and goes on with the same halves, and no byte is lost or doubled. A
//! read that was not answered is the same request again, and gets the same bytes; a write that was not answered is
//! repeated with the same bytes, and those that were accepted are passed over.
//! The simple way is [`JobReader::read`] and [`JobWriter::write`], one after the other. A caller that waits for several
//! things at once, as a terminal does, makes requests ([`JobReader::request`], [`JobWriter::request`]), passes them to
//! [`Client::send`], and gives the replies to `accept`; then a write ends the wait of the read before it.
//! A caller that only writes may wait forever: a program whose output is not read stops reading its input.

use std::time::{Duration, Instant};

use super::{Client, Error, Result, Transport};
use crate::{
    commands::job::{AcceptedInput, Job, JobOutput, JobRead, JobStart, JobState, JobWrite, STREAM_BYTES},
    wire::base64::Base64,
};

/// The half of a job that gets its output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobReader {
    id: i64,
    out_offset: i64,
    err_offset: i64,
}

/// What a job wrote since the read before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Bytes of standard output, or of the terminal.
    pub out: Vec<u8>,
    /// Bytes of standard error.
    pub err: Vec<u8>,
    /// How the job ended, if it did and no output follows.
    pub end: Option<JobEnd>,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobEnd {
    /// Its exit code, unless a signal ended it.
    pub exit_code: Option<i64>,
    /// The signal that ended it.
    pub signal: Option<i64>,
    /// Whether its timeout had passed.
    pub timed_out: bool,
}

impl JobReader {
    /// The half of a job that was just started.
    pub fn new(id: i64) -> Self {
        Self { id, out_offset: 0, err_offset: 0 }
    }

    /// The half of a job in a list, for what no earlier reader has acknowledged.
    pub fn resume(job: &Job) -> Self {
        Self { id: job.id, out_offset: job.out_begin, err_offset: job.err_begin }
    }

    /// The job's id.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Reads what has come, or waits so long for it at most; the reply may take `reply_timeout` in addition.
    ///
    /// # Errors
    /// As [`Client::call`]. Bytes that somebody else acknowledged in the meantime are refused.
    pub fn read<T: Transport>(
        &mut self,
        client: &mut Client<T>,
        wait: Duration,
        reply_timeout: Duration,
    ) -> Result<Output> {
        let reply = client.call(&self.request(wait), Instant::now() + wait + reply_timeout)?;
        self.accept(reply)
    }

    /// The next read, which acknowledges all that was accepted.
    pub fn request(&self, wait: Duration) -> JobRead {
        JobRead {
            id: self.id,
            out_offset: self.out_offset,
            err_offset: Some(self.err_offset),
            wait: Some(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)),
            count: None,
        }
    }

    /// Takes the reply to the read, once.
    ///
    /// # Errors
    /// When it is no reply to that.
    pub fn accept(&mut self, reply: JobOutput) -> Result<Output> {
        let (Some(err), Some(err_offset), Some(err_eof)) = (reply.err_b64, reply.err_offset, reply.err_eof) else {
            return Err(Error::Garbled("standard error is absent, which was asked for".into()));
        };
        let out = piece(reply.out_b64, self.out_offset, reply.out_offset)?;
        let err = piece(err, self.err_offset, err_offset)?;
        (self.out_offset, self.err_offset) = (reply.out_offset, err_offset);
        let is_over = reply.state == JobState::Exited && reply.out_eof && err_eof;
        let end = JobEnd { exit_code: reply.exit_code, signal: reply.signal, timed_out: reply.timed_out };
        Ok(Output { out, err, end: is_over.then_some(end) })
    }
}

/// The bytes of a stream between two offsets.
fn piece(data: Base64, begin: i64, end: i64) -> Result<Vec<u8>> {
    let bytes = data.into_bytes().map_err(|error| Error::Garbled(error.desc))?;
    let is_there = bytes.len() <= STREAM_BYTES && after(begin, bytes.len()) == Some(end);
    match is_there {
        true => Ok(bytes),
        false => Err(Error::Garbled(format!("{} bytes from offset {begin} to {end}", bytes.len()))),
    }
}

/// The half of a job that gives it input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobWriter {
    id: i64,
    offset: i64,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// How many of the bytes, from the first, the job gets. The next write begins behind them.
    pub count: usize,
    /// Whether no input is taken any more: it has ended, or the program does not read it any more.
    pub closed: bool,
}

impl JobWriter {
    /// The half of a job that was just started.
    pub fn new(id: i64) -> Self {
        Self { id, offset: 0 }
    }

    /// The half of a job in a list, behind all input that it has got.
    pub fn resume(job: &Job) -> Self {
        Self { id: job.id, offset: job.in_offset }
    }

    /// Writes as many of the bytes as there is room for, and waits so long at most for room for one; the reply may take
    /// `reply_timeout` in addition. The input ends behind the bytes if `ends`, once all of them are accepted.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn write<T: Transport>(
        &mut self,
        client: &mut Client<T>,
        bytes: &[u8],
        ends: bool,
        wait: Duration,
        reply_timeout: Duration,
    ) -> Result<Accepted> {
        let reply = client.call(&self.request(bytes, ends, wait), Instant::now() + wait + reply_timeout)?;
        self.accept(reply, bytes.len())
    }

    /// The next write.
    pub fn request(&self, bytes: &[u8], ends: bool, wait: Duration) -> JobWrite {
        JobWrite {
            id: self.id,
            buf_b64: Some(bytes.to_vec().into()),
            offset: Some(self.offset),
            eof: Some(ends),
            wait: Some(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)),
        }
    }

    /// Takes the reply to the write of so many bytes, once.
    ///
    /// # Errors
    /// When it is no reply to that.
    pub fn accept(&mut self, reply: AcceptedInput, sent: usize) -> Result<Accepted> {
        let count = usize::try_from(reply.count).ok().filter(|count| *count <= sent);
        let accepted = count.and_then(|count| Some((count, after(self.offset, count)?)));
        let Some((count, offset)) = accepted else {
            return Err(Error::Garbled(format!("{} of {sent} bytes accepted", reply.count)));
        };
        self.offset = offset;
        Ok(Accepted { count, closed: reply.closed })
    }
}

/// The offset so many bytes behind another one.
fn after(offset: i64, bytes: usize) -> Option<i64> {
    offset.checked_add(i64::try_from(bytes).ok()?)
}

impl<T: Transport> Client<T> {
    /// Starts a job. If the reply is lost, nobody knows whether the job runs, so this is not to be repeated.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn start_job(&mut self, job: &JobStart, deadline: Instant) -> Result<(JobReader, JobWriter)> {
        let id = self.call(job, deadline)?.id;
        Ok((JobReader::new(id), JobWriter::new(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(out: &str, out_offset: i64, err: &str, err_offset: i64) -> JobOutput {
        JobOutput {
            out_b64: out.as_bytes().to_vec().into(),
            out_offset,
            out_eof: true,
            err_b64: Some(err.as_bytes().to_vec().into()),
            err_offset: Some(err_offset),
            err_eof: Some(false),
            state: JobState::Exited,
            exit_code: Some(3),
            signal: None,
            timed_out: false,
        }
    }

    #[test]
    fn the_next_read_begins_where_the_accepted_output_ends() {
        let mut reader = JobReader::new(7);
        let output = reader.accept(output("abc", 3, "e", 1)).unwrap();
        assert_eq!((output.out, output.err, output.end), (b"abc".to_vec(), b"e".to_vec(), None));
        let next = reader.request(Duration::from_millis(1500));
        assert_eq!((next.id, next.out_offset, next.err_offset, next.wait), (7, 3, Some(1), Some(1500)));
    }

    #[test]
    fn a_job_is_over_when_it_has_exited_and_both_streams_are_at_their_end() {
        let end = |reply| JobReader::new(1).accept(reply).unwrap().end;
        let over = JobOutput { err_eof: Some(true), ..output("", 0, "", 0) };
        assert_eq!(end(over.clone()), Some(JobEnd { exit_code: Some(3), signal: None, timed_out: false }));
        assert_eq!(end(JobOutput { state: JobState::Running, ..over.clone() }), None);
        assert_eq!(end(JobOutput { out_eof: false, ..over }), None);
    }

    #[test]
    fn output_that_was_not_asked_for_is_refused_and_moves_nothing() {
        let mut reader = JobReader::new(1);
        let without_errors = JobOutput { err_b64: None, ..output("", 0, "", 0) };
        for wrong in [output("abc", 4, "", 0), output("", 0, "e", 0), output("", -1, "", 0), without_errors] {
            assert!(matches!(reader.accept(wrong), Err(Error::Garbled(_))));
            assert_eq!(reader, JobReader::new(1));
        }
    }

    #[test]
    fn the_next_write_begins_where_the_accepted_input_ends() {
        let mut writer = JobWriter::new(1);
        let reply = |count| AcceptedInput { count, offset: 100, closed: false };
        assert_eq!(writer.accept(reply(2), 3).unwrap(), Accepted { count: 2, closed: false });
        assert_eq!(writer.request(b"c", true, Duration::ZERO).offset, Some(2));
        for wrong in [-1, 4] {
            assert!(writer.accept(reply(wrong), 3).is_err());
        }
        assert_eq!(writer, JobWriter { id: 1, offset: 2 });
    }
}
