//! A program in the guest, run to its end.
//!
//! The program is started and its status then polled, with pauses that grow from a millisecond to half a second: a
//! short program ends without a wait, a long one costs no load. The agent reports the end once, so a caller that loses
//! the connection during the wait has lost the report. The protocol cannot end a program: after the deadline it goes
//! on.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{Client, Result, Transport};
use crate::commands::exec::{Exec, ExecStatus, ProgramStatus};

/// About what an agent needs to start a program that ends at once.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// Longest that the end of a program goes unnoticed.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How waiting for a program ended.
#[derive(Debug)]
pub enum Ended {
    /// The program exited.
    Exited(ProgramStatus),
    /// The deadline passed first. The program goes on, and its status can still be asked for.
    StillRunning {
        /// Its process id.
        pid: i64,
    },
}

impl<T: Transport> Client<T> {
    /// Runs a program until it ends or the deadline passes; each reply on the way may take `reply_timeout`.
    ///
    /// # Errors
    /// As [`Self::call`], of `guest-exec` and `guest-exec-status`.
    pub fn run(&mut self, program: &Exec, reply_timeout: Duration, deadline: Option<Instant>) -> Result<Ended> {
        let pid = self.call(program, Instant::now() + reply_timeout)?.pid;
        let mut pause = FIRST_PAUSE;
        loop {
            let status = self.call(&ExecStatus { pid }, Instant::now() + reply_timeout)?;
            if status.exited {
                return Ok(Ended::Exited(status));
            }
            let remaining = deadline.map_or(pause, |deadline| deadline.saturating_duration_since(Instant::now()));
            if remaining.is_zero() {
                return Ok(Ended::StillRunning { pid });
            }
            thread::sleep(pause.min(remaining));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
