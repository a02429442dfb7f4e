//! Jobs through the real agent: output while they run, input, signals, terminals, and jobs that outlive the agent.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod conversation;
mod limits;
mod survival;
mod terminal;

#[path = "../support/mod.rs"]
mod support;

use std::{io::Write, os::unix::net::UnixStream};

use qga::{
    Client,
    commands::job::{
        AcceptedInput, Job, JobForget, JobList, JobOutput, JobRead, JobSignal, JobStart, JobState, JobWrite, StartedJob,
    },
};
use support::{Agent, deadline, ping, refusal};

/// Longer than a test may take, with a few of them one after the other.
const LONG: Option<i64> = Some(30_000);

/// A job of the shell, with input.
fn shell(line: &str) -> JobStart {
    JobStart {
        path: Some("/bin/sh".into()),
        arg: Some(vec!["-c".into(), line.into()]),
        stdin: Some(true),
        ..JobStart::default()
    }
}

fn start(client: &mut Client<UnixStream>, job: &JobStart) -> Result<StartedJob, String> {
    refusal(client.call(job, deadline()))
}

fn start_shell(client: &mut Client<UnixStream>, line: &str) -> i64 {
    start(client, &shell(line)).unwrap().id
}

fn read(client: &mut Client<UnixStream>, id: i64, out_offset: i64, wait: Option<i64>) -> Result<JobOutput, String> {
    refusal(client.call(&JobRead { id, out_offset, wait, ..JobRead::default() }, deadline()))
}

fn bytes(output: &JobOutput) -> Vec<u8> {
    output.out_b64.clone().into_bytes().unwrap()
}

fn write(client: &mut Client<UnixStream>, id: i64, text: &[u8], ends: bool) -> Result<AcceptedInput, String> {
    let write =
        JobWrite { id, buf_b64: Some(text.to_vec().into()), eof: Some(ends), wait: LONG, ..JobWrite::default() };
    refusal(client.call(&write, deadline()))
}

fn list(client: &mut Client<UnixStream>) -> Vec<Job> {
    client.call(&JobList {}, deadline()).unwrap()
}

fn signal(client: &mut Client<UnixStream>, id: i64, signal: &str) -> Result<(), String> {
    refusal(client.call(&JobSignal { id, signal: signal.into() }, deadline())).map(drop)
}

/// All that a job writes from here on to standard output, and its end, which comes when both streams have ended.
fn read_to_end(client: &mut Client<UnixStream>, id: i64, mut out_offset: i64) -> (Vec<u8>, JobOutput) {
    let (mut all, mut err_offset) = (Vec::new(), 0);
    loop {
        let request = JobRead { id, out_offset, err_offset: Some(err_offset), wait: LONG, ..JobRead::default() };
        let output = client.call(&request, deadline()).unwrap();
        all.extend(bytes(&output));
        (out_offset, err_offset) = (output.out_offset, output.err_offset.unwrap());
        if output.state == JobState::Exited && output.out_eof && output.err_eof == Some(true) {
            return (all, output);
        }
    }
}

/// Reads until the output has a text in it, and returns the offset behind all that was read.
fn read_until(client: &mut Client<UnixStream>, id: i64, mut offset: i64, text: &str) -> i64 {
    let (mut all, end) = (Vec::new(), deadline());
    while !String::from_utf8_lossy(&all).contains(text) {
        let output = read(client, id, offset, Some(1000)).unwrap();
        all.extend(bytes(&output));
        offset = output.out_offset;
        let is_in_time = std::time::Instant::now() < end && output.state == JobState::Running;
        assert!(is_in_time, "{text:?} is not in {:?}", String::from_utf8_lossy(&all));
    }
    offset
}

