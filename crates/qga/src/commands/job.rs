//! Jobs: programs that a host talks to while they run. These commands are qgad's own; other agents do not have them.
//!
//! **Output.** A job has a stream for each of standard output and standard error. Offsets count bytes from its start. A
//! read names the offset at which it begins, and acknowledges all bytes before it, which are discarded. So a read whose
//! reply was lost can be repeated and returns the same bytes. No byte is dropped: the agent keeps [`STREAM_BYTES`] of
//! each stream, and while that is full the program waits, as with any pipe. Input has offsets, too, so that a write can
//! be repeated.
//!
//! **Waiting.** A read or a write may wait for [`MAX_WAIT`] at most. The wait ends early when there is something to
//! report, and when another request arrives on the same connection. Hosts that share the channel use short waits.
//!
//! **Life.** A job outlives its connection and its agent: the next agent has it by the same id, with all of its output.
//! It is forgotten at a host's request, or some time after its end. An id is never used twice.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::session::Nothing;
use crate::{
    command::{Class, Command, HELPER_TIMEOUT, Spec, WhileFrozen},
    wire::base64::Base64,
};

/// Most unread bytes kept of each stream of a job, and most that one read returns of it: its base64, twice, fits into
/// the 10 MiB that libvirt accepts as a reply.
pub const STREAM_BYTES: usize = 2 * 1024 * 1024;
/// Most accepted bytes of input that a job has not read yet.
pub const INPUT_BYTES: usize = 2 * 1024 * 1024;
/// Longest wait of one read or write; a longer one is taken as this. Half of the command's own timeout.
pub const MAX_WAIT: Duration = Duration::from_secs(30);
/// How long a job with [`Unattended::HangUp`] goes on when no command names it: enough for a host to come back.
pub const HANG_UP_AFTER: Duration = Duration::from_secs(5 * 60);
/// How long after SIGTERM a job whose timeout has passed gets SIGKILL.
pub const KILL_AFTER: Duration = Duration::from_secs(10);

/// A command on a job that is there: it names a job, runs nothing new, and touches no file system.
const fn spec(name: &'static str) -> Spec {
    Spec::new(name, Class::Exec).unaudited().while_frozen(WhileFrozen::Served)
}

/// Starts a program as a job, and returns at once.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobStart {
    /// The program: a path, or a name that is looked up in `PATH`; also its `argv[0]`. Unless given, the login shell of
    /// the user, started as at a login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Its further arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arg: Option<Vec<String>>,
    /// Environment variables, as `NAME=value`, in addition to those of the agent, or of a login if `user` is given.
    /// They replace variables of the same name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// Its working directory, opened with the user's rights. Unless given, the user's home directory, or `/` where that
    /// cannot be entered; without `user`, the agent's working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// The name of the user that it runs as, with the user's groups, and with `HOME`, `SHELL`, `USER`, `LOGNAME` and
    /// `PATH` as at a login. Unless given, the agent's own user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether qgad-job-write can give it input; otherwise its input is empty. One with a terminal always has input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<bool>,
    /// The terminal that it gets for all three standard streams; none unless given. Its output is standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Terminal>,
    /// Seconds after which its processes get SIGTERM, and ten seconds later SIGKILL; never unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// What happens to it when no command names it for five minutes. Unless given, `hang-up` for one with a terminal
    /// and `keep` for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unattended: Option<Unattended>,
}

impl Command for JobStart {
    const SPEC: Spec = Spec::new("qgad-job-start", Class::Exec).timeout(HELPER_TIMEOUT);
    type Reply = StartedJob;
}

/// A terminal as a program sees it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Terminal {
    /// Its height in characters, from 1 to 65535.
    pub rows: i64,
    /// Its width in characters, from 1 to 65535.
    pub columns: i64,
    /// Its type, for the variable `TERM`: that of the host's terminal. `vt220` unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term: Option<String>,
}

/// What becomes of a job when no command names it for [`HANG_UP_AFTER`].
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Unattended {
    /// Nothing: it goes on.
    Keep,
    /// Its processes get SIGHUP, and its streams are closed, as when a terminal is disconnected.
    HangUp,
}

/// A job that was started.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StartedJob {
    /// Its id, for the other commands.
    pub id: i64,
    /// The process id of the program, which is also that of its session and process group.
    pub pid: i64,
}

/// Returns what a job wrote from an offset on, and whether it has exited. Acknowledges what is before the offset.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct JobRead {
    /// What qgad-job-start returned.
    pub id: i64,
    /// Where in standard output to read: 0 at first, then the `out-offset` of the last reply.
    pub out_offset: i64,
    /// The same of standard error, which is not read unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub err_offset: Option<i64>,
    /// Milliseconds to wait for something new: a byte, the end of a stream that is read, the exit of the program. 0
    /// unless given, at most 30000. If nothing can follow, the reply is immediate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<i64>,
    /// Most bytes of each stream: 2 MiB unless given, and at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
}

