//! exec, jobs: programs that are talked to while they run, through our agent.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::Child,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{Agent, finish, qgactl, start, wait_until};

fn ours() -> Option<Agent> {
    Agent::ours(&[])
}

fn read_line(process: &mut Child) -> String {
    let mut line = Vec::new();
    // Not buffered, so that nothing is kept from the next reader.
    let stdout = process.stdout.as_mut().unwrap();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

fn send(process: &Child, signal: Signal) {
    kill(Pid::from_raw(process.id().try_into().unwrap()), signal).unwrap();
}

/// The ids of the jobs there are.
fn jobs(agent: &Agent) -> Vec<i64> {
    let list: Vec<serde_json::Value> = serde_json::from_str(&agent.qgactl(&["jobs", "--json"]).success()).unwrap();
    list.iter().map(|job| job["id"].as_i64().unwrap()).collect()
}

/// Starts a job of the shell, and returns its id as text.
fn detach(agent: &Agent, options: &[&str], line: &str) -> String {
    let id = agent.qgactl(&[&["exec", "-d"], options, &["sh", "-c", line]].concat()).success();
    id.trim().into()
}

#[test]
fn output_is_there_before_the_program_ends_and_input_reaches_it_meanwhile() {
    let Some(agent) = ours() else { return };
    let mut process = start(&agent.socket(), &["exec", "-i", "sh", "-c", "echo ready; cat; echo end >&2; exit 3"]);
    assert_eq!(read_line(&mut process), "ready\n");
    for line in ["one\n", "two\n"] {
        process.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
        assert_eq!(read_line(&mut process), line);
    }
    drop(process.stdin.take());
    let outcome = finish(process);
    assert_eq!((outcome.status, outcome.stdout, outcome.stderr.as_str()), (3, Vec::new(), "end\n"));
    assert!(jobs(&agent).is_empty());
}

#[test]
fn more_passes_than_any_buffer_holds_in_both_directions_at_once() {
    let Some(agent) = ours() else { return };
    let input: Vec<u8> = (0..6_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut process = start(&agent.socket(), &["exec", "-i", "cat"]);
    let (mut stdin, all) = (process.stdin.take().unwrap(), input.clone());
    let writer = std::thread::spawn(move || stdin.write_all(&all));
    let outcome = finish(process);
    writer.join().unwrap().unwrap();
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    assert!(outcome.stdout == input, "{} bytes came back", outcome.stdout.len());
}

#[test]
fn input_is_read_no_faster_than_the_program_takes_it_and_no_more_after_it_has_closed_it() {
    let Some(agent) = ours() else { return };
    let outcome = qgactl(&agent.socket(), &["exec", "-i", "head", "-c", "3"], &vec![b'x'; 8_000_000]);
    assert_eq!((outcome.status, outcome.stdout), (0, b"xxx".to_vec()));
    let outcome = qgactl(&agent.socket(), &["exec", "sh", "-c", "cat; echo empty"], b"not passed");
    assert_eq!((outcome.status, outcome.stdout), (0, b"empty\n".to_vec()));
}

#[test]
fn a_signal_is_passed_on_and_the_program_decides_what_comes_of_it() {
    let Some(agent) = ours() else { return };
    for (signal, status) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
        let mut process = start(&agent.socket(), &["exec", "sh", "-c", "echo ready; exec sleep 1000"]);
        read_line(&mut process);
        send(&process, signal);
        finish(process).check(status, "");
    }
    let line = "trap 'echo caught; exit 7' INT; echo ready; while :; do read line <&3; done 3<>fifo";
    let mut process = start(&agent.socket(), &["exec", "sh", "-c", &format!("mkfifo fifo; {line}")]);
    read_line(&mut process);
    send(&process, Signal::SIGINT);
    let outcome = finish(process);
    assert_eq!((outcome.status, outcome.stdout), (7, b"caught\n".to_vec()), "{}", outcome.stderr);
}

#[test]
fn a_reader_that_goes_away_ends_the_program_as_if_it_wrote_there() {
    let Some(agent) = ours() else { return };
    let mut process = start(&agent.socket(), &["exec", "yes"]);
    read_line(&mut process);
    drop(process.stdout.take());
    finish(process).check(141, "");
}

#[test]
fn a_program_that_outlives_the_time_is_ended_with_status_124() {
    let Some(agent) = ours() else { return };
    let outcome = agent.qgactl(&["exec", "--timeout", "0.5", "sh", "-c", "echo begun; sleep 1000"]);
    outcome.check(124, "was ended");
    assert_eq!((outcome.stdout, jobs(&agent)), (b"begun\n".to_vec(), vec![]));
}

#[test]
fn a_program_has_the_directory_and_the_variables_that_are_asked_for() {
    let Some(agent) = ours() else { return };
    let line = "pwd; echo $A $PATH";
    let output = agent.qgactl(&["exec", "-w", "/usr", "-e", "A=1", "-e", "PATH=/bin", "sh", "-c", line]).success();
    assert_eq!(output, "/usr\n1 /bin\n");
    agent.qgactl(&["exec", "-w", "/nonexistent", "true"]).check(125, "failed to enter /nonexistent");
    agent.qgactl(&["exec", "-u", "no such user", "true"]).check(125, "there is no user no such user");
    agent.qgactl(&["exec", "--clear-env", "A=1"]).check(125, "would take A=1 for a variable");
}

#[test]
fn no_byte_is_lost_or_doubled_when_the_agent_is_killed_in_the_middle_of_both_directions() {
    let Some(mut agent) = ours() else { return };
    let input: Vec<u8> = (0..4_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut process = start(&agent.socket(), &["exec", "-i", "sh", "-c", "cat; exit 5"]);
    let (mut stdin, all) = (process.stdin.take().unwrap(), input.clone());
    let writer = std::thread::spawn(move || stdin.write_all(&all));
    let (mut stdout, mut output) = (process.stdout.take().unwrap(), Vec::new());
    for _ in 0..3 {
        let mut piece = vec![0; 3_000_000];
        stdout.read_exact(&mut piece).unwrap();
        output.extend(piece);
        agent.restart(|| ());
    }
    stdout.read_to_end(&mut output).unwrap();
    writer.join().unwrap().unwrap();
    finish(process).check(5, "");
    assert!(output == input, "{} bytes came back", output.len());
}

#[test]
fn an_agent_that_is_away_is_looked_for_and_a_signal_meanwhile_leaves_the_job() {
    let Some(mut agent) = ours() else { return };
    let mut process = start(&agent.socket(), &["exec", "-i", "sh", "-c", "echo ready; cat"]);
    read_line(&mut process);
    let socket = agent.socket();
    agent.restart(|| {
        std::fs::remove_file(socket).ok();
        let mut said = String::new();
        BufReader::new(process.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "qgactl: the agent was lost, and is looked for\n");
        send(&process, Signal::SIGTERM);
        finish(process).check(143, "goes on in the guest");
    });
    let id = jobs(&agent)[0].to_string();
    let outcome = qgactl(&agent.socket(), &["jobs", "attach", "-i", &id], b"back\n");
    // What was not acknowledged when the agent was killed comes again.
    assert!(outcome.status == 0 && outcome.stdout.ends_with(b"back\n") && jobs(&agent).is_empty(), "{outcome:?}");
}

#[test]
fn a_job_that_the_guest_does_not_know_any_more_is_status_125() {
    let agent = Agent::scripted(|request| {
        Some(match request["execute"].as_str() {
            Some("qgad-job-start") => r#"{"return": {"id": 7, "pid": 8}}"#.into(),
            _ => r#"{"error": {"class": "GenericError", "desc": "job 7 does not exist"}}"#.into(),
        })
    });
    agent
        .qgactl(&["exec", "true"])
        .check(125, "failed to attend job 7, which may go on: qgad-job-read: job 7 does not");
}

#[test]
fn jobs_are_detached_listed_read_signalled_and_forgotten() {
    let Some(agent) = ours() else { return };
    let id = detach(&agent, &[], "echo out; echo error >&2; exec sleep 1000");
    let read = || agent.qgactl(&["jobs", "logs", &id]);
    wait_until("the job has written", || !read().stdout.is_empty() && !read().stderr.is_empty());
    // Twice the same: it stays unread.
    assert_eq!((read().stdout, read().stderr.as_str()), (b"out\n".to_vec(), "error\n"));
    let list = agent.qgactl(&["jobs"]).success();
    assert!(list.starts_with(" job  state") && list.contains(&format!("\n{id}  runs as process ")), "{list}");
    agent.qgactl(&["jobs", "forget", &id]).check(1, "qgad-job-forget: ");
    agent.qgactl(&["jobs", "signal", &id]).check(0, "");
    let outcome = agent.qgactl(&["jobs", "attach", &id]);
    assert_eq!((outcome.status, outcome.stdout, outcome.stderr.as_str()), (143, b"out\n".to_vec(), "error\n"));
    agent.qgactl(&["jobs", "attach", &id]).check(125, &format!("job {id} does not exist"));
    agent.qgactl(&["jobs", "logs", &id]).check(1, &format!("job {id} does not exist"));
    agent.qgactl(&["jobs", "signal", &id, "NONSENSE"]).check(1, "there is no signal 'NONSENSE'");
    let (one, two) = (detach(&agent, &[], "exit 1"), detach(&agent, &[], "exit 2"));
    wait_until("both have ended", || agent.qgactl(&["jobs"]).success().matches("exited with").count() == 2);
    agent.qgactl(&["jobs", "forget", &one, &two]).check(0, "");
    assert_eq!(agent.qgactl(&["jobs"]).success().lines().count(), 1);
}

#[test]
fn a_detached_job_keeps_its_input_open_and_is_there_as_json() {
    let Some(agent) = ours() else { return };
    let started = agent.qgactl(&["--json", "exec", "-d", "-i", "cat"]).success();
    let id = serde_json::from_str::<serde_json::Value>(&started).unwrap()["id"].as_i64().unwrap();
    assert_eq!(jobs(&agent), [id]);
    let outcome = qgactl(&agent.socket(), &["jobs", "attach", "-i", &id.to_string()], b"late");
    assert_eq!((outcome.status, outcome.stdout), (0, b"late".to_vec()), "{}", outcome.stderr);
}

#[test]
fn a_terminal_needs_one_here() {
    let Some(agent) = ours() else { return };
    agent.qgactl(&["exec", "-t", "true"]).check(125, "standard input is no terminal");
    agent.qgactl(&["shell"]).check(125, "standard input is no terminal");
    assert!(jobs(&agent).is_empty());
}

#[test]
fn an_agent_without_jobs_says_so() {
    if let Some(agent) = Agent::reference(&[]) {
        agent.qgactl(&["jobs"]).check(5, "qgad-job-list: ");
        agent.qgactl(&["jobs", "attach", "1"]).check(125, "qgad-job-list: ");
    }
}