#[test]
fn output_comes_while_the_program_runs_and_input_reaches_it() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let id = start_shell(&mut client, "echo ready; cat; echo done >&2; exit 3");
    let offset = read_until(&mut client, id, 0, "ready\n");
    assert_eq!(write(&mut client, id, b"a\n", false), Ok(AcceptedInput { count: 2, offset: 2, closed: false }));
    assert_eq!(read_until(&mut client, id, offset, "a\n"), offset + 2);
    assert_eq!(write(&mut client, id, b"b\n", true), Ok(AcceptedInput { count: 2, offset: 4, closed: true }));
    let (rest, end) = read_to_end(&mut client, id, offset + 2);
    assert_eq!(rest, b"b\n");
    assert_eq!((end.exit_code, end.signal, end.timed_out, end.err_offset), (Some(3), None, false, Some(5)));
    assert_eq!(write(&mut client, id, b"c", false), Ok(AcceptedInput { count: 0, offset: 4, closed: true }));
}

#[test]
fn both_streams_are_told_apart_and_only_those_asked_for_are_read() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let id = start_shell(&mut client, "echo out; echo error >&2");
    let (out, end) = read_to_end(&mut client, id, 0);
    assert_eq!((out, end.exit_code), (b"out\n".to_vec(), Some(0)));
    let request = JobRead { id, out_offset: 4, err_offset: Some(6), wait: LONG, ..JobRead::default() };
    let again = client.call(&request, deadline()).unwrap();
    assert_eq!((again.out_eof, again.err_eof, again.state), (true, Some(true), JobState::Exited));
    let without_errors = read(&mut client, id, 4, LONG).unwrap();
    assert_eq!((without_errors.err_b64, without_errors.err_offset, without_errors.err_eof), (None, None, None));
}

#[test]
fn what_was_not_acknowledged_can_be_read_again_and_nothing_else() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let id = start_shell(&mut client, "printf abcdef; read line");
    read_until(&mut client, id, 0, "abcdef");
    let mut few = |offset, count| {
        let request = JobRead { id, out_offset: offset, count: Some(count), ..JobRead::default() };
        refusal(client.call(&request, deadline())).map(|output| (bytes(&output), output.out_offset))
    };
    assert_eq!(few(0, 2), Ok((b"ab".to_vec(), 2)));
    assert_eq!(few(0, 3), Ok((b"abc".to_vec(), 3)));
    assert_eq!(few(2, 100), Ok((b"cdef".to_vec(), 6)));
    assert_eq!(few(1, 1), Err("offset 1 of standard output was acknowledged: 2 is the first that is kept".into()));
    assert_eq!(few(7, 1), Err("offset 7 of standard output has not been written: it ends at 6".into()));
    assert_eq!(few(-1, 1), Err("offset -1 of standard output is negative".into()));
    assert_eq!(few(6, -1), Err("'count' is negative: -1".into()));
    assert_eq!(few(6, 0), Ok((Vec::new(), 6)));
}

#[test]
fn a_write_whose_reply_was_lost_can_be_repeated() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let id = start_shell(&mut client, "cat");
    let mut write_at = |offset, text: &str| {
        let buf_b64 = Some(text.as_bytes().to_vec().into());
        refusal(client.call(&JobWrite { id, buf_b64, offset: Some(offset), ..JobWrite::default() }, deadline()))
    };
    let accepted = |count, offset| Ok(AcceptedInput { count, offset, closed: false });
    assert_eq!(write_at(0, "abc"), accepted(3, 3));
    assert_eq!(write_at(0, "abc"), accepted(3, 3));
    assert_eq!(write_at(1, "bcde"), accepted(4, 5));
    assert_eq!(write_at(6, "x"), Err("offset 6 of the input: 5 are accepted so far".into()));
    assert_eq!(write_at(-1, "x"), Err("'offset' is negative: -1".into()));
    write(&mut client, id, b"", true).unwrap();
    assert_eq!(read_to_end(&mut client, id, 0).0, b"abcde");
}

#[test]
fn a_program_that_does_not_read_pushes_back_to_the_host() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let id = start_shell(&mut client, "read line; sleep 1000");
    let mut accepted = 0;
    loop {
        let request = JobWrite { id, buf_b64: Some(vec![b'x'; 1_000_000].into()), ..JobWrite::default() };
        let input = client.call(&request, deadline()).unwrap();
        accepted += input.count;
        assert!(accepted < 10_000_000);
        if input.count == 0 {
            break;
        }
    }
    signal(&mut client, id, "KILL").unwrap();
    let (_, end) = read_to_end(&mut client, id, 0);
    assert_eq!(end.signal, Some(9));
}

