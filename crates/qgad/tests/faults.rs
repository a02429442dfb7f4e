//! The real agent when the machine fails it: killed while it writes, and with nowhere left to write to.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
};

use qga::commands::file::FileOpen;
use support::{Agent, deadline, ping, program, run};

#[test]
fn a_killed_agent_leaves_a_whole_state_file_and_uses_no_handle_twice() {
    let mut agent = Agent::start();
    fs::write(agent.path("file"), "x").unwrap();
    let open = FileOpen { path: agent.path("file").to_string_lossy().into_owned(), mode: None };
    let request = format!(r#"{{"execute":"guest-file-open","arguments":{{"path":"{}"}}}}"#, open.path);
    let mut latest = 0;
    for round in 0..20 {
        let mut client = agent.connect();
        let handle = client.call(&open, deadline()).unwrap();
        assert!(handle > latest, "{handle} after {latest}");
        latest = handle;
        // Killed in the midst of these, at another point each time.
        let mut stream = UnixStream::connect(agent.path("socket")).unwrap();
        stream.write_all(request.repeat(round * 4).as_bytes()).unwrap();
        agent.restart();
        let state = fs::read_to_string(agent.path("qga.state")).unwrap();
        let counter = state.strip_prefix("[global]\nfd_counter=").and_then(|rest| rest.strip_suffix('\n'));
        assert!(counter.unwrap().parse::<i64>().unwrap() > latest, "{state}");
    }
}

#[test]
fn an_audit_without_room_costs_nothing_else() {
    let mut agent = Agent::start();
    fs::write(agent.path("config"), "[general]\naudit-file=/dev/full\n").unwrap();
    agent.restart();
    let mut client = agent.connect();
    for _ in 0..3 {
        assert_eq!(run(&mut client, &program("/bin/true", &[])).exitcode, Some(0));
    }
    ping(&mut client);
}

#[test]
fn many_polls_and_programs_leave_memory_descriptors_and_children_as_they_were() {
    const BATCHES: usize = 500;
    const POLLS_A_BATCH: usize = 400;
    const PROGRAMS: usize = 2000;
    /// What an allocator may keep for itself, in kibibytes.
    const MOST_GROWTH: u64 = 4096;
    let polls = [
        r#"{"execute":"guest-ping"}"#,
        r#"{"execute":"guest-sync","arguments":{"id":7}}"#,
        r#"{"execute":"guest-get-time"}"#,
        r#"{"execute":"guest-exec-status","arguments":{"pid":1}}"#,
        r#"{"execute":"no-such-command"}"#,
        r#"{"execute":"guest-fsfreeze-status"}"#,
        r#"{"execute":"guest-get-load"}"#,
        r#"{"execute":"guest-ping","arguments":{"x":1}}"#,
    ];
    let batch = polls.join("").repeat(POLLS_A_BATCH / polls.len());
    let agent = Agent::start();
    let mut client = agent.connect();
    let mut peer = BufReader::new(UnixStream::connect(agent.path("socket")).unwrap());
    let mut poll = |batches: usize| {
        let mut line = Vec::new();
        for _ in 0..batches {
            peer.get_mut().write_all(batch.as_bytes()).unwrap();
            for _ in 0..POLLS_A_BATCH {
                line.clear();
                assert!(peer.read_until(b'\n', &mut line).unwrap() > 0);
            }
        }
    };
    poll(BATCHES / 10);
    assert_eq!(run(&mut client, &program("/bin/true", &[])).exitcode, Some(0));
    let (memory, descriptors) = (resident(&agent), agent.descriptors());
    poll(BATCHES);
    for _ in 0..PROGRAMS {
        assert_eq!(run(&mut client, &program("/bin/true", &[])).exitcode, Some(0));
    }
    assert_eq!(agent.descriptors(), descriptors);
    let grown = resident(&agent).saturating_sub(memory);
    assert!(grown <= MOST_GROWTH, "{grown} KiB more than before");
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    for task in tasks {
        assert_eq!(fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default(), "");
    }
}

/// Resident memory, in kibibytes.
fn resident(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