impl Command for JobRead {
    const SPEC: Spec = spec("qgad-job-read").timeout(HELPER_TIMEOUT);
    type Reply = JobOutput;
}

/// What a job wrote, and its state. Nothing follows once it has exited and each stream is at its end.
///
/// A stream may end before the program exits, or after that: processes that it left behind may still write.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct JobOutput {
    /// Bytes of standard output, or of the terminal.
    pub out_b64: Base64,
    /// The offset behind them, from which to read next.
    pub out_offset: i64,
    /// Whether nothing follows them.
    pub out_eof: bool,
    /// Bytes of standard error; this and the next two are present if `err-offset` was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub err_b64: Option<Base64>,
    /// The offset behind them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub err_offset: Option<i64>,
    /// Whether nothing follows them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub err_eof: Option<bool>,
    /// Whether the program has exited.
    pub state: JobState,
    /// Its exit code, unless it runs or a signal ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i64>,
    /// Whether its timeout has passed.
    pub timed_out: bool,
}

/// Whether a program has exited.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// It has not exited.
    Running,
    /// It has exited, by itself or by a signal.
    Exited,
}

/// Gives input to a job, as far as there is room for it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct JobWrite {
    /// What qgad-job-start returned.
    pub id: i64,
    /// The bytes; none unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buf_b64: Option<Base64>,
    /// Where in the job's input the bytes begin. Those that were accepted already are skipped, so that a write whose
    /// reply was lost can be repeated. Unless given, behind the bytes accepted so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// Whether the input ends behind the bytes, once all of them are accepted; false unless given. Not for a job with a
    /// terminal, where a character (usually Ctrl-D) ends the input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eof: Option<bool>,
    /// Milliseconds to wait for room for at least one byte; 0 unless given, at most 30000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<i64>,
}

impl Command for JobWrite {
    const SPEC: Spec = spec("qgad-job-write").timeout(HELPER_TIMEOUT);
    type Reply = AcceptedInput;
}

/// How much of a job's input was accepted. The job gets that even if the agent ends.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AcceptedInput {
    /// How many of the bytes, from the first. Those that had been accepted before count, too.
    pub count: i64,
    /// The offset behind all input accepted so far.
    pub offset: i64,
    /// Whether no more input is accepted: it has ended, or the program does not read it any more.
    pub closed: bool,
}

/// Sends a signal to all processes of a job: those of its session and, if it has one, of its control group.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobSignal {
    /// What qgad-job-start returned.
    pub id: i64,
    /// The signal's name, such as `TERM` or `SIGTERM`, or its number in the guest in decimal digits.
    pub signal: String,
}

impl Command for JobSignal {
    const SPEC: Spec = Spec { audited: true, ..spec("qgad-job-signal") };
    type Reply = Nothing;
}

/// Changes the size of a job's terminal. The foreground program gets SIGWINCH.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobResize {
    /// What qgad-job-start returned.
    pub id: i64,
    /// Its new height in characters, from 1 to 65535.
    pub rows: i64,
    /// Its new width in characters, from 1 to 65535.
    pub columns: i64,
}

impl Command for JobResize {
    const SPEC: Spec = spec("qgad-job-resize");
    type Reply = Nothing;
}

/// Lists all jobs, oldest first, whoever started them.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobList {}

impl Command for JobList {
    const SPEC: Spec = spec("qgad-job-list");
    type Reply = Vec<Job>;
}

/// A job.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Job {
    /// Its id.
    pub id: i64,
    /// The process id of the program, which may belong to another process once it has exited.
    pub pid: i64,
    /// The program.
    pub path: String,
    /// The user that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// What happens to it when no command names it.
    pub unattended: Unattended,
    /// Whether the program has exited.
    pub state: JobState,
    /// Its exit code, unless it runs or a signal ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i64>,
    /// Whether its timeout has passed.
    pub timed_out: bool,
    /// Seconds since its start.
    pub age: i64,
    /// The offset of the first byte of standard output that has not been acknowledged.
    pub out_begin: i64,
    /// The offset behind the last byte of it that has been kept so far.
    pub out_end: i64,
    /// The same as `out-begin`, of standard error.
    pub err_begin: i64,
    /// The same as `out-end`, of standard error.
    pub err_end: i64,
    /// The offset behind all input accepted so far.
    pub in_offset: i64,
}

/// Forgets a job that has exited, with all output that has not been read.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobForget {
    /// What qgad-job-start returned.
    pub id: i64,
}

impl Command for JobForget {
    const SPEC: Spec = spec("qgad-job-forget");
    type Reply = Nothing;
}