#[test]
fn a_program_that_closes_its_input_takes_no_more() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let id = start_shell(&mut client, "exec <&-; echo closed; sleep 1000");
    read_until(&mut client, id, 0, "closed");
    assert_eq!(write(&mut client, id, b"x", false), Ok(AcceptedInput { count: 0, offset: 0, closed: true }));
}

#[test]
fn a_signal_reaches_the_whole_session() {
    let agent = Agent::start();
    let mut client = agent.connect();
    // A shell with job control gives each of its jobs a process group of its own.
    let id = start_shell(&mut client, "set -m; sleep 1000 & sleep 1000 & echo started; wait; wait");
    let offset = read_until(&mut client, id, 0, "started");
    assert_eq!(signal(&mut client, id, "NONSENSE"), Err("there is no signal 'NONSENSE'".into()));
    signal(&mut client, id, "SIGTERM").unwrap();
    // The streams end only when all processes have.
    let (_, end) = read_to_end(&mut client, id, offset);
    assert_eq!((end.signal, end.exit_code), (Some(15), None));
    assert_eq!(signal(&mut client, id, "TERM"), Err(format!("job {id} has ended")));
}

#[test]
fn a_job_whose_time_is_up_is_terminated_and_killed_if_it_does_not_care() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let obedient = start(&mut client, &JobStart { timeout: Some(1), ..shell("sleep 1000") }).unwrap().id;
    let line = "trap '' TERM; echo trapped; while :; do sleep 1; done";
    let stubborn = start(&mut client, &JobStart { timeout: Some(1), ..shell(line) }).unwrap().id;
    for (id, signal) in [(obedient, 15), (stubborn, 9)] {
        let (_, end) = read_to_end(&mut client, id, 0);
        assert_eq!((end.signal, end.timed_out), (Some(signal), true));
    }
    let refused = start(&mut client, &JobStart { timeout: Some(0), ..shell("true") });
    assert_eq!(refused, Err("failed to start /bin/sh: its timeout is less than a second".into()));
}

#[test]
fn a_waiting_read_delays_neither_other_connections_nor_its_own() {
    let agent = Agent::start();
    let (mut client, mut other) = (agent.connect(), agent.connect());
    let id = start_shell(&mut client, "cat");
    let request =
        format!(r#"{{"execute":"qgad-job-read","arguments":{{"id":{id},"out-offset":0,"wait":30000}}}}{}"#, "\n");
    // Each of them would wait longer than half of what a test may take.
    client.transport().write_all(request.repeat(4).as_bytes()).unwrap();
    ping(&mut other);
    client.sync(deadline()).unwrap();
    client.transport().write_all(request.as_bytes()).unwrap();
    write(&mut other, id, b"x", false).unwrap();
    assert_eq!(read_until(&mut other, id, 0, "x"), 1);
    client.sync(deadline()).unwrap();
}

#[test]
fn a_waiting_read_returns_what_another_connection_caused() {
    let agent = Agent::start();
    let (mut client, mut other) = (agent.connect(), agent.connect());
    let id = start_shell(&mut client, "cat");
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_until(&mut client, id, 0, "hello"));
        write(&mut other, id, b"hello", false).unwrap();
        assert_eq!(reader.join().unwrap(), 5);
    });
}

#[test]
fn peers_that_leave_while_they_wait_leave_nothing_behind() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let id = start_shell(&mut client, "cat");
    for _ in 0..200 {
        let request = format!(r#"{{"execute":"qgad-job-read","arguments":{{"id":{id},"out-offset":0,"wait":30000}}}}"#);
        let mut peer = UnixStream::connect(agent.path("socket")).unwrap();
        peer.write_all(request.as_bytes()).unwrap();
    }
    write(&mut client, id, b"hello", true).unwrap();
    assert_eq!(read_to_end(&mut client, id, 0).0, b"hello");
}

#[test]
fn what_cannot_be_started_is_refused_with_its_reason() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let mut check = |job: JobStart, reason: &str| assert_eq!(start(&mut client, &job), Err(reason.into()));
    let of = |path: &str| JobStart { path: Some(path.into()), ..JobStart::default() };
    check(of("/no/such/program"), "failed to start /no/such/program: No such file or directory");
    check(of("no-such-program"), "failed to start no-such-program: No such file or directory");
    check(of("/etc/passwd"), "failed to start /etc/passwd: Permission denied");
    check(of("a\0b"), "failed to start a\0b: the path has a NUL in it");
    let nobody = JobStart { user: Some("no-such-user".into()), ..of("/bin/true") };
    check(nobody, "failed to start /bin/true as no-such-user: there is no user no-such-user");
    let nowhere = JobStart { cwd: Some("/no/such/directory".into()), ..of("/bin/true") };
    check(nowhere, "failed to start /bin/true: failed to enter /no/such/directory: No such file or directory");
    assert_eq!(list(&mut client), []);
}

#[test]
fn the_list_of_allowed_programs_counts_for_jobs_too() {
    let agent = Agent::start_with("exec-allow=/bin/echo;/usr/bin/echo\n", None);
    let mut client = agent.connect();
    let echo = JobStart { path: Some("echo".into()), arg: Some(vec!["x".into()]), ..JobStart::default() };
    let id = start(&mut client, &echo).unwrap().id;
    assert_eq!(read_to_end(&mut client, id, 0).0, b"x\n");
    let refused = start(&mut client, &shell("true")).unwrap_err();
    assert!(refused.starts_with("failed to start /bin/sh: it is not allowed, exec-allow in "), "{refused}");
    let shell = start(&mut client, &JobStart::default()).unwrap_err();
    assert!(shell.starts_with("failed to start a login shell: it is not allowed, exec-allow in "), "{shell}");
    let with_variable = start(&mut client, &JobStart { env: Some(vec!["A=1".into()]), ..echo }).unwrap_err();
    assert!(with_variable.contains("an environment is not allowed"), "{with_variable}");
}

#[test]
fn the_environment_is_the_agents_with_what_is_given() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let job = JobStart { env: Some(vec!["A=1".into(), "HOME=/x".into()]), ..shell("echo $A $HOME; pwd; env") };
    let id = start(&mut client, &job).unwrap().id;
    let output = String::from_utf8(read_to_end(&mut client, id, 0).0).unwrap();
    let directory = agent.path("").canonicalize().unwrap();
    assert!(output.starts_with(&format!("1 /x\n{}\n", directory.display())), "{output}");
    assert!(output.contains(&format!("PATH={}\n", std::env::var("PATH").unwrap())), "{output}");
}

#[test]
fn without_a_program_it_is_the_login_shell() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let line = "echo $0; pwd; echo $HOME; read x; echo $x";
    let job =
        JobStart { arg: Some(vec!["-c".into(), line.into()]), env: Some(vec!["A=1".into()]), ..JobStart::default() };
    let id = start(&mut client, &job).unwrap().id;
    let output = String::from_utf8(read_to_end(&mut client, id, 0).0).unwrap();
    let lines: Vec<_> = output.lines().collect();
    assert!(lines[0].starts_with('-') && lines[1] == lines[2], "{output}");
}

#[test]
fn a_job_is_listed_until_it_is_forgotten() {
    let agent = Agent::start();
    let mut client = agent.connect();
    assert_eq!(list(&mut client), []);
    let id = start_shell(&mut client, "echo hello; read line");
    read_until(&mut client, id, 0, "hello\n");
    let [job] = &list(&mut client)[..] else { panic!("one job") };
    assert_eq!((job.id, &*job.path, job.terminal, job.state), (id, "/bin/sh", false, JobState::Running));
    assert_eq!((job.out_begin, job.out_end, job.in_offset), (0, 6, 0));
    let forget = |client: &mut Client<UnixStream>| refusal(client.call(&JobForget { id }, deadline())).map(drop);
    assert_eq!(forget(&mut client), Err(format!("job {id} has not exited")));
    write(&mut client, id, b"\n", true).unwrap();
    read_to_end(&mut client, id, 6);
    assert_eq!(forget(&mut client), Ok(()));
    assert_eq!(read(&mut client, id, 6, None), Err(format!("job {id} does not exist")));
    assert_eq!(list(&mut client), []);
    assert!(start_shell(&mut client, "true") > id, "an id is never used twice");
}
